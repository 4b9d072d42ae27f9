"""Writes the files in crates/langevin/tests/reference/trackers that the trackers' bytes are compared with.

    pip install tensorboard wandb==0.17.9
    python scripts/tracker_fixtures.py crates/langevin/tests/reference/trackers

TensorBoard's own record writer and messages write `events.tfevents`; the wandb package's own DataStore and messages
(0.17 is the last series that has the former in Python) write `run.wandb`.
"""

import io
import os
import sys

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)

# A PNG is whatever bytes; both trackers only carry it.
PNG = bytes(range(256)) * 3


def tensorboard():
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    def metadata(tag, **content):
        data = plugin_data_pb2.HParamsPluginData(**content)
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
        return summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(tag=tag, metadata=summary_pb2.SummaryMetadata(plugin_data=plugin))]
        )

    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name="learning_rate", type=api_pb2.DATA_TYPE_FLOAT64),
            api_pb2.HParamInfo(name="model", type=api_pb2.DATA_TYPE_STRING),
            api_pb2.HParamInfo(name="use_ema", type=api_pb2.DATA_TYPE_BOOL),
        ],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag="loss"))],
    )
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=3.5)
    start.hparams["learning_rate"].number_value = 0.001
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=4.5)
    scalars = summary_pb2.Summary(
        value=[
            summary_pb2.Summary.Value(tag="loss", simple_value=0.5),
            summary_pb2.Summary.Value(tag="lr", simple_value=0.001),
        ]
    )
    image = summary_pb2.Summary.Image(height=16, width=24, colorspace=3, encoded_image_string=PNG)
    picture = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="samples", image=image)])
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in [
        event_pb2.Event(wall_time=3.5, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=3.5, summary=metadata("_hparams_/experiment", experiment=experiment)),
        event_pb2.Event(wall_time=3.5, summary=metadata("_hparams_/session_start_info", session_start_info=start)),
        event_pb2.Event(wall_time=4.0, step=7, summary=scalars),
        event_pb2.Event(wall_time=4.25, step=300, summary=picture),
        event_pb2.Event(wall_time=4.5, summary=metadata("_hparams_/session_end_info", session_end_info=end)),
    ]:
        writer.write(event.SerializeToString())
    writer.flush()
    with open(os.path.join(folder, "events.tfevents"), "wb") as file:
        file.write(buffer.getvalue())
    # What torch.utils.tensorboard.SummaryWriter(purge_step=7) begins a file with.
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    for event in [
        event_pb2.Event(wall_time=3.5, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=3.5, step=7, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=3.5, step=7, session_log=start),
    ]:
        writer.write(event.SerializeToString())
    writer.flush()
    with open(os.path.join(folder, "resumed.tfevents"), "wb") as file:
        file.write(buffer.getvalue())


def wandb():
    import wandb
    from wandb.proto import wandb_internal_pb2 as pb

    wandb._assert_is_internal_process = True
    from wandb.sdk.internal.datastore import DataStore

    path = os.path.join(folder, "run.wandb")
    if os.path.exists(path):
        os.remove(path)
    store = DataStore()
    store.open_for_write(path)
    number = 0

    def write(**content):
        nonlocal number
        number += 1
        record = pb.Record(num=number, **content)
        record._info.stream_id = "abcd1234"
        store.write(record)

    version = pb.VersionInfo(producer="langevin", min_consumer="0.9.0")
    write(header=pb.HeaderRecord(version_info=version))
    run = pb.RunRecord(run_id="abcd1234", entity="me", project="langevin", display_name="digits-1")
    run.config.update.add(key="learning_rate", value_json="0.001")
    run.config.update.add(key="model", value_json='"digits"')
    run.start_time.seconds, run.start_time.nanos = 3, 500_000_000
    write(run=run)
    history = pb.HistoryRecord(step=pb.HistoryStep(num=7))
    history.item.add(key="loss", value_json="0.5")
    write(history=history)
    summary = pb.SummaryRecord()
    summary.update.add(key="loss", value_json="0.5")
    write(summary=summary)
    media, own = pb.FilesItem.FileType.MEDIA, pb.FilesItem.FileType.WANDB
    for name, kind in [("media/images/a.png", media), ("wandb-metadata.json", own)]:
        write(files=pb.FilesRecord(files=[pb.FilesItem(path=name, type=kind)]))
    # Two records over the edges of the log's blocks: one that needs three, one whose header does not fit.
    for length in [70_000, 27_852]:
        history = pb.HistoryRecord(step=pb.HistoryStep(num=8))
        history.item.add(key="long", value_json="1" * length)
        write(history=history)
    write(exit=pb.RunExitRecord(exit_code=1, runtime=60))
    store.close()


tensorboard() if "wandb" not in sys.argv[2:] else wandb()
