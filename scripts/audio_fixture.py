#!/usr/bin/env python3
"""Tiny AudioDiffusionPipelines in an autoencoder's space, told an encoding and not, and what diffusers draws with them, for `reference_audio`.

    pip install torch diffusers librosa safetensors
    scripts/audio_fixture.py

They go beside the other cases in crates/langevin/tests/reference/audio/pipeline, in the same layout.
"""

import json
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.audio_diffusion import AudioDiffusionPipeline, Mel
from safetensors.torch import save_file

AUDIO = pathlib.Path(__file__).parent.parent / "crates/langevin/tests/reference/audio"
PIPELINE = AUDIO / "pipeline"


def models():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=64, scaling_factor=0.5,
    )
    plain = UNet2DModel(
        sample_size=(32, 32), in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, add_attention=False,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )
    told = UNet2DConditionModel(
        sample_size=(32, 32), in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=10,
        attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    # Gains and biases that show when one is left out.
    for model in (vae, plain, told):
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return vae, plain, told


def write(name, model, pipeline, arguments, seed, encoding=None):
    folder = PIPELINE / name
    folder.mkdir(parents=True, exist_ok=True)
    given = dict(arguments)
    if "audio_file" in given:
        given["audio_file"] = str(AUDIO.parent / given["audio_file"])
    if encoding is not None:
        given["encoding"] = encoding
        save_file({"encoding": encoding}, folder / "inputs.safetensors")
    images, (_, audios) = pipeline(**given, generator=torch.Generator().manual_seed(seed), return_dict=False)
    images = np.stack([np.array(image) for image in images])
    save_file({"images": torch.from_numpy(images)}, folder / "expected.safetensors")
    call = {
        "pipeline": "AudioDiffusionPipeline", "model": f"audio/pipeline/models/{model}", "arguments": arguments, "generator": {"seed": seed},
        "inputs": {} if encoding is None else {"encoding": "inputs.safetensors#encoding"},
        "audio_shape": [len(audios), 1, len(audios[0])], "images": "uint8 (B,H,W); within 1", "timesteps": pipeline.scheduler.timesteps.tolist(),
    }
    (folder / "call.json").write_text(json.dumps(call, indent=1))


def main():
    vae, plain, told = models()
    mel = lambda: Mel(x_res=64, y_res=64, n_iter=2)
    latent = AudioDiffusionPipeline(vqvae=vae, unet=plain, mel=mel(), scheduler=DDIMScheduler())
    latent.save_pretrained(PIPELINE / "models/latent")
    write("latent_plain", "latent", latent, {"batch_size": 2, "steps": 5}, 11)
    write(
        "latent_start_step_and_masks", "latent", latent,
        {"steps": 5, "start_step": 2, "audio_file": "audio/signal.wav", "slice": 0, "mask_start_secs": 0.3, "mask_end_secs": 0.4}, 12,
    )
    encoded = AudioDiffusionPipeline(vqvae=vae, unet=told, mel=mel(), scheduler=DDPMScheduler())
    encoded.save_pretrained(PIPELINE / "models/encoded")
    encoding = torch.randn(1, 1, 10, generator=torch.Generator().manual_seed(13))
    write("latent_encoding", "encoded", encoded, {"steps": 5}, 14, encoding)


if __name__ == "__main__":
    main()
