"""A few steps of training on top of a latent pipeline, by this program and by PyTorch: the same picture, adapters, noise and timesteps.

`compare_latent.py --train lora,embedding` calls it. The picture's latents and the caption's encoding are computed once on both sides, as this
program does; a step is then the UNet alone (and for a word the text encoder). PyTorch's side is the loop of `train_text_to_image_lora.py` or
`textual_inversion.py`, with gradients clipped.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEPS = 10
SEED = 7
PROMPT = "a photo of a sks lighthouse"
WORD = "<sks>"
RATES = {"lora": 1e-4, "embedding": 5e-4}
# The first of diffusers' sentences about an object is drawn by chance; both sides draw.
SHORT = ["--quiet", "--ddpm-num-inference-steps", "1", "--eval-batch-size", "1"]


def picture(folder, size):
    """One picture, which is what a step learns from."""
    from PIL import Image
    import numpy

    data = folder / "picture"
    data.mkdir(parents=True, exist_ok=True)
    y, x = numpy.mgrid[0:size, 0:size]
    pixels = numpy.stack([x * 255 // size, y * 255 // size, (x + y) % 256], -1).astype("uint8")
    Image.fromarray(pixels).save(data / "a.png")
    return data


def ours(kind, program, base, folder, out, size, threads, precision, checkpointing, steps=STEPS, rate=None):
    """Trains by this program: losses, the median of the steps' seconds but for the first, and the peak in MiB."""
    data = picture(folder, size)
    words = [program, "train", "--pretrained", base, "--trainee", kind, "--train-data-dir", data, "--resolution", size]
    words += ["--max-train-steps", steps, "--seed", SEED, "--output-dir", out, "--overwrite-output-dir", *SHORT]
    words += ["--learning-rate", rate or RATES[kind], "--checkpointing-steps", 0]
    if kind == "lora":
        words += ["--instance-prompt", PROMPT]
    else:
        words += ["--placeholder-token", WORD, "--initializer-token", "a"]
    if precision == "bf16":
        words += ["--mixed-precision", "bf16"]
    if checkpointing:
        words += ["--gradient-checkpointing"]
    script = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True); "
        "sys.stderr.write(done.stderr.decode()); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); sys.exit(done.returncode)"
    )
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    command = [sys.executable, "-c", script, *map(str, words)]
    peak = float(subprocess.check_output(command, env=environment))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [1 / row["pictures_per_second"] for row in rows[1:]]
    return dict(losses=[row["loss"] for row in rows], step=statistics.median(seconds or [0]), peak=peak)


def python_side(kind, base, folder, adapters, size, threads, precision, checkpointing):
    """The same by PyTorch; prints what :func:`ours` gives."""
    import numpy
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from PIL import Image
    from safetensors.torch import load_file
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder")
    text_encoder.requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    pixels = numpy.asarray(Image.open(folder / "picture" / "a.png")).astype("float32") / 127.5 - 1
    pixels = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        moments = vae.encode(pixels).latent_dist
    del vae
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", torch_dtype=dtype)
    unet.requires_grad_(False)
    generator = torch.Generator().manual_seed(SEED)
    ids = lambda text: tokenizer(text, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
    if kind == "lora":
        from peft import LoraConfig

        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
        parameters = [p for p in unet.parameters() if p.requires_grad]
        stored = load_file(adapters)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
                    if "lora_A" in name:
                        key = "unet." + name.replace("lora_A.default.", "lora.down.")
                        if key not in stored:
                            key = "unet." + name.replace("lora_A.default.", "lora_A.")
                        parameter.copy_(stored[key])
        # What the adapters were drawn with.
        torch.randn(sum(p.numel() for n, p in unet.named_parameters() if "lora_A" in n), generator=generator)
        with torch.no_grad():
            told = text_encoder(ids(PROMPT))[0]
        del text_encoder
    else:
        tokenizer.add_tokens([WORD])
        text_encoder.resize_token_embeddings(len(tokenizer))
        table = text_encoder.get_input_embeddings().weight
        new = tokenizer.convert_tokens_to_ids(WORD)
        table.data[new] = table.data[tokenizer.encode("a", add_special_tokens=False)[0]]
        original = table.data.clone()
        table.requires_grad_(True)
        parameters = [table]
        sentences = json.loads((folder / "sentences.json").read_text())
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    optimizer = torch.optim.AdamW(parameters, lr=RATES[kind], betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    losses, seconds = [], []
    for step in range(STEPS):
        begun = time.perf_counter()
        noise = torch.randn(moments.mean.shape, generator=generator) if kind == "lora" else None
        if kind == "embedding":
            text = sentences[torch.randint(0, len(sentences), (1,), generator=generator).item()].replace("{}", WORD)
            noise = torch.randn(moments.mean.shape, generator=generator)
        latents = (moments.mean + moments.std * noise) * 0.18215
        epsilon = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (1,), generator=generator)
        noisy = scheduler.add_noise(latents, epsilon, timesteps)
        if kind == "embedding":
            told = text_encoder(ids(text))[0]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            predicted = unet(noisy.to(dtype), timesteps, told.to(dtype)).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), epsilon)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if kind == "embedding":
            with torch.no_grad():
                kept = table[new].clone()
                table.copy_(original)
                table[new] = kept
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(losses=losses, step=statistics.median(seconds[1:]), peak=peak)))


def compare(kinds, precisions, args, name, base, threads, size):
    """Both sides in turns; a table, and the rows of the JSON."""
    rows = {}
    print("| training | | a step, s | peak, MiB | losses apart |")
    print("| --- | --- | --- | --- | --- |")
    folder = args.folder / "training"
    folder.mkdir(exist_ok=True)
    for kind in kinds:
        picture(folder, size)
        adapters = folder / "begun" / "pytorch_lora_weights.safetensors"
        if kind == "lora":
            # So small a step moves nothing: what is left are the adapters as they were drawn.
            ours(kind, args.program, base, folder, folder / "begun", size, threads, "float32", True, 1, 1e-30)
        else:
            (folder / "sentences.json").write_text(json.dumps(SENTENCES))
        for precision in precisions:
            found = ours(kind, args.program, base, folder, folder / "run", size, threads, precision, args.checkpointing)
            command = [sys.executable, Path(__file__).parent / "compare_latent.py", "--folder", args.folder, "--threads", threads]
            command += ["--training-side", kind, base, adapters, size, precision]
            command += ["--checkpointing"] if args.checkpointing_there else []
            theirs = json.loads(subprocess.check_output(list(map(str, command))).splitlines()[-1])
            apart = max(abs(a - b) for a, b in zip(found["losses"], theirs["losses"]))
            for side, row in (("PyTorch", theirs), ("langevin", found)):
                last = "" if side == "PyTorch" else f"{apart:.1e}"
                print(f"| {name}, {kind}, {size}², {precision} | {side} | {row['step']:.2f} | {row['peak']:.0f} | {last} |", flush=True)
            suffix, column = ("", "torch") if precision == "float32" else ("-bf16", "torch_bf16")
            for row, key in ((kind, "step"), (f"{kind}-peak", "peak")):
                rows[row + suffix] = {"ours": found[key], column: theirs[key], "ratio": theirs[key] / found[key]}
            rows[kind + suffix]["losses_apart"] = apart
    return rows


# Of `textual_inversion.py`, an object's.
SENTENCES = [
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of a clean {}", "a photo of a dirty {}",
    "a dark photo of the {}", "a photo of my {}", "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}",
    "a cropped photo of a {}", "a photo of the {}", "a good photo of the {}", "a photo of one {}", "a close-up photo of the {}",
    "a rendition of the {}", "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}", "a good photo of a {}",
    "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}", "a photo of the large {}", "a photo of a cool {}",
    "a photo of a small {}",
]
