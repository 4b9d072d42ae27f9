#!/usr/bin/env python3
"""Real architectures of latent diffusion with random weights: this program's latents beside diffusers', with seconds and peak memory.

    python -m venv venv && venv/bin/pip install torch diffusers transformers
    venv/bin/python benches/compare_latent.py --models sd15,sd21,dit,sdxl --folder DIR [--precisions float32,bf16] [--json FILE]

Needs a built program (`cargo build --release`). Pipelines are made once in DIR (SD 1.5 takes 5 GB there, XL 14) and kept; both sides draw
the same call from them, one after the other, with the same number of threads. Trained weights are not needed: what is compared is
arithmetic. With bf16, diffusers holds weights and activations as bf16, and this program multiplies bf16 values.

The JSON has, for each model, the rows unet (a step), decode, picture (the whole call), peak and start (until the first call of the UNet), and
the same with -bf16: seconds and MiB of both sides, and the ratio of diffusers' number by this program's. With `--train lora,embedding` ten steps of
training (latent_training.py) take the place of drawing: rows lora, lora-peak, lora-bf16, lora-peak-bf16, and the same of embedding.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import latent_training

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a lighthouse at dusk, oil painting"
STEPS = 3
SEED = 42
SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

UNETS = {
    "sd15": dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    "sd21": dict(
        sample_size=96,
        cross_attention_dim=1024,
        attention_head_dim=[5, 10, 20, 20],
        use_linear_projection=True,
        upcast_attention=True,
    ),
    "sdxl": dict(
        sample_size=128,
        cross_attention_dim=2048,
        attention_head_dim=[5, 10, 20],
        block_out_channels=[320, 640, 1280],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        transformer_layers_per_block=[1, 2, 10],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
}
TEXTS = {
    "sd15": [(768, 3072, 12, 12, "quick_gelu")],
    "sd21": [(1024, 4096, 16, 23, "gelu")],
    "sdxl": [(768, 3072, 12, 12, "quick_gelu"), (1280, 5120, 20, 32, "gelu")],
}
SIZES = {"sd15": 512, "sd21": 768, "sdxl": 1024, "dit": 256}


def lively(model):
    """Norms with gains and biases, so that a wrong part shows."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def make(name, folder, tokenizer):
    """Writes a pipeline of random weights."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DiTPipeline,
        DiTTransformer2DModel,
        EulerDiscreteScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    scaling = 0.13025 if name == "sdxl" else 0.18215
    blocks = 4
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2,
        sample_size=SIZES[name],
        scaling_factor=scaling,
    )
    lively(vae)
    if name == "dit":
        transformer = DiTTransformer2DModel(
            num_layers=28, num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, sample_size=32
        )
        lively(transformer)
        pipeline = DiTPipeline(transformer, vae, DDIMScheduler(clip_sample=False))
        pipeline.save_pretrained(folder)
        return
    unet = UNet2DConditionModel(**UNETS[name])
    lively(unet)
    texts = []
    for number, (hidden, mlp, heads, layers, activation) in enumerate(TEXTS[name]):
        config = CLIPTextConfig(
            hidden_size=hidden,
            intermediate_size=mlp,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            hidden_act=activation,
            projection_dim=hidden,
        )
        texts.append((CLIPTextModelWithProjection if number else CLIPTextModel)(config))
        lively(texts[-1])
    tokens = CLIPTokenizer.from_pretrained(tokenizer)
    if name == "sdxl":
        scheduler = EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading", steps_offset=1)
        pipeline = StableDiffusionXLPipeline(vae, *texts, tokens, tokens, unet, scheduler)
    else:
        if name == "sd15":
            scheduler = PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1)
        else:
            scheduler = DDIMScheduler(
                **SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"
            )
        pipeline = StableDiffusionPipeline(vae, texts[0], tokens, unet, scheduler, None, None, requires_safety_checker=False)
    pipeline.save_pretrained(folder)


def python_side(name, folder, out, size, threads, precision):
    """Draws by diffusers; a process of its own, so that its peak is its own."""
    import torch
    from diffusers import DiffusionPipeline
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    begun = time.perf_counter()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    loaded = time.perf_counter()
    generator = torch.Generator().manual_seed(SEED)
    marks = []
    kept = {}

    def mark(_, step, t, tensors):
        marks.append(time.perf_counter())
        kept["latents"] = tensors["latents"].contiguous()
        return tensors

    if name == "dit":
        hook = pipeline.scheduler.step

        def step(*args, **kwargs):
            result = hook(*args, **kwargs)
            marks.append(time.perf_counter())
            kept["latents"] = result.prev_sample
            return result

        pipeline.scheduler.step = step
        pipeline(class_labels=[207], num_inference_steps=STEPS, generator=generator)
        kept["latents"] = kept["latents"][:1].contiguous()
    else:
        pipeline(
            PROMPT,
            height=size,
            width=size,
            num_inference_steps=STEPS,
            generator=generator,
            callback_on_step_end=mark,
        )
    ended = time.perf_counter()
    save_file({"latents": kept["latents"].float()}, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            dict(
                load=loaded - begun,
                step=min(b - a for a, b in zip(marks, marks[1:])),
                decode=ended - marks[-1],
                whole=ended - begun,
                peak=peak,
            )
        )
    )


def ours(name, program, folder, out, size, threads, precision):
    """Draws by this program. What a step and decoding take are differences of whole calls, each the faster of two."""
    asked = ["--class", "207"] if name == "dit" else ["--prompt", PROMPT, "--size", f"{size}x{size}"]
    picture = out.with_suffix(".png")

    def seconds(steps, target):
        command = [program, "sample", folder, *asked, "--steps", str(steps), "--seed", str(SEED), "--output", target]
        command += ["--precision", precision, "--overwrite"]
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        best = float("inf")
        for _ in range(2):
            begun = time.perf_counter()
            ran = subprocess.run([str(word) for word in command], env=environment, capture_output=True)
            best = min(best, time.perf_counter() - begun)
            if ran.returncode != 0:
                sys.exit(f"{command}: {ran.stderr.decode()}")
        return best

    whole = seconds(STEPS, picture)
    latents = seconds(STEPS, out)
    shutil.copy(out, out.with_name(f"{name}-ours.safetensors"))
    one = seconds(1, out)
    step = (latents - one) / (calls(name, STEPS) - calls(name, 1))
    decode = seconds(1, picture) - one
    return dict(load=one - step * calls(name, 1), step=step, decode=decode, whole=whole)


def calls(name, steps):
    """PNDM asks once more than it takes steps."""
    return steps + 1 if name == "sd15" else steps


def peak_of(program, folder, name, out, size, threads, precision):
    """The peak memory of this program's whole call, in MiB."""
    asked = ["--class", "207"] if name == "dit" else ["--prompt", PROMPT, "--size", f"{size}x{size}"]
    words = [program, "sample", folder, *asked, "--steps", "1", "--seed", str(SEED), "--output", out.with_suffix(".png")]
    words += ["--precision", precision, "--overwrite"]
    script = (
        "import os, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL, "
        "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    return float(subprocess.check_output([sys.executable, "-c", script, *map(str, words)], env=environment))


def made(name, folder, tokenizer):
    """The folder of a pipeline, which is made where it is not there."""
    if not (folder / "model_index.json").exists():
        # In a process of its own, which takes what it held with it.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(name, folder, tokenizer))
        maker.start()
        maker.join()
        if maker.exitcode != 0:
            sys.exit(f"{folder}: the pipeline could not be made")
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="sd15,sd21,dit,sdxl")
    parser.add_argument("--folder", type=Path, required=True, help="where the pipelines are made and kept")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/langevin")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, help="another size than the model's own")
    parser.add_argument("--precisions", default="float32", help="float32, bf16 or both, with a comma between")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--train", help="lora, embedding or both: train ten steps, and draw nothing")
    parser.add_argument("--checkpointing", action="store_true", help="train with gradient checkpointing here")
    parser.add_argument("--checkpointing-there", action="store_true", help="and in PyTorch")
    parser.add_argument("--python-side", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--training-side", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.training_side:
        kind, base, adapters, size, precision = args.training_side
        folder = args.folder / "training"
        latent_training.python_side(kind, base, folder, adapters, int(size), args.threads, precision, args.checkpointing)
        return
    if args.python_side:
        name, out, size, precision = args.python_side
        python_side(name, args.folder / name, out, int(size), args.threads, precision)
        return
    tokenizer = ROOT / "crates/langevin/tests/reference/conditional/clip_tokenizer"
    if args.train:
        rows = {}
        for name in args.models.split(","):
            folder = made(name, args.folder / name, tokenizer)
            kinds, precisions = args.train.split(","), args.precisions.split(",")
            rows[name] = latent_training.compare(kinds, precisions, args, name, folder, args.threads, args.size or SIZES[name])
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))
        return
    print("| pipeline | | load, s | step, s | decode, s | whole call, s | peak, MiB | latents apart |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = {}
    for name, precision in ((name, precision) for name in args.models.split(",") for precision in args.precisions.split(",")):
        folder = made(name, args.folder / name, tokenizer)
        size = args.size or SIZES[name]
        theirs_file = args.folder / f"{name}-diffusers.safetensors"
        command = [sys.executable, __file__, "--folder", args.folder, "--threads", args.threads, "--python-side", name, theirs_file, size, precision]
        theirs = json.loads(subprocess.check_output([str(word) for word in command]).splitlines()[-1])
        out = args.folder / f"{name}.safetensors"
        found = ours(name, args.program, folder, out, size, args.threads, precision)
        found["peak"] = peak_of(args.program, folder, name, out, size, args.threads, precision)
        from safetensors.torch import load_file

        a = load_file(args.folder / f"{name}-ours.safetensors")["latents"]
        b = load_file(theirs_file)["latents"]
        apart = ((a - b).abs().max() / b.abs().max()).item()
        for side, row in (("diffusers", theirs), ("langevin", found)):
            cells = " | ".join(f"{row[key]:.1f}" for key in ("load", "step", "decode", "whole", "peak"))
            print(f"| {name}, {size}², {precision} | {side} | {cells} | {'' if side == 'diffusers' else f'{apart:.1e}'} |", flush=True)
        for row, key in (("unet", "step"), ("decode", "decode"), ("picture", "whole"), ("peak", "peak"), ("start", "load")):
            suffix, column = ("", "torch") if precision == "float32" else ("-bf16", "torch_bf16")
            cells = {"ours": found[key], column: theirs[key], "ratio": theirs[key] / found[key]}
            rows.setdefault(name, {})[row + suffix] = cells
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
