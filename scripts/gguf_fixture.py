"""Writes crates/langevin/tests/reference/gguf: a tensor in each type of GGUF, and what it is in float32, by the package `gguf` of llama.cpp.

    pip install gguf safetensors
    python scripts/gguf_fixture.py crates/langevin/tests/reference/gguf

Types that the package only reads hold random bytes, with scales that are ordinary numbers.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, GGUFWriter, quants
from safetensors.numpy import save_file

ROWS, COLUMNS = 3, 512
QUANTISED = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]
# Where the scales of half precision stand in a block.
SCALES = {Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}


def main(folder: Path) -> None:
    random = np.random.default_rng(7)
    writer = GGUFWriter(folder / "types.gguf", "sd1")
    writer.add_array("comfy.gguf.orig_shape.kernel.weight", [4, 32, 4, 1])
    writer.add_string("note", "values of other types are passed over")
    writer.add_array("words", ["one", "two"])
    writer.add_float64("number", 0.5)
    expected = {}

    def add(name: str, stored: np.ndarray, kind: Type) -> None:
        writer.add_tensor(name, stored, raw_dtype=kind)
        expected[name] = quants.dequantize(stored, kind).astype(np.float32)

    values = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    values[1, :32] = 0
    for kind in QUANTISED:
        add(f"{kind.name.lower()}.weight", quants.quantize(values, kind), kind)
    for kind, places in SCALES.items():
        numbers, size = GGML_QUANT_SIZES[kind]
        stored = random.integers(0, 256, size=(ROWS, COLUMNS // numbers, size), dtype=np.uint8)
        for place in places:
            scales = random.uniform(-2, 2, size=stored.shape[:2]).astype(np.float16)
            stored[..., place : place + 2] = scales[..., None].view(np.uint8)
        add(f"{kind.name.lower()}.weight", stored.reshape(ROWS, -1), kind)
    # One that lies flat in the file and has four axes.
    flat = quants.quantize(values.reshape(-1)[:512].reshape(1, 512), Type.Q8_0)
    add("kernel.weight", flat, Type.Q8_0)
    expected["kernel.weight"] = expected["kernel.weight"].reshape(4, 32, 4, 1)
    half = values[:, :5].astype(np.float16)
    writer.add_tensor("half.bias", half)
    expected["half.bias"] = half.astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({"values": values, **expected}, folder / "types.safetensors")


main(Path(sys.argv[1]))
