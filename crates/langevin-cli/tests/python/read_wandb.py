"""Prints what the wandb package's own DataStore reads from a .wandb file, as JSON; exits with 77 where there is none.

wandb 0.17 is the last series that has a DataStore in Python.
"""

import json
import sys

try:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb._assert_is_internal_process = True
    from wandb.sdk.internal.datastore import DataStore
except ImportError:
    sys.exit(77)

store = DataStore()
store.open_for_scan(sys.argv[1])
kinds, history, run, config, exit_code, numbers = [], [], {}, {}, None, []
while (data := store.scan_data()) is not None:
    record = wandb_internal_pb2.Record()
    record.ParseFromString(data)
    kind = record.WhichOneof("record_type")
    kinds.append(kind)
    numbers.append(record.num)
    if kind == "run":
        run = {"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name}
        config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
    if kind == "history":
        history.append({item.key: json.loads(item.value_json) for item in record.history.item})
    if kind == "exit":
        exit_code = record.exit.exit_code
print(
    json.dumps(
        {"kinds": kinds, "numbers": numbers, "history": history, "run": run, "config": config, "exit": exit_code}
    )
)
