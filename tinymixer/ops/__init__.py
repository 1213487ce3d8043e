"""Floor 2. The Functions: hand-written forward and backward, one idea a file."""

from tinymixer.ops import primitives
from tinymixer.ops.dropout import Dropout
from tinymixer.ops.gelu import GELU
from tinymixer.ops.linear import ChannelLinear, TokenLinear
from tinymixer.ops.loss import SoftmaxCrossEntropy
from tinymixer.ops.mlp import ChannelMLP, TokenMLP
from tinymixer.ops.norm import BatchNorm, GroupNorm, LayerNorm
from tinymixer.ops.patch import Patchify, Unfold
from tinymixer.ops.shift import AxialShift

__all__ = [
    "GELU",
    "AxialShift",
    "BatchNorm",
    "ChannelLinear",
    "ChannelMLP",
    "Dropout",
    "GroupNorm",
    "LayerNorm",
    "Patchify",
    "SoftmaxCrossEntropy",
    "TokenLinear",
    "TokenMLP",
    "Unfold",
    "primitives",
]
