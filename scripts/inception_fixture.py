"""Writes crates/langevin/tests/reference/inception: what pytorch_fid's Inception makes of a few pictures with weights from a seed.

    pip install torch torchvision pytorch-fid safetensors
    python scripts/inception_fixture.py crates/langevin/tests/reference/inception

The network's own weights are 95 MB; numbers drawn from a seed, which the test draws again, show as well that it is the same network.
"""

import sys
from pathlib import Path

import torch
from pytorch_fid import inception
from safetensors.torch import save_file

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)

inception.load_state_dict_from_url = lambda *args, **kwargs: network.state_dict()
network = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
network.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
network.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
network.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
network.Mixed_6b = inception.FIDInceptionC(768, channels_7x7=128)
network.Mixed_6c = inception.FIDInceptionC(768, channels_7x7=160)
network.Mixed_6d = inception.FIDInceptionC(768, channels_7x7=160)
network.Mixed_6e = inception.FIDInceptionC(768, channels_7x7=192)
network.Mixed_7b = inception.FIDInceptionE_1(1280)
network.Mixed_7c = inception.FIDInceptionE_2(2048)

generator = torch.Generator().manual_seed(0)
shapes = []
for name, tensor in network.state_dict().items():
    if name.startswith("fc.") or name.endswith("num_batches_tracked"):
        continue
    z = torch.randn(tensor.shape, generator=generator)
    if tensor.dim() == 4:
        tensor.copy_(z * (2 / tensor[0].numel()) ** 0.5)
    elif name.endswith(".weight"):
        tensor.copy_(1 + 0.1 * z)
    elif name.endswith("running_var"):
        tensor.copy_(1 + 0.1 * z * z)
    else:
        tensor.copy_(0.1 * z)
    shapes.append(" ".join([name, *map(str, tensor.shape)]))
(folder / "shapes.txt").write_text("\n".join(shapes) + "\n")

model = inception.InceptionV3().eval()
generator = torch.Generator().manual_seed(1)
features = {}
for name, height, width, channels in [("0", 32, 32, 3), ("1", 24, 40, 3), ("2", 8, 8, 1), ("3", 310, 300, 3)]:
    pixels = torch.randint(0, 256, (height, width, channels), generator=generator)
    picture = pixels.permute(2, 0, 1).expand(3, height, width)[None].float() / 255
    with torch.no_grad():
        features[name] = model(picture)[0].flatten().contiguous()
save_file(features, folder / "features.safetensors")
