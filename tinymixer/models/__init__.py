"""Floor 4. The models, one system a file, and the table of their configurations.

options.py   what an option of a system may be
common.py    what the systems share
"""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from tinymixer import nn
from tinymixer.models import as_mlp, hire_mlp, mixer, raft_mlp, sparse_mlp, vip
from tinymixer.models.as_mlp import ASMLP
from tinymixer.models.hire_mlp import HireMLP
from tinymixer.models.mixer import MLPMixer
from tinymixer.models.options import check, kinds_of, shown
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


MOST_PARAMETERS = 2**32  # the largest model here has a tenth of that


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
    if isinstance(rng, nn.Zeros):  # it has its own bound
        return system(**options, rng=rng)
    counted = nn.Zeros(MOST_PARAMETERS, MOST_PARAMETERS)
    try:
        system(**options, rng=counted)
    except (ValueError, MemoryError) as error:
        if counted.numbers >= 0 and isinstance(error, ValueError):
            raise
        raise ValueError(
            f"{name}: a model of more than {MOST_PARAMETERS:,} parameters, or of more than the "
            f"memory holds; choose smaller sizes than {shown(changes)}"
        ) from None
    return system(**options, rng=np.random.default_rng(0) if rng is None else rng)


def options_of(name: str, num_classes: int | None = None, **changes: Any) -> dict[str, Any]:
    """All that `create_model` builds `name` of: its configuration, `changes` and defaults.

    Raises ValueError for a name or an option that does not exist, and for values out of range.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; the models are {', '.join(MODELS)}")
    system, configured = MODELS[name]
    known = {option: p for option, p in signature(system).parameters.items() if option != "rng"}
    if unknown := [option for option in changes if option not in known]:
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(known)}")
    defaults = {option: p.default for option, p in known.items() if p.default is not p.empty}
    options = defaults | configured | changes
    if num_classes is not None:
        options["num_classes"] = num_classes
    check(system.__name__, kinds_of(system), options)
    return options
