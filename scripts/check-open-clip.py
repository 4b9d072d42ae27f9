#!/usr/bin/env python3
"""Makes a ViT-B-32 with open_clip and random weights, and compares its embeddings with this library's.

Needs `pip install open_clip_torch`. Run from the repository's root:

    python scripts/check-open-clip.py

Prints the largest difference relative to the largest value; exits with 1 above 1e-4.
"""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

TEXTS = ["a photo of a cat", "A Rose, (embroidered)!", "naïve café 12:30", ""]


def save_tokenizer(folder):
    """open_clip's vocabulary as vocab.json and merges.txt."""
    packed = pathlib.Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.open(packed).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    from open_clip.tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    pieces = letters + [letter + "</w>" for letter in letters] + ["".join(m.split()) for m in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def compare(name):
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors")
        config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        save_tokenizer(folder)
        y, x = np.mgrid[0:224, 0:224]
        pixels = np.stack([127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7 + x / 31), x * y % 256], -1)
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(folder / "picture.png")
        preprocess = open_clip.image_transform(224, is_train=False)
        with torch.no_grad():
            image = model.encode_image(preprocess(picture)[None])
            text = model.encode_text(open_clip.get_tokenizer(name)(TEXTS))
        command = ["target/release/examples/clip_embed", str(folder), str(folder / "picture.png"), *TEXTS]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    worst = 0.0
    for part, expected in [("image", image), ("text", text)]:
        ours = torch.tensor(found[part])
        difference = ((ours - expected).abs().max() / expected.abs().max()).item()
        print(f"{name} {part}: {tuple(ours.shape)}, differs by {difference:.2e}")
        worst = max(worst, difference)
    return worst


if __name__ == "__main__":
    subprocess.run(["cargo", "build", "--workspace", "--release", "--example", "clip_embed"], check=True)
    worst = max(compare(name) for name in ["ViT-B-32", "ViT-B-32-quickgelu"])
    sys.exit(worst > 1e-4)
