#!/usr/bin/env python3
"""The way from a sound to its spectrogram and back, here and in diffusers' Mel with librosa, in turns on the same cores.

    pip install librosa diffusers
    cargo build --release -p langevin --example bench_sound
    benches/compare_librosa.py [ROUNDS]
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import wave

import numpy as np
from diffusers.pipelines.deprecated.audio_diffusion.mel import Mel

PROGRAM = pathlib.Path(__file__).parent.parent / "target/release/examples/bench_sound"


def sound(path):
    """Six seconds of chords and noise at 22,050 Hz."""
    random = np.random.default_rng(0)
    t = np.arange(131_072) / 22_050
    samples = sum(np.sin(2 * np.pi * hertz * t + random.random()) for hertz in [110, 220, 277, 330, 440, 880, 2200]) / 10
    samples = samples * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * t)) + 0.02 * random.standard_normal(len(t))
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes((samples * 32767 * 0.7).astype("<i2").tobytes())


def median(work, rounds):
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/sound.wav"
        sound(path)
        mel = Mel()
        mel.load_audio(path)
        image = mel.audio_slice_to_image(0)
        found = {"forward": [], "inverse": []}
        for _ in range(3):
            ours = json.loads(subprocess.check_output([PROGRAM, path, str(rounds)]))
            theirs = {
                "forward": median(lambda: mel.audio_slice_to_image(0), rounds),
                "inverse": median(lambda: mel.image_to_audio(image), rounds),
            }
            for what, pairs in found.items():
                pairs.append((ours[what], theirs[what]))
    for what, pairs in found.items():
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        middle = sorted(pairs, key=lambda pair: pair[1] / pair[0])[1]
        print(f"{what}: {middle[0]:.1f} ms here, {middle[1]:.1f} ms in librosa: {ratios[1]:.2f} times (of three: {', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
