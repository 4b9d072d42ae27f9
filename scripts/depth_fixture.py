"""Writes sd/depth and sd/cases/depth2img_estimated of crates/langevin/tests/reference: tiny depth estimators with what transformers makes
of a picture by them, and a call of diffusers' depth pipeline that estimates its depths.

    pip install torch transformers diffusers safetensors pillow
    python scripts/depth_fixture.py crates/langevin/tests/reference

The pipeline's other parts are those of sd/models/depth2img, and the picture is that of sd/cases/depth2img_08.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionDepth2ImgPipeline
from PIL import Image
from safetensors.torch import save_file
from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

root = Path(sys.argv[1])
torch.set_num_threads(1)

SMALL = dict(hidden_size=16, num_attention_heads=2, intermediate_size=24, image_size=64, patch_size=16, fusion_hidden_size=8)
BACKBONE = {
    "model_type": "bit", "global_padding": "same", "layer_type": "bottleneck", "depths": [1, 2, 2], "hidden_sizes": [16, 32, 64],
    "embedding_size": 8, "num_groups": 4, "out_features": ["stage1", "stage2", "stage3"], "embedding_dynamic_padding": True,
}
KINDS = {
    "dpt_hybrid": dict(
        is_hybrid=True, num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 32, 12, 20],
        reassemble_factors=[1, 1, 1, 0.5], backbone_featmap_shape=[1, 64, 4, 4], neck_ignore_stages=[0, 1], readout_type="project",
        backbone_config=BACKBONE,
    ),
    "dpt": dict(
        num_hidden_layers=5, backbone_out_indices=[0, 1, 3, 4], neck_hidden_sizes=[8, 8, 12, 20], reassemble_factors=[4, 2, 1, 0.5],
        readout_type="add",
    ),
    "dpt_norm": dict(
        num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 12, 20], reassemble_factors=[4, 2, 1, 0.5],
        readout_type="ignore", use_batch_norm_in_fusion_residual=True, use_bias_in_fusion_residual=False, qkv_bias=False,
    ),
}


def randomise(model):
    """Weights under which a wrong part shows: norms with gains and biases, running means that are not zero."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda tensor: torch.randn(tensor.shape, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.1 * draw(parameter))
            elif parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * draw(parameter))
            elif "cls_token" in name or "position" in name:
                parameter.copy_(0.3 * draw(parameter))
            else:
                parameter.copy_(draw(parameter) * (1.6 / parameter[0].numel()) ** 0.5)
        for name, buffer in model.named_buffers():
            if "running_mean" in name:
                buffer.copy_(0.1 * draw(buffer))
            if "running_var" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


for name, kind in KINDS.items():
    model = DPTForDepthEstimation(DPTConfig(**SMALL, **kind)).eval()
    randomise(model)
    pictures = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(11))
    last = []
    hook = model.head.head[4].register_forward_hook(lambda module, given, made: last.append(made))
    with torch.no_grad():
        model(pictures)
        # Most depths above zero.
        model.head.head[4].bias += 1.5 * last[0].std() - last[0].mean()
        hook.remove()
        depths = model(pictures).predicted_depth.contiguous()
    model.save_pretrained(root / "sd/depth" / name)
    save_file({"pixel_values": pictures, "predicted_depth": depths}, root / "sd/depth" / name / "io.safetensors")

processor = DPTImageProcessor(size={"height": 64, "width": 64}, resample=2)
processor.save_pretrained(root / "sd/depth/feature_extractor")

MODEL = "sd/models/depth2img"
pipeline = StableDiffusionDepth2ImgPipeline.from_pretrained(
    root / MODEL,
    depth_estimator=DPTForDepthEstimation.from_pretrained(root / "sd/depth/dpt_hybrid").eval(),
    feature_extractor=processor,
)
case = root / "sd/cases/depth2img_estimated"
case.mkdir(parents=True, exist_ok=True)
shutil.copy(root / "sd/cases/depth2img_08/image.png", case / "image.png")
arguments = {"prompt": "a photo of a cat in the snow", "strength": 0.6, "num_inference_steps": 6, "guidance_scale": 5.0}
latents = {}


def keep(pipeline, step, timestep, tensors):
    latents["latents"] = tensors["latents"].contiguous()
    return tensors


out = pipeline(
    image=Image.open(case / "image.png"), generator=torch.Generator().manual_seed(31), output_type="np", callback_on_step_end=keep, **arguments
)
save_file({"images": torch.tensor(out.images), **latents}, case / "expected.safetensors")
call = {
    "pipeline": "StableDiffusionDepth2ImgPipeline",
    "model": MODEL,
    "components": {"depth_estimator": "sd/depth/dpt_hybrid", "feature_extractor": "sd/depth/feature_extractor"},
    "arguments": arguments,
    "generator": {"seed": 31},
    "inputs": {"image": "image.png"},
    "output_type": "np",
}
(case / "call.json").write_text(json.dumps(call, indent=1) + "\n")
