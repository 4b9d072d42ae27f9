"""PyTorch's side of compare_pytorch.py, which runs it: one row in a process of its own.

torch_side.py ROW LAYOUT COUNTED prints a line of JSON: the milliseconds of each counted run after three that are not, and
the process's largest resident set in KiB. LAYOUT is eager or channels_last. `-bf16` behind a row's name is autocast to bf16.
"""

import json
import resource
import sys
import time

WARM_UP = 3

BUTTERFLIES = dict(
    sample_size=32,
    in_channels=3,
    out_channels=3,
    layers_per_block=2,
    block_out_channels=(64, 128, 128, 256),
    down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
)
MNIST = dict(
    sample_size=28,
    in_channels=1,
    out_channels=1,
    layers_per_block=2,
    block_out_channels=(32, 64, 64),
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
)


def timed(run, counted):
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(counted):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def training(torch, config, pictures, layout, counted, bf16):
    """Noise, forward, backward, clipping, AdamW: what Langevin's side does."""
    import torch.nn.functional as functional
    from diffusers import DDPMScheduler, UNet2DModel

    model = UNet2DModel(**config).to(memory_format=layout).train()
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    shape = (pictures, config["in_channels"], config["sample_size"], config["sample_size"])
    clean = torch.randn(shape).to(memory_format=layout)

    def run():
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (pictures,)).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            prediction = model(scheduler.add_noise(clean, noise, timesteps), timesteps).sample
        loss = functional.mse_loss(prediction.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return timed(run, counted)


def forward(torch, pictures, layout, counted, bf16):
    from diffusers import UNet2DModel

    model = UNet2DModel(**BUTTERFLIES).to(memory_format=layout).eval()
    x = torch.randn(pictures, 3, 32, 32).to(memory_format=layout)
    timesteps = torch.tensor([i * 37 % 1000 for i in range(pictures)])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return timed(lambda: model(x, timesteps).sample, 3 * counted if pictures == 1 else counted)


def main():
    row, layout, counted, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    layout = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    bf16 = row.endswith("-bf16")
    times = {
        "step-b16": lambda: training(torch, BUTTERFLIES, 16, layout, counted, bf16),
        "mnist-step-b128": lambda: training(torch, MNIST, 128, layout, counted, bf16),
        "forward-b8": lambda: forward(torch, 8, layout, counted, bf16),
        "forward-b1": lambda: forward(torch, 1, layout, counted, bf16),
    }[row.removesuffix("-bf16")]()
    print(json.dumps({"ms": times, "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


if __name__ == "__main__":
    main()
