"""
Compare PyTorch models
======================

Any module becomes a network of what it computes: no weight is read, nothing is trained.
"""

import torch
from torch import nn

import hotnas_torch as ht

# %%
# Three families, in several sizes.


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def vgg(*widths):
    pairs = zip((3, *widths), widths, strict=False)
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            for a, b in pairs
        )
    )


def mobile(*widths):
    pairs = zip((3, *widths), widths, strict=False)
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(a, a, 3, 2, 1, groups=a),
                nn.BatchNorm2d(a),
                nn.Conv2d(a, b, 1),
                nn.Hardswish(),
            )
            for a, b in pairs
        )
    )


def encoder(width, depth):
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", batch_first=True)
    return nn.Sequential(
        nn.Conv2d(3, width, 8, 8), nn.Flatten(2), Transposed(), nn.TransformerEncoder(layer, depth)
    )


models = {
    "vgg": vgg(16, 32, 64),
    "vgg wide": vgg(32, 64, 128),
    "vgg deep": vgg(16, 32, 64, 128),
    "mobile": mobile(16, 32, 64),
    "mobile wide": mobile(32, 64, 128),
    "mobile deep": mobile(16, 32, 64, 128),
    "encoder": encoder(32, 2),
    "encoder wide": encoder(64, 2),
    "encoder deep": encoder(32, 4),
}

# %%
image = torch.empty(1, 3, 32, 32, device="meta")
networks = [ht.from_module(model, image) for model in models.values()]
for name, network in zip(models, networks, strict=True):
    operations = sum(cell.num_operations for cell in network.cells)
    print(f"{name:13} {network.num_cells} cells, {operations} operations")

# %%
distances = ht.HOTNN(tree=ht.importing.operation_tree())(networks)
figure = ht.plot.plot_heat_map(distances, list(models))

# %%
figure = ht.plot.plot_tree(distances, list(models))
