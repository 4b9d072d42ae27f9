"""Reads LoRA files that `langevin convert` wrote with diffusers and peft, and holds the pictures that they draw by them to those of the
reference values, which come of the files as they were.

    pip install torch transformers diffusers peft safetensors
    python scripts/check-lora-files.py target/release/langevin crates/langevin/tests/reference
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy
import torch
from safetensors.torch import load_file

program, root = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(1)
failed = []
for case in sorted((root / "lora/cases").iterdir()):
    call = json.loads((case / "call.json").read_text())
    loras = call.get("loras") or []
    # Where diffusers drops what a file says, it can be no judge; where one scale is not a number, it is another call.
    if not loras or not all(isinstance(lora["weight"], (int, float)) for lora in loras):
        continue
    if call.get("diffusers_reads") is not True and "every_alpha" not in case.name:
        continue
    for style in ["peft", "diffusers", "kohya"]:
        if "every_alpha" in case.name and style == "kohya":
            # Its alphas differ, which diffusers reads wrong in this style.
            continue
        if "conv" in case.name and style == "diffusers":
            # diffusers' own names before PEFT know no convolutions.
            continue
        if "dora" in case.name and style != "peft":
            continue
        with tempfile.TemporaryDirectory() as folder:
            pipeline = getattr(diffusers, call["pipeline"]).from_pretrained(root / call["model"])
            config = json.loads((case / call["scheduler"]).read_text())
            pipeline.scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
            names = []
            for place, lora in enumerate(loras):
                written = Path(folder) / f"{place}.safetensors"
                config = ["--config", str(root / call["model"])]
                subprocess.run([program, "convert", str(root / lora["file"]), str(written), "--lora-style", style, *config], check=True)
                pipeline.load_lora_weights(folder, weight_name=written.name, adapter_name=f"own_{place}")
                names.append(f"own_{place}")
            pipeline.set_adapters(names, [lora["weight"] for lora in loras])
            generator = torch.Generator().manual_seed(call["generator"]["seed"])
            images = pipeline(generator=generator, output_type="np", **call["arguments"]).images
            expected = load_file(case / "expected.safetensors")["images"].numpy()
            off = float(numpy.abs(images - expected).max())
            verdict = "as it was" if off < 1.5 / 255 else "ANOTHER PICTURE"
            print(f"{case.name} as {style}: {verdict}, at most {off * 255:.2f} of 255 off")
            if off >= 1.5 / 255:
                failed.append((case.name, style))
sys.exit(f"not as they were: {failed}" if failed else 0)
