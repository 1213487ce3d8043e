"""Floor 3. Parameter, Module, and the layers that hold parameters.

A layer owns arrays and calls one Function on them; the mathematics is in `ops`. A model is called
as `model(images)` to evaluate it, and as `model(images, rng=rng)` to train it: with random numbers
to draw from, dropout drops and stochastic depth skips.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, array_module, device_constant, to_device
from tinymixer.engine import Tensor
from tinymixer.ops.gelu import check_form

Rng = np.random.Generator
_thread = threading.local()  # .asides: each thread's own

# In place of a generator: every weight is zero, in memory that costs nothing until it is written.
BLANK: Any = object()


class Parameter(Tensor):
    """A Tensor that a Module learns. Raises ValueError for one of no numbers."""

    __slots__ = ()

    def __init__(self, data: Array):
        super().__init__(data)
        if not self.size:
            raise ValueError(
                f"Parameter: {self.shape} holds no numbers; make the sizes and ratios of the model "
                "large enough for every width to be 1 or more"
            )


class Buffer:
    """An array that a Module keeps but does not learn, such as a running mean."""

    def __init__(self, data: Array):
        self.data = data


class Module:
    """Parameters, Buffers and Modules, as plain attributes and in lists, in order of definition."""

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        return self.forward(*inputs, **options)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter below, with its path: `blocks.0.token_mlp.W1`."""
        yield from ((path, x) for path, x in self._walk() if isinstance(x, Parameter))

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Parameter | Buffer]]:
        for name, value in vars(self).items():
            members = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, member in members:
                path = f"{prefix}{name}" if i is None else f"{prefix}{name}.{i}"
                if isinstance(member, Parameter | Buffer):
                    yield path, member
                elif isinstance(member, Module):
                    yield from member._walk(path + ".")

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def num_parameters(self) -> int:
        return sum(parameter.size for parameter in self.parameters())

    def state(self) -> dict[str, Array]:
        """The arrays of parameters and buffers by name: the arrays themselves, not copies."""
        return {path: x.data for path, x in self._walk()}

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Copy `arrays` into the parameters and buffers of the same names, in their precision.

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
        """This model with its parameters and buffers in another precision, in place."""
        for _, x in self._walk():
            x.data = x.data.astype(dtype)
        return self

    def to(self, device: str) -> "Module":
        """This model with its parameters and buffers on `device`, "cpu" or "gpu", in place."""
        for _, x in self._walk():
            x.data = to_device(x.data, device)
        return self


class Asides:
    """What a training pass yields beside its output.

    `losses` are scalars to add to the loss. `updates` are functions, each with the arrays that it
    is to be given once the step is done: where several threads share a model, in the order of their
    micro-batches, so that nothing depends on which thread was faster.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.updates: list[tuple[Callable[..., None], tuple[Array, ...]]] = []


@contextmanager
def asides() -> Iterator[Asides]:
    """Within it, in this thread, training passes leave what they yield beside their output here."""
    before = getattr(_thread, "asides", None)
    _thread.asides = found = Asides()
    try:
        yield found
    finally:
        _thread.asides = before


def add_loss(loss: Tensor) -> None:
    """Ask for a scalar to be added to the loss: heard within `asides`, else forgotten."""
    if found := getattr(_thread, "asides", None):
        found.losses.append(loss)


def after_step(update: Callable[..., None], *arrays: Array) -> None:
    """Ask for update(*arrays) after the step: by whoever opened `asides`, else now.

    What it takes of this pass are these arrays, and nothing else: a pass that is replayed computes
    them again, but asks only once.
    """
    if found := getattr(_thread, "asides", None):
        found.updates.append((update, arrays))
    else:
        update(*arrays)


# Initialisers: (rng, shape, fan_in) -> Parameter


Init = Callable[[Rng, tuple[int, ...], int], Parameter]


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


def fan_in_uniform(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    """Uniform in ±1/√fan_in, for weights and for biases: variance 1/(3 fan_in).

    Source: the default of the layers that most of Mixer's successors were published with (PyTorch).
    """
    if rng is BLANK:
        return zeros(*shape)
    return Parameter((2 * rng.random(shape, dtype=np.float32) - 1) * fan_in**-0.5)


def normal(std: float) -> Init:
    """N(0, std²), whatever the fan-in: the published codes' normal law of std 0.02, cut at ±2."""

    def init(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
        if rng is BLANK:
            return zeros(*shape)
        return Parameter(std * rng.standard_normal(shape, dtype=np.float32))

    return init


def zero(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    return zeros(*shape)


def zeros(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    return Parameter(np.ones(shape, np.float32))


class ChannelLinear(Module):
    """x (..., C)  ->  x W + b (..., D).  See ops.ChannelLinear. Without a bias: x W."""

    def __init__(
        self,
        C: int,
        D: int,
        *,
        bias: bool = True,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        self.W = init(rng, (C, D), C)
        self.b = bias_init(rng, (D,), C) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.ChannelLinear()(x, self.W, *([] if self.b is None else [self.b]))


class TokenLinear(Module):
    """x (S, B, C)  ->  W x + b (D, B, C).  See ops.TokenLinear."""

    def __init__(self, S: int, D: int, *, rng: Rng):
        self.W, self.b = lecun_normal(rng, (D, S), fan_in=S), zeros(D)

    def forward(self, x: Any) -> Tensor:
        return ops.TokenLinear()(x, self.W, self.b)


class LayerNorm(Module):
    """x (..., C)  ->  y (..., C).  See ops.LayerNorm."""

    def __init__(self, C: int, eps: float = 1e-6):
        self.gamma, self.beta = ones(C), zeros(C)
        self.eps = eps

    def forward(self, x: Any) -> Tensor:
        return ops.LayerNorm(self.eps)(x, self.gamma, self.beta)


class GroupNorm(Module):
    """x (H, W, B, C)  ->  y (H, W, B, C), with statistics of each image.  See ops.GroupNorm."""

    def __init__(self, C: int, eps: float = 1e-5):
        self.gamma, self.beta = ones(C), zeros(C)
        self.eps = eps

    def forward(self, x: Any) -> Tensor:
        return ops.GroupNorm(self.eps)(x, self.gamma, self.beta)


class BatchNorm(Module):
    """x (H, W, B, C)  ->  y (H, W, B, C), each channel normalised over images and positions.

    In training, with an rng, by the batch's own statistics (ops.BatchNorm), which also move the
    running ones: running <- (1 - momentum) running + momentum batch, the variance as the unbiased
    estimate n/(n - 1) σ². In evaluation by the running ones: y = γ (x - μ) / √(σ² + eps) + β.

    The batch is what one call sees: in training, a micro-batch.
    """

    def __init__(self, C: int, eps: float = 1e-5, momentum: float = 0.1):
        self.gamma, self.beta = ones(C), zeros(C)
        self.running_mean = Buffer(np.zeros(C, np.float32))
        self.running_var = Buffer(np.ones(C, np.float32))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Any, rng: Rng | None = None) -> Tensor:
        if rng is None:
            mean, variance = self.running_mean.data, self.running_var.data
            scale = self.gamma * (1 / array_module(variance).sqrt(variance + self.eps))
            return x * scale + (self.beta - scale * mean)
        op = ops.BatchNorm(self.eps)
        y = op(x, self.gamma, self.beta)
        mean, variance = (statistic.ravel() for statistic in op.statistics)
        n = y.size // len(mean)
        after_step(self._follow, mean, variance * (n / max(1, n - 1)))
        return y

    def _follow(self, mean: Array, variance: Array) -> None:
        for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
            running.data[...] = (1 - self.momentum) * running.data + self.momentum * batch


class UnfoldLinear(Module):
    """x (H, W, B, C)  ->  y (H', W', B, D): every window of the grid through one linear map.

    A convolution. With kernel = stride the windows tile the grid, as patches do. Raises ValueError
    for windows that are none.
    """

    def __init__(
        self,
        C: int,
        D: int,
        kernel: int,
        stride: int,
        padding: int = 0,
        *,
        bias: bool = True,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        if min(kernel, stride) < 1 or padding < 0:
            raise ValueError(
                f"UnfoldLinear: expected a kernel and a stride of 1 or more and a padding of 0 or "
                f"more, got {kernel}, {stride} and {padding}"
            )
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.linear = ChannelLinear(
            kernel**2 * C, D, bias=bias, init=init, bias_init=bias_init, rng=rng
        )

    def forward(self, x: Any) -> Tensor:
        windows = ops.Unfold(self.kernel, self.stride, self.padding)(x)
        return self.linear(windows if isinstance(x, Tensor) else windows.data)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of images whose size is a side or both."""
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    return int(height), int(width)


def grid(images: Any) -> Any:
    """images (B, H, W, 3)  ->  the same pixels as a grid (H, W, B, 3): positions lead.

    Raises ValueError for anything but a batch of images, TypeError for integer pixels.
    """
    ops.patch.check_images("grid", images)
    return images.transpose(1, 2, 0, 3)


def resize(x: Any, size: tuple[int, ...], matrix: Callable[[int, int], Array]) -> Any:
    """x (H, W, B, C)  ->  (*size, B, C), by `ops.resample.bilinear_matrix` or `bicubic_matrix`.

    x itself if it has that size already. A plain array stays one, and gets no gradient.
    """
    if x.shape[:2] == tuple(size):
        return x
    pixels = x.data if isinstance(x, Tensor) else x
    A_h, A_w = (_resizing(pixels, matrix, n, m) for n, m in zip(x.shape, size, strict=False))
    y = ops.Resample()(x, A_h, A_w)
    return y if isinstance(x, Tensor) else y.data


@device_constant
def _resizing(matrix: Callable[[int, int], np.ndarray], n_in: int, n_out: int) -> np.ndarray:
    return matrix(n_in, n_out)


class PatchEmbed(Module):
    """images (B, H*P, W*P, 3)  ->  x (S, B, C): each patch's pixels through one linear map.

    The same as a convolution whose kernel and stride are both P. Patches (S, B, P*P*3) that are
    cut already are welcome too.
    """

    def __init__(self, patch_size: int, C: int, *, rng: Rng):
        self.patch_size = patch_size
        self.linear = ChannelLinear(3 * patch_size**2, C, rng=rng)

    def forward(self, images: Any) -> Tensor:
        if images.ndim == 3 and images.shape[-1] == len(self.linear.W):
            return self.linear(images)  # patches already
        patches = ops.Patchify(self.patch_size)(images)
        # Plain images want no gradient, so neither do their patches: one product less in backward.
        return self.linear(patches if isinstance(images, Tensor) else patches.data)


class TokenMLP(Module):
    """x (S, B, C)  ->  y (S, B, C).  See ops.TokenMLP."""

    def __init__(
        self,
        S: int,
        D_S: int,
        *,
        gelu: str,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        self.W1, self.b1 = init(rng, (D_S, S), S), bias_init(rng, (D_S,), S)
        self.W2, self.b2 = init(rng, (S, D_S), D_S), bias_init(rng, (S,), D_S)
        self.gelu = check_form(gelu)

    def forward(self, x: Any) -> Tensor:
        return ops.TokenMLP(self.gelu)(x, self.W1, self.b1, self.W2, self.b2)


class ChannelMLP(Module):
    """x (..., C)  ->  y (..., C).  See ops.ChannelMLP."""

    def __init__(
        self,
        C: int,
        D_C: int,
        *,
        gelu: str,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        self.W1, self.b1 = init(rng, (C, D_C), C), bias_init(rng, (D_C,), C)
        self.W2, self.b2 = init(rng, (D_C, C), D_C), bias_init(rng, (C,), D_C)
        self.gelu = check_form(gelu)

    def forward(self, x: Any) -> Tensor:
        return ops.ChannelMLP(self.gelu)(x, self.W1, self.b1, self.W2, self.b2)


class SplitAttention(Module):
    """n branches, each (..., B, C)  ->  y (..., B, C), weighed for each image and channel.

    z = GELU(q W1 + b1) W2 + b2, where q (B, C) is the mean of the branches' sum over all positions;
    the two maps go C -> hidden_dim -> n*C.  See ops.SplitAttention.
    """

    def __init__(
        self,
        C: int,
        n: int,
        hidden_dim: int,
        *,
        gelu: str,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        self.linear_1 = ChannelLinear(C, hidden_dim, init=init, bias_init=bias_init, rng=rng)
        self.linear_2 = ChannelLinear(hidden_dim, n * C, init=init, bias_init=bias_init, rng=rng)
        self.gelu = check_form(gelu)

    def forward(self, *branches: Any) -> Tensor:
        positions = tuple(range(branches[0].ndim - 2))
        q = sum(x.mean(axis=positions) for x in branches)  # (B, C)
        z = self.linear_2(ops.GELU(self.gelu)(self.linear_1(q)))  # (B, n*C)
        return ops.SplitAttention()(z, *branches)


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
