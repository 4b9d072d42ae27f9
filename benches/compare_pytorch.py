#!/usr/bin/env python3
"""Langevin beside PyTorch and diffusers on this machine: training steps, forwards, sampling, memory, start-up.

    python3 benches/compare_pytorch.py [--json FILE] [--rows ROW,ROW] [--threads N] [--isa avx2]

Every measurement is a process of its own, three runs to warm up and at least fifteen that count; both sides take turns for
some rounds, and the median of all counted runs stands. PyTorch is run eagerly in both memory layouts, and the faster counts.
A row's ratio is PyTorch's number by Langevin's: above 1 Langevin is that many times better. In the bf16 rows PyTorch runs
under autocast; Langevin keeps activations as bf16, which a forward alone has none of.

It uses the interpreter that runs it where that has torch and diffusers, and otherwise one in a virtual environment that it
makes in the user's cache folder. With `--isa avx2` both sides are held to AVX2.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYOUTS = ("eager", "channels_last")
BF16 = ("step-b16-bf16", "forward-b8-bf16", "forward-b1-bf16")
STEPS = ("step-b16", "forward-b8", "forward-b1", "mnist-step-b128", *BF16)
# The rows whose largest resident set is a row of its own.
MEMORY = {"step-b16": "memory", "step-b16-bf16": "memory-bf16"}
ROWS = (*STEPS, "ddpm-1000", *MEMORY.values(), "start-up")
UNITS = {"ddpm-1000": "s", "memory": "MiB", "memory-bf16": "MiB"}

# Makes the two pipelines that are sampled from: the course's UNet and one that is hardly there.
MAKE_PIPELINES = """
import sys
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
sys.path.insert(0, sys.argv[1])
from torch_side import BUTTERFLIES
scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
tiny = dict(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))
DDPMPipeline(UNet2DModel(**BUTTERFLIES), scheduler).save_pretrained(sys.argv[2] + "/butterflies")
DDPMPipeline(UNet2DModel(**tiny), scheduler).save_pretrained(sys.argv[2] + "/tiny")
"""


def interpreter():
    """A Python that has torch and diffusers."""
    if all(importlib.util.find_spec(name) for name in ("torch", "diffusers", "PIL")):
        return sys.executable
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "langevin-bench-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making a virtual environment with torch and diffusers in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        packages = ["torch", "diffusers==0.42.1", "pillow", "numpy"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


class Sides:
    """Runs either side in a process of its own."""

    def __init__(self, options):
        self.python = interpreter()
        self.threads = str(options.threads)
        self.counted = str(options.counted)
        self.environment = dict(os.environ, RAYON_NUM_THREADS=self.threads, OMP_NUM_THREADS=self.threads)
        if options.isa == "avx2":
            self.environment |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "LANGEVIN_ISA": "avx2"}
        if not options.no_build:
            # Both at once: a build of one package alone would compile their dependencies again.
            build = ["cargo", "build", "--release", "--quiet", "--workspace", "--bins", "--example", "bench_step"]
            subprocess.run(build, cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        self.bench_step = target / "examples" / "bench_step"
        self.langevin = target / "langevin"

    def output(self, *command):
        command = [str(part) for part in command]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return done.stdout

    def ours(self, row):
        return json.loads(self.output(self.bench_step, row, self.counted))

    def torch(self, row, layout):
        script = ROOT / "benches" / "torch_side.py"
        return json.loads(self.output(self.python, script, row, layout, self.counted, self.threads))

    def seconds(self, *command):
        start = time.perf_counter()
        self.output(*command)
        return time.perf_counter() - start

    def sample(self, folder, steps, batch, out):
        command = [self.langevin, "sample", folder, "--steps", steps, "--count", batch, "--batch-size", batch]
        return self.seconds(*command, "--output", Path(out) / "ours.png", "--overwrite")

    def torch_sample(self, folder, steps, batch, layout, out):
        script = ROOT / "benches" / "torch_sample.py"
        return self.seconds(
            self.python, script, folder, steps, batch, layout, self.threads, Path(out) / "torch.png"
        )


def measure_step(sides, row, rounds):
    """Both sides' medians in ms and peaks in MiB; PyTorch's of its faster layout."""
    runs = {side: [] for side in ("ours", *LAYOUTS)}
    for _ in range(rounds):
        runs["ours"].append(sides.ours(row))
        for layout in LAYOUTS:
            runs[layout].append(sides.torch(row, layout))
    median = {side: statistics.median(ms for run in runs[side] for ms in run["ms"]) for side in runs}
    peak = {side: max(run["peak_kib"] for run in runs[side]) / 1024 for side in runs}
    layout = min(LAYOUTS, key=median.get)
    return {"ours": median["ours"], "torch": median[layout], "layout": layout}, {
        "ours": peak["ours"],
        "torch": peak[layout],
        "layout": layout,
    }


def measure_sampling(sides, folder, out, rounds):
    """Whole programs, medians. PyTorch's layout is the faster of both over 20 steps."""
    probes = {layout: sides.torch_sample(folder, 20, 8, layout, out) for layout in LAYOUTS}
    layout = min(LAYOUTS, key=probes.get)
    ours, torch = [], []
    for _ in range(rounds):
        ours.append(sides.sample(folder, 1000, 8, out))
        torch.append(sides.torch_sample(folder, 1000, 8, layout, out))
    return {"ours": statistics.median(ours), "torch": statistics.median(torch), "layout": layout}


def measure_start(sides, folder, out, rounds):
    """One step of a tiny model, in ms."""
    ours, torch = [], []
    for _ in range(max(rounds, 3)):
        ours += [1e3 * sides.sample(folder, 1, 1, out) for _ in range(5)]
        torch.append(1e3 * sides.torch_sample(folder, 1, 1, "eager", out))
    return {"ours": statistics.median(ours), "torch": statistics.median(torch), "layout": "eager"}


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(row, numbers):
    unit = UNITS.get(row, "ms")
    print(
        f"| {row} | {numbers['ours']:.1f} {unit} | {numbers['torch']:.1f} {unit} | {numbers['layout']} | "
        f"{numbers['torch'] / numbers['ours']:.2f} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write the numbers there")
    parser.add_argument("--rows", default=",".join(ROWS), help="the rows to measure, with commas between them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="how often both sides take turns")
    parser.add_argument("--counted", type=int, default=15, help="runs of a process that count")
    parser.add_argument("--no-build", action="store_true", help="take the programs that were built last")
    parser.add_argument("--isa", choices=["avx2"], help="hold both sides to an instruction set")
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")

    sides = Sides(options)
    versions = "import torch, diffusers; print('torch', torch.__version__, 'diffusers', diffusers.__version__)"
    print(f"{processor()}, {options.threads} threads, {sides.output(sides.python, '-c', versions).strip()}\n")
    print("| row | Langevin | PyTorch | its layout | ratio |\n| --- | --- | --- | --- | --- |")
    results = {}

    def done(row, numbers):
        results[row] = numbers
        show(row, numbers)

    for row in STEPS:
        with_memory = MEMORY.get(row) in rows
        if row in rows or with_memory:
            times, peaks = measure_step(sides, row, options.rounds)
            if row in rows:
                done(row, times)
            if with_memory:
                done(MEMORY[row], peaks)
    with tempfile.TemporaryDirectory() as folder:
        if {"ddpm-1000", "start-up"} & set(rows):
            sides.output(sides.python, "-c", MAKE_PIPELINES, ROOT / "benches", folder)
        if "ddpm-1000" in rows:
            done("ddpm-1000", measure_sampling(sides, Path(folder) / "butterflies", folder, options.rounds))
        if "start-up" in rows:
            done("start-up", measure_start(sides, Path(folder) / "tiny", folder, options.rounds))

    if options.json:
        table = {
            row: {"ours": n["ours"], "torch": n["torch"], "ratio": n["torch"] / n["ours"]} for row, n in results.items()
        }
        Path(options.json).write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
