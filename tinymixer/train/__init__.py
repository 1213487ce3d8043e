"""Floor 5. Training: configuration, workers, checkpoints, metrics, figures.

Importing it turns on the fast twins of `tinymixer.fast`.
"""

from tinymixer import fast
from tinymixer.train.checkpoint import load_model
from tinymixer.train.config import Config
from tinymixer.train.trainer import Trainer

__all__ = ["Config", "Trainer", "fast", "load_model"]
