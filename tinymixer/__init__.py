"""Vision MLPs from scratch, on NumPy and CuPy: clear, proven, fast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinymixer.processors import threads_start as _threads_start

if TYPE_CHECKING:
    from tinymixer.engine import Function, Tensor, no_grad
    from tinymixer.errors import TinymixerError
    from tinymixer.models import create_model, list_models

if not _threads_start():  # each bar would start one, to watch over it
    from tqdm import tqdm as _tqdm

    _tqdm.monitor_interval = 0

__version__ = "0.1.0"

__all__ = ["Function", "Tensor", "TinymixerError", "create_model", "list_models", "no_grad"]

# `import tinymixer` alone imports no NumPy: a name is imported from its module on first use.
_HOMES = {
    "Function": "engine",
    "Tensor": "engine",
    "TinymixerError": "errors",
    "create_model": "models",
    "list_models": "models",
    "no_grad": "engine",
}
_MODULES = ("backend", "engine", "errors", "models", "nn", "ops")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"tinymixer.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"tinymixer.{name}")
    raise AttributeError(f"module 'tinymixer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
