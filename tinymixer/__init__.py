"""Vision MLPs from scratch, on NumPy and CuPy: clear, proven, fast."""

from tinymixer.engine import Function, Tensor, no_grad
from tinymixer.errors import TinymixerError
from tinymixer.models import create_model, list_models

__version__ = "0.1.0"

__all__ = ["Function", "Tensor", "TinymixerError", "create_model", "list_models", "no_grad"]
