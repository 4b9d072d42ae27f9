#!/usr/bin/env python3
"""Values of diffusers for settings of configurations that few models have: tests/reference/conditional/unet2d_condition/gelu (a UNet with another
activation than SiLU, whose class is a second timestep, and whose settings are written as Python takes them too) and
tests/reference/sd/cases/ddim_thresholding (a pipeline of latents with dynamic thresholding and guidance).

    venv/bin/python scripts/config_fixture.py        # torch 2.15, diffusers 0.42.1, transformers 5.24
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

REFERENCE = Path(__file__).resolve().parent.parent / "crates/langevin/tests/reference"


def unet():
    torch.manual_seed(3)
    folder = REFERENCE / "conditional/unet2d_condition/gelu"
    model = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
        act_fn="gelu",
        class_embed_type="timestep",
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    # What Python takes for a no, and words that diffusers does not look at.
    config |= {"center_input_sample": None, "dual_cross_attention": None, "attention_type": None, "resnet_skip_time_act": True}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    model = UNet2DConditionModel.from_pretrained(folder)
    sample = torch.randn(2, 4, 8, 8, requires_grad=True)
    tensors = {
        "timestep": torch.tensor([7.0, 600.0]),
        "class_ids": torch.tensor([3.0, 40.0]),
        "encoder_hidden_states": torch.randn(2, 5, 16),
    }
    output = model(sample, tensors["timestep"], tensors["encoder_hidden_states"], class_labels=tensors["class_ids"].long()).sample
    output.square().mean().backward()
    tensors |= {"sample": sample.detach(), "output": output.detach(), "grad_sample": sample.grad}
    save_file(tensors, folder / "io.safetensors")


def thresholding():
    folder = REFERENCE / "sd/cases/ddim_thresholding"
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(REFERENCE / "sd/models/sd1", safety_checker=None)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, thresholding=True, sample_max_value=1.5)
    scheduler.save_pretrained(folder / "scheduler")
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    pipeline.scheduler = scheduler
    arguments = dict(prompt="a red cat", num_inference_steps=4, guidance_scale=4.0)
    kept = {}

    def keep(_pipeline, _step, _timestep, values):
        kept["latents"] = values["latents"].clone()
        return {}

    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(11)
    images = pipeline(**arguments, generator=generator, output_type="np", callback_on_step_end=keep).images
    save_file({"images": torch.from_numpy(images).contiguous(), "latents": kept["latents"].contiguous()}, folder / "expected.safetensors")
    call = {
        "pipeline": "StableDiffusionPipeline",
        "model": "sd/models/sd1",
        "scheduler": "scheduler/scheduler_config.json",
        "arguments": arguments,
        "inputs": {},
        "generator": {"seed": 11},
        "output_type": "np",
    }
    (folder / "call.json").write_text(json.dumps(call, indent=1) + "\n")


unet()
thresholding()
