"""Batch normalisation inside the weight generators while they train; it folds into their kernels and leaves no trace.

Fourteen ReLU layers in a row fall silent early in training, and nothing revives them: what feeds them is never negative, so
whole layers drift below zero at once. Normalised, half of every channel stays above zero, and the network that is delivered is
the paper's all the same.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model import DeblurNetwork
from training.widening import generators

LAST = "layer14"  # its tanh bounds it already


def normalised(network: DeblurNetwork) -> DeblurNetwork:
    """A copy whose generators normalise the output of each convolution but the last, which begins at zero; to be trained anew."""
    network = copy.deepcopy(network)
    for _, generator in generators(network):
        for name, layer in list(generator.named_children()):
            if name != LAST:
                setattr(generator, name, nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)))
        nn.init.zeros_(generator.layer14.weight)
    return network


def folded(network: DeblurNetwork) -> DeblurNetwork:
    """A copy in evaluation mode without normalisation that computes the same as `network` does in evaluation mode."""
    network = copy.deepcopy(network).eval()
    for _, generator in generators(network):
        for name, layer in list(generator.named_children()):
            if isinstance(layer, nn.Sequential):
                with torch.no_grad():
                    setattr(generator, name, fuse_conv_bn_eval(*layer))
    return network
