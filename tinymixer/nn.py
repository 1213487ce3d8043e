"""Floor 3. Parameter, Module, and the layers that hold parameters.

A layer owns arrays and calls one Function on them; the mathematics is in `ops`. A model is called
as `model(images)` to evaluate it, and as `model(images, rng=rng)` to train it: with random numbers
to draw from, dropout drops and stochastic depth skips.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, array_module, to_device
from tinymixer.engine import Tensor
from tinymixer.ops.gelu import check_form

Rng = np.random.Generator

# In place of a generator: every weight is zero, in memory that costs nothing until it is written.
BLANK: Any = object()


class Parameter(Tensor):
    """A Tensor that a Module learns."""

    __slots__ = ()


class Module:
    """Parameters and Modules, held as plain attributes and in lists, in order of definition."""

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        return self.forward(*inputs, **options)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every Parameter below, with its path: `blocks.0.token_mlp.W1`."""
        for name, value in vars(self).items():
            members = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, member in members:
                path = f"{prefix}{name}" if i is None else f"{prefix}{name}.{i}"
                if isinstance(member, Parameter):
                    yield path, member
                elif isinstance(member, Module):
                    yield from member.named_parameters(path + ".")

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def num_parameters(self) -> int:
        return sum(parameter.size for parameter in self.parameters())

    def state(self) -> dict[str, Array]:
        """The parameters' arrays by name: the arrays themselves, not copies."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Copy `arrays` into the parameters of the same names, in the parameters' precision.

        Raises ValueError, and changes nothing, unless names and shapes are exactly the model's.
        """
        own = self.state()
        wrong = [f"missing {name}" for name in own if name not in arrays]
        wrong += [f"left over {name}" for name in arrays if name not in own]
        wrong += [
            f"{name} is {arrays[name].shape}, expected {own[name].shape}"
            for name in own
            if name in arrays and arrays[name].shape != own[name].shape
        ]
        if wrong:
            more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise ValueError(
                f"these weights do not fit {type(self).__name__}: {'; '.join(wrong[:4])}{more}. "
                "Build the model with the options that the weights were trained with"
            )
        for name, array in own.items():
            array[...] = array_module(array).asarray(arrays[name])

    def astype(self, dtype: Any) -> "Module":
        """This model with its parameters in another precision, in place."""
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype)
        return self

    def to(self, device: str) -> "Module":
        """This model with its parameters on `device`, "cpu" or "gpu", in place."""
        for parameter in self.parameters():
            parameter.data = to_device(parameter.data, device)
        return self


def lecun_normal(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    """W ~ N(0, 1/fan_in), cut at two standard deviations and rescaled to that variance.

    Source: the default of the layers that Mixer was published with (Flax); Klambauer et al. 2017.
    """
    if rng is BLANK:
        return zeros(*shape)
    draws = rng.standard_normal(shape, dtype=np.float32)
    while (outside := np.abs(draws) > 2).any():
        draws[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)
    cut_std = 0.8796256610342398  # of a standard normal variable cut at ±2
    draws *= fan_in**-0.5 / cut_std
    return Parameter(draws)


def zeros(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    return Parameter(np.ones(shape, np.float32))


class ChannelLinear(Module):
    """x (..., C)  ->  x W + b (..., D).  See ops.ChannelLinear."""

    def __init__(self, C: int, D: int, *, rng: Rng):
        self.W = lecun_normal(rng, (C, D), fan_in=C)
        self.b = zeros(D)

    def forward(self, x: Any) -> Tensor:
        return ops.ChannelLinear()(x, self.W, self.b)


class LayerNorm(Module):
    """x (..., C)  ->  y (..., C).  See ops.LayerNorm."""

    def __init__(self, C: int, eps: float = 1e-6):
        self.gamma, self.beta = ones(C), zeros(C)
        self.eps = eps

    def forward(self, x: Any) -> Tensor:
        return ops.LayerNorm(self.eps)(x, self.gamma, self.beta)


class PatchEmbed(Module):
    """images (B, H*P, W*P, 3)  ->  x (S, B, C): each patch's pixels through one linear map.

    The same as a convolution whose kernel and stride are both P.
    """

    def __init__(self, patch_size: int, C: int, *, rng: Rng):
        self.patch_size = patch_size
        self.linear = ChannelLinear(3 * patch_size**2, C, rng=rng)

    def forward(self, images: Any) -> Tensor:
        patches = ops.Patchify(self.patch_size)(images)
        # Plain images want no gradient, so neither do their patches: one product less in backward.
        return self.linear(patches if isinstance(images, Tensor) else patches.data)


class TokenMLP(Module):
    """x (S, B, C)  ->  y (S, B, C).  See ops.TokenMLP."""

    def __init__(self, S: int, D_S: int, *, gelu: str, rng: Rng):
        self.W1, self.b1 = lecun_normal(rng, (D_S, S), fan_in=S), zeros(D_S)
        self.W2, self.b2 = lecun_normal(rng, (S, D_S), fan_in=D_S), zeros(S)
        self.gelu = check_form(gelu)

    def forward(self, x: Any) -> Tensor:
        return ops.TokenMLP(self.gelu)(x, self.W1, self.b1, self.W2, self.b2)


class ChannelMLP(Module):
    """x (..., C)  ->  y (..., C).  See ops.ChannelMLP."""

    def __init__(self, C: int, D_C: int, *, gelu: str, rng: Rng):
        self.W1, self.b1 = lecun_normal(rng, (C, D_C), fan_in=C), zeros(D_C)
        self.W2, self.b2 = lecun_normal(rng, (D_C, C), fan_in=D_C), zeros(C)
        self.gelu = check_form(gelu)

    def forward(self, x: Any) -> Tensor:
        return ops.ChannelMLP(self.gelu)(x, self.W1, self.b1, self.W2, self.b2)


def dropout(x: Tensor, rate: float, rng: Rng | None) -> Tensor:
    """x with single activations dropped at `rate`; x itself when evaluating."""
    return _dropped(x, rate, rng, x.shape)


def drop_path(x: Tensor, rate: float, rng: Rng | None) -> Tensor:
    """x (S, B, C), a residual branch, dropped for whole images at `rate`; x when evaluating."""
    return _dropped(x, rate, rng, (x.shape[-2], 1))


def _dropped(x: Tensor, rate: float, rng: Rng | None, mask_shape: tuple[int, ...]) -> Tensor:
    if rng is None or rate == 0:
        return x
    keep = rng.random(mask_shape, dtype=np.float32) >= rate
    return ops.Dropout(rate)(x, array_module(x.data).asarray(keep))
