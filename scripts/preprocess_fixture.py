#!/usr/bin/env python3
"""Pictures with edges of all directions, gradients and noise, and what OpenCV makes of them, for the test `preprocess`.

    pip install opencv-python-headless numpy
    scripts/preprocess_fixture.py crates/langevin/tests/reference/preprocess/opencv.safetensors
"""

import json
import struct
import sys

import cv2
import numpy as np

SIZES = {"colour": (48, 60), "odd": (33, 17), "thin": (1, 40), "tall": (40, 2)}
THRESHOLDS = [(100, 200), (50, 150), (200, 100), (30.7, 90.9)]

rng = np.random.default_rng(7)


def scene(h, w):
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    waves = [120 + 80 * np.sin(x / 5 + y / 9), 90 + 60 * np.cos(y / 4), 128 + 100 * np.sin((x - y) / 7)]
    picture = np.stack(waves, -1)
    picture[(x - w * 0.35) ** 2 + (y - h * 0.4) ** 2 < (h * 0.25) ** 2] = [220, 40, 60]
    picture[h // 2 : h // 2 + 9, w // 2 :] = [20, 200, 90]
    picture += rng.normal(0, 12, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


out = {}
for name, (h, w) in SIZES.items():
    colours = scene(h, w)
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    for low, high in THRESHOLDS:
        out[f"{name}.canny:{low:g}:{high:g}"] = cv2.Canny(colours, low, high)
        out[f"{name}.grey.canny:{low:g}:{high:g}"] = cv2.Canny(grey, low, high)
    for sigma in [0.8, 2, 5]:
        out[f"{name}.blur:{sigma:g}"] = cv2.GaussianBlur(colours, (0, 0), sigma)
    out[name], out[f"{name}.grey"] = colours, grey

header, data = {}, b""
for name, values in out.items():
    place = [len(data), len(data) + values.nbytes]
    header[name] = {"dtype": "U8", "shape": list(values.shape), "data_offsets": place}
    data += np.ascontiguousarray(values).tobytes()
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
