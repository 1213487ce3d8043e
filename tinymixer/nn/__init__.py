"""Floor 3. Parameter, Module, and the layers that hold parameters.

module.py      Parameter, Buffer, Module: names, states, devices
initialise.py  the numbers that weights start with
layers.py      linear maps, normalisation, MLPs, patch embedding, dropout
grids.py       images as grids, and grids of another size
mixture.py     a layer of many MLPs, of which each row uses a few
auxiliary.py   what a training pass yields besides its output
roles.py       which weights read the images, and which are hidden matrices
whitening.py   a start for the first embedding, from images

A model is called as `model(images)` to evaluate it, and as `model(images, rng=rng)` to train it:
with random numbers to draw from, dropout drops activations and stochastic depth skips branches.
"""

from tinymixer.nn.auxiliary import Auxiliary, Update, add_loss, after_step, auxiliary
from tinymixer.nn.grids import grid, resize, sides
from tinymixer.nn.initialise import (
    BLANK,
    Init,
    Rng,
    Zeros,
    fan_in_uniform,
    lecun_normal,
    normal,
    ones,
    undrawn,
    zero,
    zeros,
)
from tinymixer.nn.layers import (
    BatchNorm,
    ChannelLinear,
    ChannelMLP,
    Classifier,
    GroupNorm,
    LayerNorm,
    PatchEmbed,
    SplitAttention,
    TokenLinear,
    TokenMLP,
    UnfoldLinear,
    drop_branch,
    drop_path,
    dropout,
)
from tinymixer.nn.mixture import MixtureOfExperts, Routing
from tinymixer.nn.module import Buffer, Module, Parameter, layer_names, layer_of
from tinymixer.nn.roles import hidden_matrices
from tinymixer.nn.whitening import whiten

__all__ = [
    "BLANK",
    "Auxiliary",
    "BatchNorm",
    "Buffer",
    "ChannelLinear",
    "ChannelMLP",
    "Classifier",
    "GroupNorm",
    "Init",
    "LayerNorm",
    "MixtureOfExperts",
    "Module",
    "Parameter",
    "PatchEmbed",
    "Rng",
    "Routing",
    "SplitAttention",
    "TokenLinear",
    "TokenMLP",
    "UnfoldLinear",
    "Update",
    "Zeros",
    "add_loss",
    "after_step",
    "auxiliary",
    "drop_branch",
    "drop_path",
    "dropout",
    "fan_in_uniform",
    "grid",
    "hidden_matrices",
    "layer_names",
    "layer_of",
    "lecun_normal",
    "normal",
    "ones",
    "resize",
    "sides",
    "undrawn",
    "whiten",
    "zero",
    "zeros",
]
