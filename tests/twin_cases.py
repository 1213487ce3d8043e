"""What the twins are compared on: the options of what each stands for, and the shapes it is given.

Every option has a value here that is not its default: `tests/fast/test_table.py` sees to it.
"""

from inspect import signature

import numpy as np
from checks import channel_shapes, gelu_shapes, norm_shapes, token_shapes

from tinymixer import data, ops, optim
from tinymixer.data import draws
from tinymixer.ops.primitives import Add, MatMul


def soft_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (S, B, C)]


def token_linear_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (D_S, S), (D_S,)]


def channel_linear_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (C, D_C), (D_C,)]


def unbiased_shapes(S, B, C, D_S, D_C):
    return channel_linear_shapes(S, B, C, D_S, D_C)[:2]


def hard_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (S, B)]


def matrix_shapes(S, B, C, D_S, D_C):
    return [(S * B, C), (C, D_C)]


def same_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (S, B, C)]


def grid_norm_shapes(S, B, C, D_S, D_C):
    return [(S, D_S, B, C), (C,), (C,)]


def resample_shapes(S, B, C, D_S, D_C):
    return [(S, B, 2, C), (D_S, S), (D_C, B)]


FORMS = [("tanh",), ("erf",)]
EPSILONS = [(), (0.25,)]
ON_CPU = [  # reference, its options, the shapes of its inputs
    *((ops.GELU, form, gelu_shapes) for form in FORMS),
    *((ops.TokenMLP, form, token_shapes) for form in FORMS),
    *((ops.ChannelMLP, form, channel_shapes) for form in FORMS),
    *((ops.LayerNorm, eps, norm_shapes) for eps in EPSILONS),
    *((ops.GroupNorm, eps, grid_norm_shapes) for eps in EPSILONS),
    *((ops.BatchNorm, eps, grid_norm_shapes) for eps in EPSILONS),
]
ON_GPU = [
    *((ops.GELU, form, gelu_shapes) for form in FORMS),
    *((ops.TokenMLP, form, token_shapes) for form in FORMS),
    *((ops.ChannelMLP, form, channel_shapes) for form in FORMS),
    (ops.TokenLinear, (), token_linear_shapes),
    (ops.ChannelLinear, (), channel_linear_shapes),
    (ops.ChannelLinear, (), unbiased_shapes),
    *((ops.LayerNorm, eps, norm_shapes) for eps in EPSILONS),
    *((ops.GroupNorm, eps, grid_norm_shapes) for eps in EPSILONS),
    *((ops.BatchNorm, eps, grid_norm_shapes) for eps in EPSILONS),
    (Add, (), same_shapes),
    *((ops.SoftmaxCrossEntropy, (alpha,), soft_shapes) for alpha in (0.0, 0.1)),
    *((ops.SoftmaxCrossEntropy, (alpha,), hard_shapes) for alpha in (0.0, 0.1)),
    (ops.SoftmaxCrossEntropy, (0.1, 0), hard_shapes),  # class 0 is ignored,
    (ops.SoftmaxCrossEntropy, (0.1, 0), soft_shapes),  # of which probabilities know nothing
    (MatMul, (), matrix_shapes),
    (ops.Resample, (), resample_shapes),
]

# Not Functions: the options that each is compared with, in tests/fast/gpu.
ADAMW = [{}, {"betas": (0.5, 0.75)}, {"eps": 0.1}, {"weight_decay": 0.3}]
HOLES = {"cutout": 4, "random_erasing": 0.5}
AUGMENTS = [
    *(
        data.Augment(crop_padding=margin, padding=padding, flip=flip)
        for margin in (0, 3, 6)
        for padding in ("reflect", "zero")
        for flip in ("none", "random", "alternating")
    ),
    data.Augment(crop_padding=2, flip="random", **HOLES),
    data.Augment(auto_augment="cifar10"),
    data.Augment(crop_padding=2, flip="random", auto_augment="cifar10", **HOLES, mixup=0.4),
    data.Augment(crop_padding=2, padding="zero", flip="alternating", **HOLES, mixup=0.4, cutmix=1),
    data.Augment(mixup=0.4, cutmix=1, mix_probability=0.5),
]
PLAIN = {
    optim.AdamW: ADAMW,
    optim.gather: [{}],
    data.Augment: [vars(augment) for augment in AUGMENTS],
    draws.rng_key: [{}],
    draws.generator_from: [{}],
}


def inputs_of(reference, shapes, sizes, dtype=np.float32):
    """Standard normal inputs, weights scaled by their fan-in, and a cotangent of y."""
    rng = np.random.default_rng(sizes)
    x, *others = [rng.standard_normal(shape).astype(dtype) for shape in shapes(*sizes)]
    S, B, _, D_S, D_C = sizes
    of_y = {
        ops.TokenLinear: (D_S, *x.shape[1:]),
        ops.ChannelLinear: (S, B, D_C),
        MatMul: (S * B, D_C),
        ops.Resample: (D_S, D_C, *x.shape[2:]),
    }
    dy = rng.standard_normal(of_y.get(reference, x.shape)).astype(dtype)
    if reference is ops.SoftmaxCrossEntropy:
        K, dy = x.shape[-1], np.asarray(rng.standard_normal(), dtype)
        q = np.abs(others[0])
        soft = shapes is soft_shapes
        others = [q / q.sum(-1, keepdims=True) if soft else rng.integers(0, K, x.shape[:-1])]
    else:
        mixes_tokens = reference in (ops.TokenLinear, ops.TokenMLP, ops.Resample)
        for a in others:
            a /= np.sqrt(a.shape[-1] if mixes_tokens else len(a)).astype(dtype)
    return [x, *others], dy


def run(code, op, arrays, dy):
    """y and the gradients that an implementation gives for a node, as a list.

    The node is always the Function's own, as on a tape.
    """
    y = code.forward(op, *arrays)
    gradients = code.backward(op, dy)
    return [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]


def truth(reference, options, arrays, dy):
    """The same by the reference in float64."""
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    return run(reference, reference(*options), wide, dy.astype(np.float64))


def options_of(reference):
    """The names and the defaults of what may be left out of a call of it."""
    parameters = signature(reference).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def ignoring(twin, reference, option):
    """The twin, but as if that option had not been given."""
    default = options_of(reference)[option]
    attribute = {"gelu": "form"}.get(option, option)

    class Ignores:
        @staticmethod
        def forward(op, *arrays):
            setattr(op, attribute, default)
            return twin.forward(op, *arrays)

        @staticmethod
        def backward(op, dy):
            return twin.backward(op, dy)

    return Ignores


def options_in(cases):
    """(reference, option) of every option of the Functions in cases."""
    functions = dict.fromkeys(reference for reference, _, _ in cases)
    return [(f, option) for f in functions for option in options_of(f)]
