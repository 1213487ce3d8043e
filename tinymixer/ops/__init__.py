"""Floor 2. The Functions: hand-written forward and backward, one idea a file."""

from tinymixer.ops import primitives
from tinymixer.ops.attention import SplitAttention
from tinymixer.ops.balance import Imbalance, Load
from tinymixer.ops.dropout import Dropout
from tinymixer.ops.experts import Combine, Dispatch
from tinymixer.ops.gelu import GELU
from tinymixer.ops.linear import ChannelLinear, TokenLinear
from tinymixer.ops.loss import SoftmaxCrossEntropy
from tinymixer.ops.mlp import ChannelMLP, TokenMLP
from tinymixer.ops.norm import BatchNorm, GroupNorm, LayerNorm
from tinymixer.ops.patch import Patchify, Unfold
from tinymixer.ops.permute import SwapSegments
from tinymixer.ops.raft import Raft, Unraft
from tinymixer.ops.region import Regions, Shift, Unregions
from tinymixer.ops.relu import ReLU
from tinymixer.ops.resample import Resample
from tinymixer.ops.shift import AxialShift
from tinymixer.ops.softmax import Softmax

__all__ = [
    "GELU",
    "AxialShift",
    "BatchNorm",
    "ChannelLinear",
    "ChannelMLP",
    "Combine",
    "Dispatch",
    "Dropout",
    "GroupNorm",
    "Imbalance",
    "LayerNorm",
    "Load",
    "Patchify",
    "Raft",
    "ReLU",
    "Regions",
    "Resample",
    "Shift",
    "Softmax",
    "SoftmaxCrossEntropy",
    "SplitAttention",
    "SwapSegments",
    "TokenLinear",
    "TokenMLP",
    "Unfold",
    "Unraft",
    "Unregions",
    "primitives",
]
