"""Writes upscale of crates/langevin/tests/reference: pictures that are drawn in two passes, the second at a larger size, by two calls of
diffusers' pipelines on sd/models/sd1 and sdxl/models/base.

    pip install torch transformers diffusers safetensors pillow
    python scripts/upscale_fixture.py crates/langevin/tests/reference
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import save_file

root = Path(sys.argv[1])
torch.set_num_threads(1)
MODES = {"latent": "bilinear", "latent-bicubic": "bicubic", "latent-nearest": "nearest"}

CALLS = {
    "latent": dict(
        model="sd", scheduler=DDIMScheduler, seed=3, upscale=dict(factor=1.5, strength=0.5, by="latent"),
        arguments=dict(prompt="a red fox", negative_prompt="blurry", num_inference_steps=4, guidance_scale=5.0, height=32, width=24),
    ),
    "latent_bicubic_other_sampler": dict(
        model="sd", scheduler=DDIMScheduler, second="HeunDiscreteScheduler", seed=4,
        upscale=dict(factor=2.0, strength=0.6, by="latent-bicubic", steps=3, scheduler="heun"),
        arguments=dict(prompt="a boat", num_inference_steps=4, guidance_scale=4.0, height=24, width=24),
    ),
    "latent_nearest_ancestral": dict(
        model="sd", scheduler=EulerAncestralDiscreteScheduler, seed=5, upscale=dict(factor=2.0, strength=0.75, by="latent-nearest", steps=3),
        arguments=dict(prompt="a tower", num_inference_steps=4, guidance_scale=4.0, height=24, width=24),
    ),
    "lanczos": dict(
        model="sd", scheduler=DDIMScheduler, seed=6, upscale=dict(factor=1.5, strength=0.5, by="lanczos", steps=3),
        arguments=dict(prompt="a lighthouse", num_inference_steps=4, guidance_scale=5.0, height=32, width=32),
    ),
    "xl_latent": dict(
        model="xl", scheduler=DDIMScheduler, seed=7, upscale=dict(factor=1.5, strength=0.5, by="latent"),
        arguments=dict(prompt="a cat on a wall", num_inference_steps=3, guidance_scale=5.0, height=32, width=32),
    ),
}
CLASSES = {
    "sd": ("sd/models/sd1", StableDiffusionPipeline, StableDiffusionImg2ImgPipeline),
    "xl": ("sdxl/models/base", StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline),
}
def on(scheduler, config):
    """The scheduler on another's noise schedule; samples are latents, which have no bounds."""
    bounded = {"clip_sample": False} if scheduler is DDIMScheduler else {}
    return scheduler.from_config(config, **bounded)


for name, call in CALLS.items():
    case = root / "upscale" / name
    if case.exists():
        shutil.rmtree(case)
    case.mkdir(parents=True)
    model, first_class, second_class = CLASSES[call["model"]]
    extra = {} if call["model"] == "xl" else dict(safety_checker=None, feature_extractor=None)
    first = first_class.from_pretrained(root / model, **extra)
    first.scheduler = on(call["scheduler"], first.scheduler.config)
    second = second_class.from_pretrained(root / model, **extra)
    scheduler = HeunDiscreteScheduler if call.get("second") else call["scheduler"]
    second.scheduler = on(scheduler, first.scheduler.config)
    arguments, upscale = call["arguments"], call["upscale"]
    generator = lambda: torch.Generator().manual_seed(call["seed"])
    height, width = (int(arguments[side] * upscale["factor"]) for side in ["height", "width"])
    factor = first.vae_scale_factor
    if upscale["by"] == "lanczos":
        pictures = first(generator=generator(), output_type="pil", **arguments).images
        image = [picture.resize((width, height), Image.LANCZOS) for picture in pictures]
    else:
        latents = first(generator=generator(), output_type="latent", **arguments).images
        image = torch.nn.functional.interpolate(latents, size=(height // factor, width // factor), mode=MODES[upscale["by"]])
    walked = upscale.get("steps", arguments["num_inference_steps"])
    others = {key: value for key, value in arguments.items() if key not in ["height", "width", "num_inference_steps"]}
    if call["model"] == "xl":
        # What the first call's sizes follow from.
        others.update(original_size=(height, width), target_size=(height, width))
    second_arguments = dict(
        image=image, strength=upscale["strength"], num_inference_steps=int(walked / min(upscale["strength"], 0.999)), **others
    )
    kept = {}

    def keep(pipeline, step, timestep, tensors):
        kept["latents"] = tensors["latents"].contiguous()
        return tensors

    images = second(generator=generator(), output_type="np", callback_on_step_end=keep, **second_arguments).images
    if upscale["by"] == "lanczos":
        # They begin with bytes, of which one that lies on the rim may be rounded the other way.
        kept = {}
    save_file({"images": torch.tensor(images.copy()), **kept}, case / "expected.safetensors")
    first.scheduler.save_pretrained(case / "scheduler")
    told = {
        "pipeline": first_class.__name__,
        "model": model,
        "scheduler": "scheduler/scheduler_config.json",
        "arguments": arguments,
        "upscale": upscale,
        "generator": {"seed": call["seed"]},
        "inputs": {},
        "output_type": "np",
    }
    (case / "call.json").write_text(json.dumps(told, indent=1) + "\n")
