"""Prints what TensorBoard itself reads from a folder of event files, as JSON; exits with 77 where it is not installed."""

import json
import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2
except ImportError:
    sys.exit(77)

events = EventAccumulator(sys.argv[1])
events.Reload()
hparams = {}
for content in events.summary_metadata.values():
    data = plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content)
    for name, value in data.session_start_info.hparams.items():
        hparams[name] = getattr(value, value.WhichOneof("kind"))
tags = events.Tags()
print(
    json.dumps(
        {
            "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
            "images": {tag: [[e.step, e.width, e.height] for e in events.Images(tag)] for tag in tags["images"]},
            "png": all(
                e.encoded_image_string.startswith(b"\x89PNG") for tag in tags["images"] for e in events.Images(tag)
            ),
            "hparams": hparams,
        }
    )
)
