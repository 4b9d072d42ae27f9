"""Makes crates/langevin/tests/reference/sounds: a sweep in every kind of file that is read, and what others decode of it.

    python scripts/sound_fixture.py

Needs numpy, soundfile (libsndfile) and av (FFmpeg). NAME.ENDING is the file, NAME.ENDING.wav what libsndfile or, of M4A, FFmpeg makes of it, one
channel of 16 bits. The fuzz target `sound` begins with very short ones.
"""

import pathlib
import sys

import av
import numpy as np
import soundfile

RATE = 22_050
SECONDS = 3.0


def sweep():
    """From 200 to 2000 Hz, the right channel quieter, with clicks that tell one place from another."""
    t = np.arange(int(SECONDS * RATE)) / RATE
    hertz = 200 * 10 ** (t / SECONDS)
    left = 0.5 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)
    left *= 0.6 + 0.4 * np.sin(2 * np.pi * 3.7 * t) ** 2
    return np.stack([left, 0.5 * left], 1).astype(np.float32)


def m4a(path, samples):
    with av.open(str(path), "w", format="ipod") as file:
        stream = file.add_stream("aac", rate=RATE)
        stream.layout = "stereo"
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)


def decoded(path):
    if path.suffix != ".m4a":
        return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1)
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return np.concatenate(frames, 1).mean(0)


def write_all(folder, samples):
    for ending, kind, subtype in [("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"), ("mp3", "MP3", "MPEG_LAYER_III")]:
        soundfile.write(folder / f"sweep.{ending}", samples, RATE, format=kind, subtype=subtype)
    m4a(folder / "sweep.m4a", samples)


def main():
    tests = pathlib.Path(__file__).parent.parent / "crates/langevin/tests"
    folder = tests / "reference/sounds"
    folder.mkdir(parents=True, exist_ok=True)
    write_all(folder, sweep())
    for path in [folder / f"sweep.{ending}" for ending in ["flac", "ogg", "mp3", "m4a"]]:
        soundfile.write(folder / f"{path.name}.wav", decoded(path), RATE, subtype="PCM_16")
    corpus = tests / "fuzz/__fuzz__/sound/corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    short = sweep()[:4000]
    write_all(corpus, short)
    soundfile.write(corpus / "six.wav", np.tile(short[:200], 3), 48_000, subtype="PCM_24")
    soundfile.write(corpus / "float.wav", short[:200], 8_000, subtype="FLOAT")
    soundfile.write(corpus / "sixteen.wav", short[:400, 0], 192_000, subtype="PCM_16")
    soundfile.write(corpus / "law.wav", short[:400, 0], 8_000, subtype="ULAW")


if __name__ == "__main__":
    main()
