"""Writes the checkpoints beside this file: one small model in the formats of different years, and what it computes.

Needs torch, diffusers and safetensors; `python make.py` writes the same files again, but for the archives' dates.
"""

import collections
import json
import os
import pathlib

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
torch.manual_seed(3)
torch.set_num_threads(1)


def save(state, path, **options):
    (here / path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, here / path, **options)


def write_json(value, path):
    (here / path).parent.mkdir(parents=True, exist_ok=True)
    (here / path).write_text(json.dumps(value, indent=2) + "\n")


# The model, as today's diffusers saves it, and its output.
model = UNet2DModel(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(4, 8),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    attention_head_dim=4,
).eval()
model.save_pretrained(here / "plain")
sample, timestep = torch.randn(2, 1, 8, 8), torch.tensor([10, 700])
with torch.no_grad():
    output = model(sample, timestep).sample
save_file({"sample": sample, "timestep": timestep, "output": output}, here / "plain/io.safetensors")
state = collections.OrderedDict((name, value.clone()) for name, value in model.state_dict().items())

# torch.save in its formats.
save(state, "pickles/zip.bin")
save(state, "pickles/legacy.bin", _use_new_zipfile_serialization=False)
save(state, "pickles/protocol_4.bin", pickle_protocol=4)
save(dict(state), "pickles/dict.bin")
save(model.state_dict(keep_vars=True), "pickles/parameters.bin")


# All tensors views of one storage, some of them turned: strides and offsets count.
def views():
    flat = torch.cat([torch.zeros(5)] + [
        (v.permute(1, 2, 3, 0) if v.dim() == 4 else v.t() if v.dim() == 2 else v).reshape(-1) for v in state.values()
    ])
    at, result = 5, {}
    for name, v in state.items():
        part = flat[at : at + v.numel()]
        at += v.numel()
        if v.dim() == 4:
            part = part.view(v.permute(1, 2, 3, 0).shape).permute(3, 0, 1, 2)
        elif v.dim() == 2:
            part = part.view(v.t().shape).t()
        result[name] = part
        assert torch.equal(part, v)
    return result


save(views(), "pickles/views.bin")
save(views(), "pickles/views_legacy.bin", _use_new_zipfile_serialization=False)

# Other types, and integers beside them, which no parameter is.
wide = collections.OrderedDict((name, value.double()) for name, value in state.items())
wide["num_batches"] = torch.tensor(3)
wide["mask"] = torch.zeros(3, dtype=torch.bool)
save(wide, "pickles/double.bin")
for name, dtype in [("half", torch.float16), ("bfloat16", torch.bfloat16)]:
    save({key: value.to(dtype) for key, value in state.items()}, f"pickles/{name}.bin")
save({**state, "conv_in.bias": state["conv_in.bias"].long()}, "pickles/integer.bin")

# Several files, and variants, as diffusers writes them.
model.save_pretrained(here / "sharded_bin", max_shard_size="25KB", safe_serialization=False)
model.half().save_pretrained(here / "sharded_fp16", max_shard_size="12KB", variant="fp16")
model.float()


# What asks for more than tensors: were it executed, a file would appear.
class Command:
    def __reduce__(self):
        return os.system, ("touch langevin-ran-a-pickle",)


bias = state["conv_in.bias"]
save({"conv_in.bias": bias, "extra": Command()}, "pickles/command.bin")
save({"conv_in.bias": bias, "extra": Command()}, "pickles/command_legacy.bin", _use_new_zipfile_serialization=False)
save({"conv_in.bias": bias, "extra": 3}, "pickles/number.bin")
save(model.conv_in, "pickles/module.bin")
save([1, 2], "pickles/list.bin")

# A repository of 2022: every file at the root, a pickle, early names, and configurations of few keys.
early = collections.OrderedDict()
for name, value in state.items():
    for today, then in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]:
        name = name.replace(f".{today}.", f".{then}.")
    early[name] = value
save(early, "early/diffusion_pytorch_model.bin", _use_new_zipfile_serialization=False)
write_json(
    {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.0.4",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    },
    "early/model_index.json",
)
write_json(
    {
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.0.4",
        "act_fn": "silu",
        "attention_head_dim": None,
        "block_out_channels": [4, 8],
        "center_input_sample": False,
        "down_block_types": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"],
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 1,
        "layers_per_block": 1,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-06,
        "norm_num_groups": 4,
        "out_channels": 1,
        "sample_size": 8,
        "time_embedding_type": "positional",
        "up_block_types": ["UNetResAttnUpBlock2D", "UNetResUpBlock2D"],
    },
    "early/config.json",
)
write_json(
    {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "timestep_values": None,
        "trained_betas": None,
        "variance_type": "fixed_small",
    },
    "early/scheduler_config.json",
)
pipeline = DDPMPipeline.from_pretrained(here / "early", use_safetensors=False)
images = pipeline(batch_size=2, num_inference_steps=5, generator=torch.Generator().manual_seed(11), output_type="np").images
save_file({"images": torch.from_numpy(images)}, here / "early/images.safetensors")
filled_in = {
    part: {key: value for key, value in getattr(pipeline, part).config.items() if not key.startswith("_")}
    for part in ["unet", "scheduler"]
}
write_json(filled_in, "early/filled_in.json")
