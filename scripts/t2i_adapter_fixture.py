"""Writes t2i_adapter of crates/langevin/tests/reference: tiny T2I-Adapters with what diffusers makes of a picture by them, and calls of its
pipelines with them.

    pip install torch transformers diffusers safetensors pillow
    python scripts/t2i_adapter_fixture.py crates/langevin/tests/reference

The pipelines' other parts are those of sd/models/sd1 and sdxl/models/base, whose UNets have two levels; those that are made here have three,
so that what an adapter says of a level without attention, of one with, and of the middle all show.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    MultiAdapter,
    StableDiffusionAdapterPipeline,
    StableDiffusionXLAdapterPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from safetensors.torch import save_file

root = Path(sys.argv[1])
here = root / "t2i_adapter"
torch.set_num_threads(1)


def randomise(model, seed, gain=1.0):
    """Weights under which a wrong part shows: norms with gains and biases."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda tensor: torch.randn(tensor.shape, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.1 * draw(parameter))
            elif parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * draw(parameter))
            else:
                sharp = 2.0 if ".to_q." in name or ".to_k." in name else 1.0
                parameter.copy_(draw(parameter) * gain * sharp * (1.2 / parameter[0].numel()) ** 0.5)
    return model.eval()


SHARED = dict(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, sample_size=16)
UNETS = {
    "unet": dict(
        cross_attention_dim=32, attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "unet_xl": dict(
        cross_attention_dim=40, attention_head_dim=(1, 2, 2), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=68,
    ),
}
ADAPTERS = {
    "full": dict(channels=[8, 16, 16], num_res_blocks=1, downscale_factor=2, adapter_type="full_adapter"),
    "grey": dict(in_channels=1, channels=[8, 16, 16], num_res_blocks=1, downscale_factor=2, adapter_type="full_adapter"),
    "light": dict(channels=[8, 16], num_res_blocks=2, downscale_factor=2, adapter_type="light_adapter"),
    # With a level more than the UNet has, which is the middle's.
    "xl": dict(channels=[8, 16, 16, 16], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter_xl"),
}
for place, (name, kind) in enumerate(UNETS.items()):
    randomise(UNet2DConditionModel(**SHARED, **kind), 40 + place).save_pretrained(here / "models" / name)
for place, (name, kind) in enumerate(ADAPTERS.items()):
    adapter = randomise(T2IAdapter(**kind), 60 + place, 1.3)
    adapter.save_pretrained(here / "models" / name)
    channels = kind.get("in_channels", 3)
    # An odd number of pixels on a level: what is halved is rounded up.
    picture = torch.rand(2, channels, 20, 12, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        features = adapter(picture)
    folder = here / "alone" / name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"level.{level}": feature.contiguous() for level, feature in enumerate(features)}
    save_file({"picture": picture, **tensors}, folder / "io.safetensors")
    (folder / "case.json").write_text(json.dumps({"model": f"t2i_adapter/models/{name}"}, indent=1) + "\n")


def drawing(seed, size, mode):
    """Strokes, in place of a sketch."""
    generator = torch.Generator().manual_seed(seed)
    picture = Image.new("RGB", size, (10, 30, 60))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        x0, y0, x1, y1, r, g, b = (torch.rand(7, generator=generator) * 255).int().tolist()
        scaled = [x0 * size[0] // 255, y0 * size[1] // 255, x1 * size[0] // 255, y1 * size[1] // 255]
        pen.line(scaled, fill=(r, g, b), width=3)
    return picture.convert(mode)


CALLS = {
    "sd_full": dict(
        adapter="full", pictures=[(1, (40, 24), "RGB")], seed=3, scheduler=EulerDiscreteScheduler,
        arguments=dict(
            prompt="a red fox in the snow", negative_prompt="blurry", num_inference_steps=4, guidance_scale=5.0, height=24, width=40,
            num_images_per_prompt=2, adapter_conditioning_scale=0.8,
        ),
    ),
    "sd_light": dict(
        adapter="light", pictures=[(2, (24, 24), "RGB")], seed=4, scheduler=DDIMScheduler,
        arguments=dict(prompt="a boat", num_inference_steps=3, guidance_scale=1.0, height=24, width=24),
    ),
    "sd_two": dict(
        adapter=["full", "grey"], pictures=[(3, (32, 32), "RGB"), (4, (32, 32), "L")], seed=5, scheduler=DDIMScheduler,
        arguments=dict(
            prompt="a lighthouse at dusk", num_inference_steps=4, guidance_scale=4.0, height=32, width=32,
            adapter_conditioning_scale=[0.7, 0.4],
        ),
    ),
    "xl_part": dict(
        adapter="xl", pictures=[(5, (48, 32), "RGB")], seed=6, scheduler=EulerDiscreteScheduler,
        arguments=dict(
            prompt="a cat on a wall", num_inference_steps=4, guidance_scale=5.0, height=32, width=40, adapter_conditioning_scale=0.9,
            adapter_conditioning_factor=0.5,
        ),
    ),
}


def on(scheduler, config):
    """The scheduler on another's noise schedule; samples are latents, which have no bounds."""
    bounded = {"clip_sample": False} if scheduler is DDIMScheduler else {}
    return scheduler.from_config(config, **bounded)


def load(name):
    return T2IAdapter.from_pretrained(here / "models" / name).eval()


for name, call in CALLS.items():
    is_xl = name.startswith("xl")
    model, unet = ("sdxl/models/base", "unet_xl") if is_xl else ("sd/models/sd1", "unet")
    pipeline_class = StableDiffusionXLAdapterPipeline if is_xl else StableDiffusionAdapterPipeline
    names = call["adapter"]
    adapter = MultiAdapter([load(one) for one in names]) if isinstance(names, list) else load(names)
    pipeline = pipeline_class.from_pretrained(
        root / model, adapter=adapter, unet=UNet2DConditionModel.from_pretrained(here / "models" / unet).eval(),
        **({} if is_xl else dict(safety_checker=None, feature_extractor=None)),
    )
    pipeline.scheduler = on(call["scheduler"], pipeline.scheduler.config)
    case = here / "cases" / name
    case.mkdir(parents=True, exist_ok=True)
    pictures, files = [], []
    for place, (seed, size, mode) in enumerate(call["pictures"]):
        file = f"image.{place}.png"
        drawing(seed, size, mode).save(case / file)
        pictures.append(Image.open(case / file))
        files.append(file)
    several = isinstance(names, list)
    common = dict(image=pictures if several else pictures[0], **call["arguments"])
    latents = pipeline(generator=torch.Generator().manual_seed(call["seed"]), output_type="latent", **common).images
    images = pipeline(generator=torch.Generator().manual_seed(call["seed"]), output_type="np", **common).images
    save_file({"images": torch.tensor(images.copy()), "latents": latents.contiguous()}, case / "expected.safetensors")
    pipeline.scheduler.save_pretrained(case / "scheduler")
    told = {
        "pipeline": pipeline_class.__name__,
        "model": model,
        "components": {
            "unet": f"t2i_adapter/models/{unet}",
            "adapter": [f"t2i_adapter/models/{one}" for one in names] if several else f"t2i_adapter/models/{names}",
        },
        "scheduler": "scheduler/scheduler_config.json",
        "arguments": call["arguments"],
        "generator": {"seed": call["seed"]},
        "inputs": {"image": files if several else files[0]},
        "output_type": "np",
    }
    (case / "call.json").write_text(json.dumps(told, indent=1) + "\n")
