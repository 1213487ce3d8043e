"""Floor 4. The systems, one a file, and the register of their configurations."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from tinymixer import nn
from tinymixer.models import as_mlp, mixer
from tinymixer.models.as_mlp import ASMLP
from tinymixer.models.mixer import MLPMixer

# name -> (system, its options)
MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    **{name: (MLPMixer, options) for name, options in mixer.CONFIGS.items()},
    **{name: (ASMLP, options) for name, options in as_mlp.CONFIGS.items()},
}

__all__ = ["ASMLP", "MLPMixer", "create_model", "list_models"]


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

    Raises ValueError for a name or an option that does not exist.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; the models are {', '.join(MODELS)}")
    system, options = MODELS[name]
    known = [option for option in signature(system).parameters if option != "rng"]
    if unknown := [option for option in changes if option not in known]:
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(known)}")
    options = options | changes
    if num_classes is not None:
        options["num_classes"] = num_classes
    return system(**options, rng=np.random.default_rng(0) if rng is None else rng)
