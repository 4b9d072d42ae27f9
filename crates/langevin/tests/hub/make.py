"""Writes the data set of this folder with Hugging Face `datasets`, and what Pillow makes of its pictures.

    python make.py

expected.safetensors holds, by row: `N.drop`, what `datasets` decodes and `convert("RGB")` makes of it, and `N.white`,
the same laid onto white first; both [height, width, 3] bytes. expected.json holds captions and classes.
"""

import io
import json

import datasets
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
smooth = np.stack(np.meshgrid(np.linspace(0, 255, 24), np.linspace(255, 0, 16)), -1)
rgb = np.concatenate([smooth, 128 * np.ones((16, 24, 1))], -1).astype(np.uint8)
alpha = rng.integers(0, 256, (16, 24, 1), dtype=np.uint8)
noise = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)


def file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(image, kind, **options):
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(image, kind, exif=exif, **options)


picture = Image.fromarray(rgb)
noisy = Image.fromarray(noise)
rgba = Image.fromarray(np.concatenate([noise, alpha], -1))
palette = noisy.quantize(32)
keyed = noisy.convert("L")
deep = Image.fromarray(rng.integers(0, 65536, (16, 24), dtype=np.uint16))

files = {
    "grey.png": file(noisy.convert("L"), "PNG"),
    "colour.png": file(noisy, "PNG"),
    "alpha.png": file(rgba, "PNG"),
    "grey_alpha.png": file(rgba.convert("LA"), "PNG"),
    "palette.png": file(palette, "PNG"),
    "palette_alpha.png": file(palette, "PNG", transparency=bytes(range(0, 256, 8))),
    "grey_key.png": file(keyed, "PNG", transparency=keyed.getpixel((3, 4))),
    "bit.png": file(noisy.convert("1"), "PNG"),
    "turned.png": oriented(noisy, "PNG"),
    "photo.jpg": file(picture, "JPEG", quality=95, subsampling=0),
    "turned.jpg": oriented(picture, "JPEG", quality=95, subsampling=0),
    "progressive.jpg": file(picture.convert("L"), "JPEG", quality=95, progressive=True),
    "lossless.webp": file(rgba, "WEBP", lossless=True, exact=True),
    "turned.webp": oriented(noisy, "WEBP", lossless=True),
    "animated.gif": file(palette, "GIF", save_all=True, append_images=[palette.rotate(180)]),
    "plain.bmp": file(noisy, "BMP"),
    "plain.tiff": file(noisy, "TIFF"),
    "packed.tiff": file(rgba, "TIFF", compression="tiff_lzw"),
}
# Pillow clips 16 bits to 255 in `convert`; the upper 8 bits are what every other program shows.
sixteen = file(deep, "PNG")

classes = ["drawing", "photo"]
rows = {"image": [], "text": [], "label": []}
for number, (name, data) in enumerate(files.items()):
    rows["image"].append({"bytes": data, "path": name})
    rows["text"].append(None if number == 3 else f"picture {name.split('.')[0]}")
    rows["label"].append(int("jpg" in name))
rows["image"].append({"bytes": sixteen, "path": "deep.png"})
rows["text"].append("picture deep")
rows["label"].append(-1)

features = datasets.Features(
    {"image": datasets.Image(), "text": datasets.Value("string"), "label": datasets.ClassLabel(names=classes)}
)
dataset = datasets.Dataset.from_dict(rows, features=features)
dataset.to_parquet("data/train-00000-of-00001.parquet", batch_size=7)
read = datasets.load_dataset("parquet", data_files="data/train-00000-of-00001.parquet", split="train")

tensors = {}
for number, row in enumerate(read):
    image = row["image"]
    if rows["image"][number]["path"] == "deep.png":
        upper = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        tensors[f"{number}.drop"] = tensors[f"{number}.white"] = np.repeat(upper[..., None], 3, -1)
        continue
    tensors[f"{number}.drop"] = np.asarray(image.convert("RGB"))
    white = Image.new("RGB", image.size, "white")
    visible = image.convert("RGBA")
    white.paste(visible, mask=visible.getchannel("A"))
    tensors[f"{number}.white"] = np.asarray(white)
save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, "expected.safetensors")
expected = {"names": [image["path"] for image in rows["image"]], "text": read["text"][:], "label": read["label"][:], "classes": read.features["label"].names}
with open("expected.json", "w") as out:
    json.dump(expected, out, indent=1)
