"""An independent reference: where stock torch-pruning is right, it couples the same layers at the same widths."""

import warnings

import pytest
from torch import nn
from zoo import ZOO

import maskdecay as md

# Where stock torch-pruning was tried and found right (issue threads and our own runs); nothing else is a reference.
RIGHT = ["plain_cnn", "VGG", "resnet_basic", "resnet_bottleneck", "mobilenet_v2", "mobilenet_v3", "DenseNet", "UNet",
         "OneDimension", "ThreeDimensions", "saturating_activations", "prelu", "SharedModule", "GatedChunk",
         "StraightThroughRounding", "transposed", "batch_norm_without_affine"]  # fmt: skip

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def stock(model, inputs):
    """Sets of (layer, side), and how many channels the layer that leads the group has, from torch-pruning alone."""
    import torch_pruning as tp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs, verbose=False)
        names = {module: name for name, module in model.named_modules()}
        found = {}
        for group in graph.get_all_groups(root_module_types=LAYERS):
            sides = set()
            for dependency, _ in group:
                layer = dependency.target.module
                if isinstance(layer, LAYERS):
                    out = graph.is_out_channel_pruning_fn(dependency.handler)
                    depthwise = getattr(layer, "groups", 1) > 1 and layer.groups == layer.in_channels
                    sides.add((names[layer], "channels" if depthwise else "out" if out else "in"))
            root = group[0].dep.target.module
            found[frozenset(sides)] = getattr(root, "out_channels", getattr(root, "out_features", 0))
    return found


def ours(model, inputs):
    """The same from our groups."""
    layers, found = dict(model.named_modules()), {}
    for group in md.find_groups(model, inputs):
        sides, width = set(), 0
        for piece in group.slices:
            layer = layers[piece.layer]
            if isinstance(layer, LAYERS) and piece.name.endswith("weight"):
                transposed = getattr(layer, "transposed", False)
                depthwise = getattr(layer, "groups", 1) > 1 and layer.groups == layer.in_channels
                side = "channels" if depthwise else "out" if piece.dim == int(transposed) else "in"
                sides.add((piece.layer, side))
                if piece.role == "producer":
                    width = len(piece.index)
        found[frozenset(sides)] = width
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_the_same_layers_are_coupled_at_the_same_widths(name):
    case = ZOO[name]
    found = ours(case.build(), case.example())
    assert found == stock(case.build(), case.example())
    assert len(found) == len(case.prunable) + len(case.refused)
