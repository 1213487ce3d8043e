"""Weights laid out as the authors' code lays them out: read, they give the published logits.

Each list names the tensors of a released model in its order, so that number k of the list is
tensor k of the formula. That proves names, layouts and the models themselves at once.
"""

import numpy as np
import published
import pytest
import test_as_mlp
import test_hire_mlp
import test_mixer
import test_raft_mlp
import test_vip
from checks import assert_close

from tinymixer import nn
from tinymixer.models import ASMLP, HireMLP, MLPMixer, RaftMLP, VisionPermutator, create_model
from tinymixer.weights import load_state, state_in


def both(*layers):
    return [f"{layer}.{array}" for layer in layers for array in ("weight", "bias")]


def mixer_official():
    def both(*layers, weight="kernel"):
        return [f"{layer}/{array}" for layer in layers for array in (weight, "bias")]

    names = both("stem")
    for i in range(2):
        block = f"MixerBlock_{i}/"
        names += both(block + "LayerNorm_0", weight="scale")
        names += both(block + "token_mixing/Dense_0", block + "token_mixing/Dense_1")
        names += both(block + "LayerNorm_1", weight="scale")
        names += both(block + "channel_mixing/Dense_0", block + "channel_mixing/Dense_1")
    return names + both("pre_head_layer_norm", weight="scale") + both("head")


def mixer_timm():
    names = both("stem.proj")
    for i in range(2):
        layers = ("norm1", "mlp_tokens.fc1", "mlp_tokens.fc2", "norm2")
        layers += ("mlp_channels.fc1", "mlp_channels.fc2")
        names += both(*(f"blocks.{i}.{layer}" for layer in layers))
    return names + both("norm", "head")


def as_mlp():
    names = both("patch_embed.proj", "patch_embed.norm")
    for i in range(4):
        block, shift = f"layers.{i}.blocks.0.", f"layers.{i}.blocks.0.axial_shift."
        names += both(block + "norm1")
        names += both(*(shift + n for n in ("conv1", "conv2_1", "conv2_2", "conv3")))
        names += both(shift + "norm1", shift + "norm2", block + "norm2")
        names += both(block + "mlp.fc1", block + "mlp.fc2")
        if i < 3:
            merge = f"layers.{i}.downsample."
            names += [merge + "reduction.weight", *both(merge + "norm")]
    return names + both("norm", "head")


def hire_mlp():
    names = both("patch_embed.proj", "patch_embed.norm")
    for i, depth in enumerate((2, 2, 3, 2)):
        for j in range(depth):
            block, attn = f"network.{2 * i}.{j}.", f"network.{2 * i}.{j}.attn."
            names += both(block + "norm1")
            for side in "hw":
                names += [f"{attn}mlp_{side}1.weight"]
                names += both(f"{attn}mlp_{side}1_norm", f"{attn}mlp_{side}2")
            names += both(*(attn + n for n in ("mlp_c", "reweight.fc1", "reweight.fc2", "proj")))
            names += both(block + "norm2", block + "mlp.fc1", block + "mlp.fc2")
        if i < 3:
            names += both(f"network.{2 * i + 1}.proj", f"network.{2 * i + 1}.norm")
    return names + both("norm", "head")


def vip():
    names = both("patch_embed.proj")
    for block in ("network.0.0.", "network.2.0.", "network.2.1."):
        if block == "network.2.0.":
            names += both("network.1.proj")
        names += both(block + "norm1")
        names += [f"{block}attn.mlp_{side}.weight" for side in "chw"]
        names += both(*(block + f"attn.{n}" for n in ("reweight.fc1", "reweight.fc2", "proj")))
        names += both(*(block + n for n in ("norm2", "mlp.fc1", "mlp.fc2")))
    return names + both("norm", "head")


def raft_mlp():
    names = []
    for i, depth in enumerate((1, 2)):
        names += both(f"levels.{i}.fn.0.fc")
        for j in range(depth):
            block = f"levels.{i}.fn.{2 + j}."
            for axis in "13":
                names += both(*(f"{block}{axis}.{n}" for n in ("norm.1", "fn.0", "fn.3")))
            names += both(*(f"{block}5.{n}" for n in ("norm", "fn.0", "fn.3")))
    return names + both("heads.0.1", "classifier")


def of_mixer(variant):
    variant = test_mixer.VARIANTS[variant]
    return MLPMixer, test_mixer.TINY | variant["options"], variant["logits"]


RELEASED = {  # names, layout, the model, and its logits
    "Mixer, timm": (mixer_timm, "timm", *of_mixer("erf, eps 1e-6")),
    "AS-MLP": (as_mlp, "official", ASMLP, test_as_mlp.TINY, test_as_mlp.EXPECTED["logits"]),
    "Hire-MLP": (
        hire_mlp,
        "official",
        HireMLP,
        test_hire_mlp.TINY,
        test_hire_mlp.PUBLISHED["evaluation"]["logits"],
    ),
    "ViP": (vip, "official", VisionPermutator, test_vip.TINY, test_vip.LOGITS),
    "RaftMLP": (raft_mlp, "official", RaftMLP, test_raft_mlp.TINY, test_raft_mlp.LOGITS[16]),
}
PRINTED = 1e-10  # the last of the digits that the published logits are given with


def laid_out(names, model, layout):
    """Tensor k of the formula under name k of the list, and the buffers as they are."""
    shapes = {name: array.shape for name, array in state_in(model, layout).items()}
    arrays = {k: a for k, a in state_in(model, layout).items() if "running" in k or "num_b" in k}
    scales = {
        name for name in names if len(shapes[name]) == 1 and name.endswith(("weight", "scale"))
    }
    for k, name in enumerate(names):
        kind = "gamma" if name in scales else name
        arrays[name] = published.weights(k, kind, shapes[name])
    return arrays


@pytest.mark.parametrize(
    ("names", "layout", "system", "options", "logits"), RELEASED.values(), ids=RELEASED
)
def test_released_weights_give_the_published_logits(names, layout, system, options, logits):
    model = system(**options, rng=np.random.default_rng(0)).astype(np.float64)
    load_state(model, laid_out(names(), model, layout), layout)
    side = options["image_size"]
    images = published.images(len(logits), side, side, 3)
    assert_close(model(images).data, np.array(logits), within=PRINTED)


def test_the_two_layouts_of_mixer_hold_the_same():
    """The official one is (in, out), and (row, column, colour) within a patch."""
    model = test_mixer.published_model(np)
    official, timm = state_in(model, "official"), state_in(model, "timm")
    assert list(official) == mixer_official()
    for ours, theirs in zip(mixer_official(), mixer_timm(), strict=True):
        axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[official[ours].ndim]
        np.testing.assert_array_equal(official[ours].transpose(axes), timm[theirs])


MORE = {  # counts of arrays: 4 + 12 * 12 + 2, and what else the published models have
    "mixer_b16": 150,
    "as_mlp_t": 4 + 12 * 20 + 3 * 3 + 4,
    "hire_mlp_tiny": 4 + 10 * 26 + 3 * 4 + 4 + 3 * (1 + 10 * 4 + 3 + 1),
    "vip_s7": 2 + 18 * 17 + 2 + 4,
    "raft_mlp_s": 4 * 2 + 12 * 18 + 4,
    "raft_mlp_m_plain": 4 * 2 + 12 * 18 + 4,
}


@pytest.mark.parametrize("name", MORE)
def test_a_published_model_has_as_many_arrays_as_released(name):
    assert len(state_in(create_model(name, rng=nn.BLANK), "official")) == MORE[name]
