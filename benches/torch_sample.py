"""The Python script that `langevin sample` is compared with: torch_sample.py FOLDER STEPS BATCH LAYOUT THREADS OUTPUT.

Loads a DDPM pipeline from a folder, draws a batch of pictures and writes them as one grid.
"""

import sys


def main():
    folder, steps, batch, layout, threads, output = sys.argv[1:]
    import torch
    from diffusers import DDPMPipeline
    from PIL import Image

    torch.set_num_threads(int(threads))
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if layout == "channels_last":
        pipeline.unet.to(memory_format=torch.channels_last)
    pictures = pipeline(
        batch_size=int(batch),
        num_inference_steps=int(steps),
        generator=torch.Generator().manual_seed(0),
    ).images
    width, height = pictures[0].size
    grid = Image.new(pictures[0].mode, (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        grid.paste(picture, (i * width, 0))
    grid.save(output)


if __name__ == "__main__":
    main()
