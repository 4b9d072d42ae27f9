"""Writes ip_adapter of crates/langevin/tests/reference: tiny IP-Adapters in the layouts of their authors' files with a tiny image encoder, what
diffusers makes of pictures by them, and calls of its pipelines with them.

    pip install torch transformers diffusers safetensors pillow accelerate
    python scripts/ip_adapter_fixture.py crates/langevin/tests/reference

The pipelines are sd/models/sd1 and sdxl/models/base.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

root = Path(sys.argv[1])
here = root / "ip_adapter"
here.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
MODELS = {"sd": "sd/models/sd1", "xl": "sdxl/models/base"}


def drawing(seed, size):
    """Discs, in place of a photograph."""
    generator = torch.Generator().manual_seed(seed)
    picture = Image.new("RGB", size, (200, 120, 40))
    pen = ImageDraw.Draw(picture)
    for _ in range(8):
        x, y, radius, r, g, b = (torch.rand(6, generator=generator) * 255).int().tolist()
        x, y, radius = x * size[0] // 255, y * size[1] // 255, 3 + radius * size[0] // 1200
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(r, g, b))
    return picture


# The encoder.
HIDDEN, PROJECTED = 32, 24
config = CLIPVisionConfig(
    hidden_size=HIDDEN, intermediate_size=48, projection_dim=PROJECTED, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8,
    hidden_act="gelu",
)
encoder = CLIPVisionModelWithProjection(config).eval()
generator = torch.Generator().manual_seed(70)
draw = lambda *shape: torch.randn(*shape, generator=generator)
with torch.no_grad():
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(0.1 * draw(*parameter.shape))
        elif "norm" in name and parameter.ndim == 1:
            parameter.copy_(1 + 0.2 * draw(*parameter.shape))
        elif parameter.ndim == 1 or "position" in name:
            parameter.copy_(0.5 * draw(*parameter.shape))
        else:
            parameter.copy_(draw(*parameter.shape) * (1.5 / parameter[0].numel()) ** 0.5)
encoder.save_pretrained(here / "image_encoder")


# The adapters, under the names of their authors' files.
def linear(tensors, name, outputs, inputs, bias=True, gain=1.0):
    tensors[f"{name}.weight"] = draw(outputs, inputs) * gain / inputs**0.5
    if bias:
        tensors[f"{name}.bias"] = 0.1 * draw(outputs)


def norm(tensors, name, width):
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + 0.2 * draw(width), 0.1 * draw(width)


def attentions(unet):
    """What each cross-attention has; numbers count self-attentions too, which have nothing."""
    tensors, number = {}, 1
    widths = unet.config.block_out_channels
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        place = name.split(".")
        width = widths[-1] if place[0] == "mid_block" else widths[int(place[1])] if place[0] == "down_blocks" else widths[::-1][int(place[1])]
        for part in ["to_k_ip", "to_v_ip"]:
            tensors[f"{number}.{part}.weight"] = draw(width, unet.config.cross_attention_dim) * 1.5 / unet.config.cross_attention_dim**0.5
        number += 2
    return tensors


def plain(dimension):
    tensors = {}
    linear(tensors, "proj", 4 * dimension, PROJECTED)
    norm(tensors, "norm", dimension)
    return tensors


def full(dimension):
    tensors = {}
    linear(tensors, "proj.0", HIDDEN, HIDDEN)
    linear(tensors, "proj.2", dimension, HIDDEN)
    norm(tensors, "proj.3", dimension)
    return tensors


def plus(dimension, tokens=5, inner=8, heads=1, layers=4):
    tensors = {"latents": draw(1, tokens, inner) / inner**0.5}
    linear(tensors, "proj_in", inner, HIDDEN)
    linear(tensors, "proj_out", dimension, inner)
    norm(tensors, "norm_out", dimension)
    for layer in range(layers):
        norm(tensors, f"layers.{layer}.0.norm1", inner)
        norm(tensors, f"layers.{layer}.0.norm2", inner)
        linear(tensors, f"layers.{layer}.0.to_q", 64 * heads, inner, False, 2.0)
        linear(tensors, f"layers.{layer}.0.to_kv", 128 * heads, inner, False, 1.5)
        linear(tensors, f"layers.{layer}.0.to_out", inner, 64 * heads, False)
        norm(tensors, f"layers.{layer}.1.0", inner)
        linear(tensors, f"layers.{layer}.1.1", 4 * inner, inner, False)
        linear(tensors, f"layers.{layer}.1.3", inner, 4 * inner, False)
    return tensors


FILES = {
    "plain_sd.safetensors": ("sd", plain), "plus_sd.bin": ("sd", plus), "full_sd.safetensors": ("sd", full),
    "plain_xl.safetensors": ("xl", plain), "plus_xl.safetensors": ("xl", plus),
}
for file, (model, make) in FILES.items():
    unet = UNet2DConditionModel.from_pretrained(root / MODELS[model], subfolder="unet")
    parts = {"image_proj": make(unet.config.cross_attention_dim), "ip_adapter": attentions(unet)}
    if file.endswith(".bin"):
        torch.save(parts, here / file)
    else:
        save_file({f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}, here / file)


def on(scheduler, config):
    """The scheduler on another's noise schedule; samples are latents, which have no bounds."""
    bounded = {"clip_sample": False} if scheduler is DDIMScheduler else {}
    return scheduler.from_config(config, **bounded)


def load(pipeline_class, model, files, scheduler):
    extra = {} if model == "xl" else dict(safety_checker=None, feature_extractor=None)
    pipeline = pipeline_class.from_pretrained(root / MODELS[model], **extra)
    pipeline.scheduler = on(scheduler, pipeline.scheduler.config)
    pipeline.load_ip_adapter(str(here), subfolder="", weight_name=files if len(files) > 1 else files[0], low_cpu_mem_usage=False)
    return pipeline


# What becomes of two pictures by themselves.
for file, (model, _) in FILES.items():
    folder = here / "alone" / file.split(".")[0]
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load(StableDiffusionXLPipeline if model == "xl" else StableDiffusionPipeline, model, [file], DDIMScheduler)
    names = ["0.png", "1.png"]
    for place, name in enumerate(names):
        drawing(80 + place, (40, 32)).save(folder / name)
    pictures = [Image.open(folder / name) for name in names]
    with torch.no_grad():
        seen = pipeline.prepare_ip_adapter_image_embeds([pictures], None, "cpu", 1, True)
        away, towards = pipeline.unet.encoder_hid_proj(seen)[0].chunk(2)
    shown = pipeline.feature_extractor(pictures, return_tensors="pt").pixel_values
    save_file(
        {"clip_input": shown.contiguous(), "towards": towards[0].contiguous(), "away": away[0].contiguous()}, folder / "io.safetensors"
    )
    told = {"file": f"ip_adapter/{file}", "image_encoder": "ip_adapter/image_encoder", "pictures": names, "model": MODELS[model]}
    (folder / "case.json").write_text(json.dumps(told, indent=1) + "\n")


STYLE = {"up": {"block_0": [0.0, 1.0]}}
CALLS = {
    "sd_plain": dict(
        pipeline=StableDiffusionPipeline, model="sd", scheduler=EulerDiscreteScheduler, seed=3, adapters=[("plain_sd.safetensors", [90], 0.6, {})],
        arguments=dict(prompt="a red fox", negative_prompt="blurry", num_inference_steps=4, guidance_scale=5.0, num_images_per_prompt=2),
    ),
    "sd_plus_two_pictures": dict(
        pipeline=StableDiffusionPipeline, model="sd", scheduler=DDIMScheduler, seed=4, adapters=[("plus_sd.bin", [91, 92], 0.9, {})],
        arguments=dict(prompt="a boat", num_inference_steps=4, guidance_scale=4.0, height=24, width=40),
    ),
    "sd_two_adapters": dict(
        pipeline=StableDiffusionPipeline, model="sd", scheduler=DDIMScheduler, seed=5,
        adapters=[("plain_sd.safetensors", [93], 0.5, {}), ("full_sd.safetensors", [94], 0.7, {})],
        arguments=dict(prompt="a lighthouse", num_inference_steps=3, guidance_scale=1.0),
    ),
    "sd_img2img": dict(
        pipeline=StableDiffusionImg2ImgPipeline, model="sd", scheduler=DDIMScheduler, seed=6, image=95,
        adapters=[("plus_sd.bin", [96], 0.8, {})],
        arguments=dict(prompt="a tower", num_inference_steps=5, guidance_scale=3.0, strength=0.6),
    ),
    "xl_style": dict(
        pipeline=StableDiffusionXLPipeline, model="xl", scheduler=EulerDiscreteScheduler, seed=7,
        adapters=[("plain_xl.safetensors", [97], 0.0, {"up_blocks.0.attentions.1": 1.0})], dictionary=STYLE,
        arguments=dict(prompt="a cat on a wall", num_inference_steps=4, guidance_scale=5.0),
    ),
}
for name, call in CALLS.items():
    case = here / "cases" / name
    if case.exists():
        shutil.rmtree(case)
    case.mkdir(parents=True)
    pipeline = load(call["pipeline"], call["model"], [file for file, *_ in call["adapters"]], call["scheduler"])
    scales = [call.get("dictionary", scale) for _, _, scale, _ in call["adapters"]]
    pipeline.set_ip_adapter_scale(scales if len(scales) > 1 else scales[0])
    told, shown = [], []
    for file, seeds, scale, parts in call["adapters"]:
        names = [f"prompt.{seed}.png" for seed in seeds]
        for seed, picture in zip(seeds, names):
            drawing(seed, (44, 32)).save(case / picture)
        shown.append([Image.open(case / picture) for picture in names])
        told.append({"file": f"ip_adapter/{file}", "pictures": names, "scale": scale, "parts": parts})
    common = dict(ip_adapter_image=shown, **call["arguments"])
    inputs = {}
    if "image" in call:
        drawing(call["image"], (32, 32)).save(case / "image.png")
        common["image"] = Image.open(case / "image.png")
        inputs["image"] = "image.png"
    kept = {}

    def keep(pipeline, step, timestep, tensors):
        kept["latents"] = tensors["latents"].contiguous()
        return tensors

    images = pipeline(
        generator=torch.Generator().manual_seed(call["seed"]), output_type="np", callback_on_step_end=keep, **common
    ).images
    save_file({"images": torch.tensor(images.copy()), **kept}, case / "expected.safetensors")
    pipeline.scheduler.save_pretrained(case / "scheduler")
    said = {
        "pipeline": call["pipeline"].__name__,
        "model": MODELS[call["model"]],
        "scheduler": "scheduler/scheduler_config.json",
        "ip_adapters": told,
        "image_encoder": "ip_adapter/image_encoder",
        "arguments": call["arguments"],
        "generator": {"seed": call["seed"]},
        "inputs": inputs,
        "output_type": "np",
    }
    (case / "call.json").write_text(json.dumps(said, indent=1) + "\n")
