"""Makes guidance.safetensors and strengths.json with diffusers; run beside the folder `reference`.

The model is reference/pipelines/ddim's. Every loop begins with `noise`.
"""

import json
import torch
from diffusers import DDIMInverseScheduler, DDIMPipeline, DDPMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline
from safetensors.torch import save_file
from torchvision import transforms

torch.set_num_threads(1)
pipe = DDIMPipeline.from_pretrained("../reference/pipelines/ddim")
unet, config = pipe.unet, pipe.scheduler.config
noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
tensors = {"noise": noise}

# The course's unit 2, both variants, with the loss of a colour: a mean a picture, summed.
target = torch.tensor([0x1A, 0xE6, 0x80]).view(1, 3, 1, 1) / 127.5 - 1
STEPS, SCALE = 6, 40.0


def guided(through_model):
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(STEPS)
    x, losses = noise, []
    for t in scheduler.timesteps:
        leaf = x.detach().requires_grad_()
        if through_model:
            prediction = unet(leaf, t).sample
        else:
            with torch.no_grad():
                prediction = unet(x, t).sample
        clean = scheduler.step(prediction, t, leaf).pred_original_sample
        loss = (clean - target).abs().mean(dim=(1, 2, 3))
        losses.append(loss.detach())
        gradient = torch.autograd.grad(loss.sum() * SCALE, leaf)[0]
        x = scheduler.step(prediction.detach(), t, x - gradient, use_clipped_model_output=True).prev_sample
    return x, torch.stack(losses)


for name, through in [("clean", False), ("model", True)]:
    tensors[f"guided.{name}"], tensors[f"losses.{name}"] = guided(through)

# DDIM inversion, and back.
with torch.no_grad():
    inverse = DDIMInverseScheduler.from_config(config, clip_sample=False)
    forward = DDIMScheduler.from_config(config, clip_sample=False)
    x = noise.clamp(-1, 1) * 0.5
    tensors["picture"] = x.clone()
    inverse.set_timesteps(8)
    for t in inverse.timesteps:
        x = inverse.step(unet(x, t).sample, t, x).prev_sample
    tensors["latent"] = x
    forward.set_timesteps(8)
    for t in forward.timesteps:
        x = forward.step(unet(x, t).sample, t, x).prev_sample
    tensors["again"] = x

    # Picture to picture: half of 8 steps.
    forward = DDIMScheduler.from_config(config)
    forward.set_timesteps(8)
    timesteps = forward.timesteps[4:]
    x = forward.add_noise(tensors["picture"], noise, timesteps[:1].repeat(2))
    for t in timesteps:
        x = forward.step(unet(x, t).sample, t, x).prev_sample
    tensors["from_picture"] = x

# The course's cut-outs: torchvision's transforms with torch's generator seeded, and the great-circle loss.
cut = transforms.Compose([
    transforms.RandomResizedCrop(24), transforms.RandomAffine(5), transforms.RandomHorizontalFlip(),
])
for name, size in [("wide", (3, 20, 90)), ("small", (3, 16, 16)), ("large", (3, 64, 48))]:
    picture = torch.rand(1, *size, generator=torch.Generator().manual_seed(5))
    tensors[f"cut.{name}"] = picture
    for seed in range(4):
        torch.manual_seed(seed)
        tensors[f"cut.{name}.{seed}"] = cut(picture)
a, b = (torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
tensors["circle.a"], tensors["circle.b"] = a, b
normal = torch.nn.functional.normalize
tensors["circle"] = (normal(a, dim=1) - normal(b, dim=1)).norm(dim=1).div(2).arcsin().pow(2).mul(2)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, "guidance.safetensors")


# How many steps a strength leaves: get_timesteps of the picture-to-picture pipeline.
class Steps:
    get_timesteps = StableDiffusionImg2ImgPipeline.get_timesteps


strengths = []
for name, cls in [
    ("ddim", DDIMScheduler), ("ddpm", DDPMScheduler), ("euler", EulerDiscreteScheduler),
    ("heun", HeunDiscreteScheduler), ("dpm++2m", DPMSolverMultistepScheduler), ("pndm", PNDMScheduler),
]:
    for steps, strength in [(50, 0.8), (10, 0.35), (7, 1.0), (3, 0.34), (20, 0.999)]:
        if name == "pndm" and steps < 10:
            continue  # It needs more.
        scheduler = cls.from_config(config)
        scheduler.set_timesteps(steps)
        holder = Steps()
        holder.scheduler = scheduler
        timesteps, left = holder.get_timesteps(steps, strength, "cpu")
        strengths.append(dict(scheduler=name, steps=steps, strength=strength, timesteps=[float(t) for t in timesteps]))
with open("strengths.json", "w") as file:
    json.dump(strengths, file)
