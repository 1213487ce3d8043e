"""Floor 5. Pictures of how a training went and of what a model learned.

Each function takes NumPy arrays and returns a matplotlib Figure; `save` writes it. Only the
object interface of matplotlib is used: no window, no global state, safe in any thread.

images are (N, height, width, 3) uint8; labels and predictions (N,) are class numbers; probabilities
are (N, K). Accuracies are fractions, 0..1.
"""

from tinymixer.train.figures.charts import confusion, curves, profile, race
from tinymixer.train.figures.filters import patch_filters, token_maps
from tinymixer.train.figures.images import mistakes, prediction, predictions, sample_sheet, segments
from tinymixer.train.figures.rates import range_test
from tinymixer.train.figures.style import BLUE, GREY, INK, ORANGE, card, save

__all__ = [
    "BLUE",
    "GREY",
    "INK",
    "ORANGE",
    "card",
    "confusion",
    "curves",
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
