"""Floor 5. Pictures of how a training went and of what a model learned.

Each function takes NumPy arrays and returns a matplotlib Figure, which `save` writes, or an
Animation, which a notebook shows. Only the object interface of matplotlib is used: no window, no
global state, safe in any thread.

images are (N, height, width, 3) uint8; labels and predictions (N,) are class numbers; probabilities
are (N, K). Accuracies are fractions, 0..1.
"""

from tinymixer.train.figures.animation import Animation
from tinymixer.train.figures.batch import batch
from tinymixer.train.figures.charts import confusion, curves, profile, race
from tinymixer.train.figures.filters import growing_token_maps, patch_filters, token_maps
from tinymixer.train.figures.images import mistakes, prediction, predictions, sample_sheet, segments
from tinymixer.train.figures.layers import layers
from tinymixer.train.figures.rates import range_test
from tinymixer.train.figures.style import BLUE, GREY, INK, ORANGE, card, save

__all__ = [
    "BLUE",
    "GREY",
    "INK",
    "ORANGE",
    "Animation",
    "batch",
    "card",
    "confusion",
    "curves",
    "growing_token_maps",
    "layers",
    "mistakes",
    "patch_filters",
    "prediction",
    "predictions",
    "profile",
    "race",
    "range_test",
    "sample_sheet",
    "save",
    "segments",
    "token_maps",
]
