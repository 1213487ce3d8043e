"""The arrays of every released model, by name and shape, as its authors' code makes them.

The tables here are written from the released code: which layer is a linear map, which a 1 x 1
convolution, which has no bias. They know nothing of tinymixer, and they are right by themselves:
the sizes of their arrays add up to the published numbers of parameters. A layout of ours that
reads and writes one name or one axis differently fails.
"""

from math import prod

import numpy as np
import pytest

from tinymixer import nn
from tinymixer.models import create_model
from tinymixer.weights import load_state, shapes_in, state_in

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def linear(name, n, m, bias=True):
    """nn.Linear(n, m)."""
    return {f"{name}.weight": (m, n)} | ({f"{name}.bias": (m,)} if bias else {})


def conv(name, n, m, k=1, bias=True):
    """nn.Conv2d(n, m, k)."""
    return {f"{name}.weight": (m, n, k, k)} | ({f"{name}.bias": (m,)} if bias else {})


def norm(name, n):
    """nn.LayerNorm(n), and nn.GroupNorm(1, n), which has its numbers by channel too."""
    return {f"{name}.weight": (n,), f"{name}.bias": (n,)}


def batch_norm(name, n):
    """nn.BatchNorm2d(n)."""
    running = {f"{name}.running_mean": (n,), f"{name}.running_var": (n,)}
    return norm(name, n) | running | {f"{name}.num_batches_tracked": ()}


def mixer_timm(P, C, L, K=1000, side=224):
    S = (side // P) ** 2
    found = conv("stem.proj", 3, C, P)
    for i in range(L):
        b = f"blocks.{i}."
        found |= norm(b + "norm1", C)
        found |= linear(b + "mlp_tokens.fc1", S, C // 2) | linear(b + "mlp_tokens.fc2", C // 2, S)
        found |= norm(b + "norm2", C)
        found |= linear(b + "mlp_channels.fc1", C, 4 * C)
        found |= linear(b + "mlp_channels.fc2", 4 * C, C)
    return found | norm("norm", C) | linear("head", C, K)


def mixer_official(P, C, L, K=1000, side=224):
    """Flax: kernels are (in, out), a convolution's (row, column, in, out); "/" between names."""

    def dense(name, n, m):
        return {f"{name}/kernel": (n, m), f"{name}/bias": (m,)}

    def norm(name):
        return {f"{name}/scale": (C,), f"{name}/bias": (C,)}

    S = (side // P) ** 2
    found = {"stem/kernel": (P, P, 3, C), "stem/bias": (C,)}
    for i in range(L):
        b = f"MixerBlock_{i}/"
        found |= norm(b + "LayerNorm_0")
        found |= dense(b + "token_mixing/Dense_0", S, C // 2)
        found |= dense(b + "token_mixing/Dense_1", C // 2, S)
        found |= norm(b + "LayerNorm_1")
        found |= dense(b + "channel_mixing/Dense_0", C, 4 * C)
        found |= dense(b + "channel_mixing/Dense_1", 4 * C, C)
    return found | norm("pre_head_layer_norm") | dense("head", C, K)


def as_mlp(C, depths, K=1000):
    """All maps of a block are convolutions; only the head is linear."""
    found = conv("patch_embed.proj", 3, C, 4) | norm("patch_embed.norm", C)
    for i, depth in enumerate(depths):
        d = C * 2**i
        for j in range(depth):
            b = f"layers.{i}.blocks.{j}."
            found |= norm(b + "norm1", d)
            for name in ("conv1", "conv2_1", "conv2_2", "conv3"):
                found |= conv(f"{b}axial_shift.{name}", d, d)
            found |= norm(b + "axial_shift.norm1", d) | norm(b + "axial_shift.norm2", d)
            found |= norm(b + "norm2", d)
            found |= conv(b + "mlp.fc1", d, 4 * d) | conv(b + "mlp.fc2", 4 * d, d)
        if i < len(depths) - 1:
            found |= conv(f"layers.{i}.downsample.reduction", 4 * d, 2 * d, bias=False)
            found |= norm(f"layers.{i}.downsample.norm", 4 * d)
    return found | norm("norm", d) | linear("head", d, K)


def hire_mlp(dims, depths, K=1000):
    """All maps of a block are convolutions, those of `reweight` too; only the head is linear."""
    found = conv("patch_embed.proj", 3, dims[0], 7) | batch_norm("patch_embed.norm", dims[0])
    for i, (d, depth, p) in enumerate(zip(dims, depths, (4, 3, 3, 2), strict=True)):
        for j in range(depth):
            b, attn = f"network.{2 * i}.{j}.", f"network.{2 * i}.{j}.attn."
            found |= batch_norm(b + "norm1", d)
            for side in "hw":
                found |= conv(f"{attn}mlp_{side}1", d * p, d // 2, bias=False)
                found |= batch_norm(f"{attn}mlp_{side}1_norm", d // 2)
                found |= conv(f"{attn}mlp_{side}2", d // 2, d * p)
            found |= conv(attn + "mlp_c", d, d)
            found |= conv(attn + "reweight.fc1", d, d // 4)
            found |= conv(attn + "reweight.fc2", d // 4, 3 * d)
            found |= conv(attn + "proj", d, d)
            found |= batch_norm(b + "norm2", d)
            found |= conv(b + "mlp.fc1", d, 4 * d) | conv(b + "mlp.fc2", 4 * d, d)
        if i < len(dims) - 1:
            found |= conv(f"network.{2 * i + 1}.proj", d, dims[i + 1], 3)
            found |= batch_norm(f"network.{2 * i + 1}.norm", dims[i + 1])
    return found | batch_norm("norm", d) | linear("head", d, K)


def vip(P, dims, depths, halved_after=None, K=1000):
    """All maps of a block are linear layers, those of `reweight` too."""
    found, number = conv("patch_embed.proj", 3, dims[0], P), 0
    for i, (d, depth) in enumerate(zip(dims, depths, strict=True)):
        for j in range(depth):
            b, attn = f"network.{number}.{j}.", f"network.{number}.{j}.attn."
            found |= norm(b + "norm1", d)
            for side in "chw":
                found |= linear(f"{attn}mlp_{side}", d, d, bias=False)
            found |= linear(attn + "reweight.fc1", d, d // 4)
            found |= linear(attn + "reweight.fc2", d // 4, 3 * d)
            found |= linear(attn + "proj", d, d)
            found |= norm(b + "norm2", d)
            found |= linear(b + "mlp.fc1", d, 3 * d) | linear(b + "mlp.fc2", 3 * d, d)
        number += 1
        if i == halved_after:
            found |= conv(f"network.{number}.proj", d, dims[i + 1], 2)
            number += 1
    return found | norm("norm", d) | linear("head", d, K)


def raft_mlp(dims, depths, patches, r, kernels=None, K=1000, side=224):
    """The embedding is layer 0 of a level with several kernels, its layer 1 with plain patches."""
    found, d_in = {}, 3
    for i, (d, depth, P) in enumerate(zip(dims, depths, patches, strict=True)):
        level, side = f"levels.{i}.fn.", -(-side // P)
        if kernels is None:
            found |= linear(level + "1", d_in * P * P, d)
        else:
            found |= linear(level + "0.fc", d_in * sum(k * k for k in kernels[i]), d)
        for j in range(depth):
            b = f"{level}{2 + j}."
            for axis in "13":  # vertical and horizontal
                found |= norm(f"{b}{axis}.norm.1", d)
                found |= linear(f"{b}{axis}.fn.0", r * side, 2 * r * side)
                found |= linear(f"{b}{axis}.fn.3", 2 * r * side, r * side)
            found |= norm(b + "5.norm", d)
            found |= linear(b + "5.fn.0", d, 4 * d) | linear(b + "5.fn.3", 4 * d, d)
        d_in = d
    return found | norm("heads.0.1", d) | linear("classifier", d, K)


def pyramid(*dims, kernels=((4, 8), (2, 4), (2, 4), (2,))):
    return raft_mlp(dims, (2, 2, 6, 2), (4, 2, 2, 2), 2, kernels)


MIXERS = {  # name -> patch size, width, blocks, parameters for 1,000 classes
    "mixer_s32": (32, 512, 8, 19_104_624),
    "mixer_s16": (16, 512, 8, 18_528_264),
    "mixer_b32": (32, 768, 12, 60_293_428),
    "mixer_b16": (16, 768, 12, 59_880_472),
    "mixer_l32": (32, 1024, 24, 206_939_264),
    "mixer_l16": (16, 1024, 24, 208_196_168),
    "mixer_h14": (14, 1280, 32, 432_350_952),
}
PUBLISHED = {  # name, layout -> the released arrays, parameters for 1,000 classes
    **{(name, "official"): (mixer_official(*x), n) for name, (*x, n) in MIXERS.items()},
    **{(name, "timm"): (mixer_timm(*x), n) for name, (*x, n) in MIXERS.items()},
    ("as_mlp_t", "official"): (as_mlp(96, (2, 2, 6, 2)), 28_282_696),
    ("as_mlp_s", "official"): (as_mlp(96, (2, 2, 18, 2)), 49_594_696),
    ("as_mlp_b", "official"): (as_mlp(128, (2, 2, 18, 2)), 87_752_808),
    ("hire_mlp_tiny", "official"): (hire_mlp((64, 128, 320, 512), (2, 2, 4, 2)), 18_041_672),
    ("hire_mlp_small", "official"): (hire_mlp((64, 128, 320, 512), (3, 4, 10, 3)), 33_113_848),
    ("hire_mlp_base", "official"): (hire_mlp((64, 128, 320, 512), (4, 6, 24, 3)), 58_226_856),
    ("hire_mlp_large", "official"): (hire_mlp((96, 192, 384, 768), (4, 6, 24, 3)), 95_723_944),
    ("vip_s14", "official"): (vip(14, (384,) * 4, (4, 3, 8, 3)), 29_892_904),
    ("vip_s7", "official"): (vip(7, (192, 384, 384, 384), (4, 3, 8, 3), 0), 25_114_984),
    ("vip_m7", "official"): (vip(7, (256, 256, 512, 512), (4, 3, 14, 3), 1), 55_272_488),
    ("vip_l7", "official"): (vip(7, (256, 512, 512, 512), (8, 8, 16, 4), 0), 87_784_936),
    ("raft_mlp_s", "official"): (pyramid(64, 128, 256, 512), 9_868_768),
    ("raft_mlp_m", "official"): (pyramid(96, 192, 384, 768), 21_413_632),
    ("raft_mlp_l", "official"): (pyramid(128, 192, 512, 1024), 36_184_672),
    ("raft_mlp_m_plain", "official"): (pyramid(96, 192, 384, 768, kernels=None), 19_920_640),
    ("raft_mlp_12_r1", "official"): (raft_mlp((768,), (12,), (16,), 1), 58_105_432),
    ("raft_mlp_12_r2", "official"): (raft_mlp((768,), (12,), (16,), 2), 58_162_888),
    ("raft_mlp_12_r4", "official"): (raft_mlp((768,), (12,), (16,), 4), 58_390_696),
    ("raft_mlp_12_r2_k32", "official"): (
        raft_mlp((768,), (12,), (16,), 2, ((16, 32),)),
        60_522_184,
    ),
    ("raft_mlp_36_r2", "official"): (raft_mlp((384,), (36,), (16,), 2), 43_532_296),
}
published = pytest.mark.parametrize(
    ("name", "layout"), PUBLISHED, ids=[f"{name}, {layout}" for name, layout in PUBLISHED]
)


@published
def test_a_layout_has_the_released_names_and_shapes(name, layout):
    released, _ = PUBLISHED[name, layout]
    assert shapes_in(create_model(name, rng=nn.BLANK), layout) == released


@published
def test_the_released_arrays_hold_as_many_numbers_as_published(name, layout):
    released, parameters = PUBLISHED[name, layout]
    assert parameters == sum(
        prod(shape) for name, shape in released.items() if not name.endswith(BUFFERS)
    )


@pytest.mark.parametrize("name", ["hire_mlp_tiny", "raft_mlp_s"])
def test_released_arrays_load_and_are_written_as_released(name):
    """The whole way, with numbers, of two small ones."""
    released, _ = PUBLISHED[name, "official"]
    rng = np.random.default_rng(1)
    arrays = {
        key: np.asarray(rng.random(shape, dtype=np.float32) if shape else np.int64(3))
        for key, shape in released.items()
    }
    model = create_model(name)
    load_state(model, arrays, "official")
    written = state_in(model, "official")
    assert written.keys() == arrays.keys()
    for key, array in arrays.items():
        if array.ndim:
            np.testing.assert_array_equal(written[key], array)
