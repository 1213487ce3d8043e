"""Floor 4. The systems, one a file, and the register of their configurations."""

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np

from tinymixer import nn
from tinymixer.models import as_mlp, hire_mlp, mixer, raft_mlp, sparse_mlp, vip
from tinymixer.models.as_mlp import ASMLP
from tinymixer.models.hire_mlp import HireMLP
from tinymixer.models.mixer import MLPMixer
from tinymixer.models.raft_mlp import RaftMLP
from tinymixer.models.sparse_mlp import SparseMLP
from tinymixer.models.vip import VisionPermutator

# name -> (system, its options)
MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    **{name: (MLPMixer, options) for name, options in mixer.CONFIGS.items()},
    **{name: (ASMLP, options) for name, options in as_mlp.CONFIGS.items()},
    **{name: (HireMLP, options) for name, options in hire_mlp.CONFIGS.items()},
    **{name: (VisionPermutator, options) for name, options in vip.CONFIGS.items()},
    **{name: (SparseMLP, options) for name, options in sparse_mlp.CONFIGS.items()},
    **{name: (RaftMLP, options) for name, options in raft_mlp.CONFIGS.items()},
}

__all__ = [
    "ASMLP",
    "HireMLP",
    "MLPMixer",
    "RaftMLP",
    "SparseMLP",
    "VisionPermutator",
    "create_model",
    "list_models",
    "options_of",
]


def _is_size(x: Any) -> bool:
    return isinstance(x, int | np.integer) and int(x) >= 1


def _are_sizes(x: Any) -> bool:
    return isinstance(x, Sequence) and all(map(_is_size, x))


# What the options of any system have to be: which, said in words, and as a test of their values.
KINDS: list[tuple[set[str], str, Callable[[Any], bool]]] = [
    (
        {
            *("patch_size", "hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim"),
            *("sparse_tokens", "token_experts", "token_top_k", "token_expert_dim"),
            *("sparse_dim", "channel_experts", "channel_top_k", "channel_expert_dim"),
            "num_classes",
        },
        "a whole number of 1 or more",
        _is_size,
    ),
    (
        {"dims", "depths", "patch_sizes", "pixels", "strides", "raft_sizes"},
        "a whole number of 1 or more for each stage",
        _are_sizes,
    ),
    (
        {"image_size"},
        "a side or (height, width), in whole pixels of 1 or more",
        lambda x: _is_size(x) or (_are_sizes(x) and len(x) == 2),
    ),
    (
        {
            *("mlp_ratio", "tokens_mlp_ratio", "channels_mlp_ratio", "region_ratio"),
            *("attention_ratio", "eps"),
        },
        "a number above 0",
        lambda x: isinstance(x, int | float) and 0 < x < math.inf,
    ),
    (
        {"init_std"},
        "a number above 0, or None",
        lambda x: x is None or (isinstance(x, int | float) and 0 < x < math.inf),
    ),
    (
        {"dropout", "drop_path_rate"},
        "a number in [0, 1)",
        lambda x: isinstance(x, int | float) and 0 <= x < 1,
    ),
    (
        {"momentum"},
        "a number from 0 to 1",
        lambda x: isinstance(x, int | float) and 0 <= x <= 1,
    ),
    (
        {"loss_weight"},
        "a number of 0 or more",
        lambda x: isinstance(x, int | float) and 0 <= x < math.inf,
    ),
]


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(MODELS)


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    rng: np.random.Generator | None = None,
    **changes: Any,
) -> nn.Module:
    """The model `name`, freshly initialised from `rng` (default_rng(0) if none is given).

    num_classes and `changes` replace what the configuration says:
    `create_model("mixer_nano", num_classes=100, gelu="erf")`.

    Raises ValueError for a name or an option that does not exist, and for options out of range.
    """
    options = options_of(name, num_classes, **changes)
    system, _ = MODELS[name]
    return system(**options, rng=np.random.default_rng(0) if rng is None else rng)


def options_of(name: str, num_classes: int | None = None, **changes: Any) -> dict[str, Any]:
    """All that `create_model` builds `name` of, what is not changed and the defaults included.

    Raises ValueError for a name or an option that does not exist, and for numbers out of range.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; the models are {', '.join(MODELS)}")
    system, options = MODELS[name]
    known = {option: p for option, p in signature(system).parameters.items() if option != "rng"}
    if unknown := [option for option in changes if option not in known]:
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(known)}")
    defaults = {option: p.default for option, p in known.items() if p.default is not p.empty}
    options = defaults | options | changes
    if num_classes is not None:
        options["num_classes"] = num_classes
    for names, kind, fits in KINDS:
        for option, value in options.items():
            if option in names and not fits(value):
                raise ValueError(f"{system.__name__}: {option}={value!r}: expected {kind}")
    return options
