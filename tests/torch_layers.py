"""What the networks for PyTorch share: layers, and how the weights of ours become theirs.

The six systems are written from the equations of ours, by PyTorch's own layers wherever there is
one, batch first and channels last: grids are (B, H, W, C). Modules have the names of ours.
"""

import numpy as np
import torch
from torch import nn

from tinymixer import nn as ours


def mlp(width, hidden_dim, gelu):
    return nn.Sequential(nn.Linear(width, hidden_dim), GELU(gelu), nn.Linear(hidden_dim, width))


def GELU(form):
    return nn.GELU("tanh" if form == "tanh" else "none")


class Conv(nn.Conv2d):
    """x (B, H, W, C)  ->  y (B, H', W', D): the same memory, seen with the channels second."""

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class BatchNorm(nn.BatchNorm1d):
    """x (B, H, W, C)  ->  y (B, H, W, C)."""

    def forward(self, x):
        return super().forward(x.flatten(0, 2)).view(x.shape)


class GroupNorm(nn.GroupNorm):
    """x (B, H, W, C)  ->  y (B, H, W, C): all of an image is one group."""

    def __init__(self, C, eps):
        super().__init__(1, C, eps)

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def split_attention(z, *branches):
    """z (B, n*C), n branches (B, H, W, C)  ->  Σ_b softmax_b(z[b]) x_b."""
    alpha = z.view(len(z), len(branches), 1, 1, -1).softmax(1).unbind(1)
    y = alpha[0] * branches[0]
    for a, x in zip(alpha[1:], branches[1:], strict=True):
        y = torch.addcmul(y, a, x)
    return y


class SplitAttention(nn.Module):
    def __init__(self, C, n, hidden_dim, gelu):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(C, hidden_dim), nn.Linear(hidden_dim, n * C)
        self.gelu = GELU(gelu)

    def forward(self, *branches):
        q = sum(x.mean((1, 2)) for x in branches)
        return split_attention(self.linear_2(self.gelu(self.linear_1(q))), *branches)


class Classifier(nn.Module):
    """images (B, height, width, 3)  ->  logits (B, K)."""

    auxiliary = ()  # losses to add, in training

    def forward(self, images):
        x = self.norm(self.features(images))
        return self.head(x.mean(tuple(range(1, x.ndim - 1))))


# The weights --------------------------------------------------------------------------------------


def state_dict(model):
    """The arrays of a model of ours, by PyTorch's names and in its layout, W (out, in)."""
    arrays, convolutions = {}, []
    for path, layer in model.named_modules():
        if path.rpartition(".")[0] in convolutions:
            continue
        if isinstance(layer, ours.UnfoldLinear):
            convolutions.append(path)
        for name, x in by_torch_names(layer).items():
            if x is not None:
                arrays[f"{path}.{name}"] = torch.from_numpy(np.asarray(x))
    return arrays


def by_torch_names(layer):
    """What one layer of ours holds; None for a bias that it lacks."""
    held = {name: x.data for name, x in vars(layer).items() if hasattr(x, "data")}
    match layer:
        case ours.UnfoldLinear():
            k, W, b = layer.kernel, layer.linear.W.data, layer.linear.b
            windows = W.reshape(k, k, -1, W.shape[1])  # (k, k, C, D)
            return {"weight": windows.transpose(3, 2, 0, 1), "bias": None if b is None else b.data}
        case ours.ChannelLinear():
            return {"weight": held["W"].T, "bias": held.get("b")}
        case ours.TokenLinear():
            return {"weight": held["W"], "bias": held["b"]}
        case ours.TokenMLP() | ours.ChannelMLP():
            W1, W2 = held["W1"], held["W2"]
            if isinstance(layer, ours.ChannelMLP):
                W1, W2 = W1.T, W2.T
            return {"0.weight": W1, "0.bias": held["b1"], "2.weight": W2, "2.bias": held["b2"]}
        case ours.MixtureOfExperts():
            return {"gate.weight": held["gate"] if layer.tokens else held["gate"].T}
        case ours.LayerNorm() | ours.GroupNorm():
            return {"weight": held["gamma"], "bias": held["beta"]}
        case ours.BatchNorm():
            running = {name: held[name] for name in ("running_mean", "running_var")}
            never = {"num_batches_tracked": np.zeros((), np.int64)}
            return {"weight": held["gamma"], "bias": held["beta"], **running, **never}
    return {}
