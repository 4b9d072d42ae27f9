"""Writes crates/langevin/tests/reference/codec_training: an AutoencoderKL that learns for a few steps, by PyTorch and diffusers.

    pip install torch diffusers safetensors
    python scripts/codec_fixture.py crates/langevin/tests/reference/codec_training

Every step: the mean of |picture - reconstruction| and 1e-3 times the divergence of the latents over as many numbers as a picture has; gradients clipped
to 1; AdamW.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

STEPS, BATCH, SIDE, KL, RATE = 5, 2, 16, 1e-3, 3e-3


def main(folder: Path) -> None:
    torch.manual_seed(11)
    levels = 3
    vae = AutoencoderKL(
        block_out_channels=[4, 8, 8],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=2,
        norm_num_groups=2,
        sample_size=SIDE,
        scaling_factor=1.0,
        force_upcast=False,
    )
    vae.save_pretrained(folder)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    tensors, trace = {}, []
    for step in range(STEPS):
        pictures = torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1
        noise = torch.randn(BATCH, 2, SIDE // 4, SIDE // 4)
        posterior = vae.encode(pictures).latent_dist
        back = vae.decode(posterior.mean + torch.exp(posterior.logvar / 2) * noise).sample
        apart = (pictures - back).abs().flatten(1).mean(1)
        losses = apart + KL * posterior.kl() / pictures[0].numel()
        losses.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tensors[f"pictures.{step}"], tensors[f"noise.{step}"] = pictures, noise
        trace.append({"losses": losses.tolist(), "loss": losses.mean().item(), "norm": norm.item()})
    tensors |= {f"after.{name}": value.detach() for name, value in vae.state_dict().items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "io.safetensors")
    case = {"kl_weight": KL, "learning_rate": RATE, "trace": trace, "torch": torch.__version__}
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


main(Path(sys.argv[1]))
