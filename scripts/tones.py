"""Makes datasets/tones: scales and arpeggios on four instruments, as WAV files of 16 bits at 11,025 Hz.

    python scripts/tones.py [FOLDER]

All of it is computed here from a seed, so the sounds are nobody's, and are free for any use (CC0). Needs numpy.
"""

import pathlib
import sys
import wave

import numpy as np

RATE = 11_025
SECONDS = 2.2
CLIPS = 20
SCALES = {
    "major": [0, 2, 4, 5, 7, 9, 11, 12],
    "minor": [0, 2, 3, 5, 7, 8, 10, 12],
    "pentatonic": [0, 2, 4, 7, 9, 12, 14, 16],
}
CHORDS = {"major": [0, 4, 7, 12], "minor": [0, 3, 7, 12], "seventh": [0, 4, 7, 10, 12]}


def organ(hertz, seconds, random):
    """Drawbars: steady harmonics, all in phase."""
    t = np.arange(int(seconds * RATE)) / RATE
    strengths = {0.5: 0.5, 1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4, 6: 0.25, 8: 0.2}
    tone = sum(s * np.sin(2 * np.pi * hertz * k * t) for k, s in strengths.items() if hertz * k < RATE / 2)
    return tone * envelope(t, seconds, 0.01, 0.03)


def bell(hertz, seconds, random):
    """Partials that are no harmonics, the higher the sooner gone, ringing on into what follows."""
    t = np.arange(int((seconds + 0.5) * RATE)) / RATE
    partials = [(0.56, 0.6, 1.0), (0.92, 0.9, 0.9), (1.19, 1.0, 0.7), (1.71, 0.8, 0.5), (2.0, 0.7, 0.4), (2.74, 0.7, 0.3), (3.0, 0.5, 0.25),
                (3.76, 0.4, 0.2), (4.07, 0.3, 0.15)]
    tone = sum(s * np.exp(-t / d) * np.sin(2 * np.pi * 2 * hertz * k * t) for k, s, d in partials if 2 * hertz * k < RATE / 2)
    return tone * np.minimum(1, t / 0.002)


def pluck(hertz, seconds, random):
    """A string (Karplus and Strong 1983): noise that goes round and is smoothed."""
    count, period = int(seconds * RATE), int(round(RATE / hertz))
    out = np.zeros(count)
    out[: min(period, count)] = random.uniform(-1, 1, min(period, count))
    for i in range(period, count):
        out[i] += 0.498 * (out[i - period] + out[i - period - 1 if i > period else 0])
    return out * np.minimum(1, (seconds - np.arange(count) / RATE) / 0.02)


def flute(hertz, seconds, random):
    """Few harmonics that sway, and breath."""
    t = np.arange(int(seconds * RATE)) / RATE
    sway = 0.006 * np.sin(2 * np.pi * 5.5 * t) * np.minimum(1, t / 0.2)
    phase = 2 * np.pi * np.cumsum(2 * hertz * (1 + sway)) / RATE
    tone = np.sin(phase) + 0.25 * np.sin(2 * phase) + 0.08 * np.sin(3 * phase)
    breath = 0.12 * random.standard_normal(len(t))
    return (tone + breath) * envelope(t, seconds, 0.06, 0.06)


def envelope(t, seconds, rise, fall):
    return np.clip(np.minimum(t / rise, (seconds - t) / fall), 0, 1)


def melody(random):
    """The half tones above the lowest note, up, down, or up and down."""
    if random.random() < 0.5:
        steps = list(SCALES.values())[random.integers(len(SCALES))]
    else:
        steps = list(CHORDS.values())[random.integers(len(CHORDS))]
    way = random.integers(3)
    return [steps, steps[::-1], steps + steps[-2:0:-1]][way]


def clip(instrument, random):
    length = random.choice([0.14, 0.18, 0.22, 0.28])
    lowest = 196.0 * 2 ** (random.integers(0, 12) / 12)
    notes = melody(random)
    out = np.zeros(int((SECONDS + 1) * RATE))
    for number in range(int(np.ceil(SECONDS / length))):
        hertz = lowest * 2 ** (notes[number % len(notes)] / 12)
        tone = instrument(hertz, length, random)
        start = int(number * length * RATE)
        end = min(len(out), start + len(tone))
        out[start:end] += tone[: end - start]
    out = out[: int(SECONDS * RATE)]
    out *= 0.7 / np.abs(out).max()
    # The quietest of a room, as no recording is without.
    out += 2e-4 * random.standard_normal(len(out))
    return np.round(out * 32767).astype("<i2")


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "datasets/tones")
    for number, instrument in enumerate([organ, bell, pluck, flute]):
        place = folder / instrument.__name__
        place.mkdir(parents=True, exist_ok=True)
        for i in range(CLIPS):
            samples = clip(instrument, np.random.default_rng([number, i]))
            with wave.open(str(place / f"{i:02}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(samples.tobytes())


if __name__ == "__main__":
    main()
