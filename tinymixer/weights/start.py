"""Start from weights that fit a model in part: keep what fits, resize what mixes positions, and
initialise the rest.

A file that was made for other classes, another image size, patch or number of colours still knows
most of what a model needs. What becomes of each array is decided by its role:

head                 another number of classes: is initialised
patch embedding      from k x k pixels to others as if the patch were resized first; from three
                     colours to grey and back so that a grey image is seen as before
maps of the tokens   (Mixer, Sparse-MLP) as if the grid were resized to the old one before the map,
                     and back after it
anything else        fits or is new

The other systems hold nothing else that knows the size of the grid (AS-MLP, Hire-MLP), resize the
grid themselves (RaftMLP), or tie segments of channels to places (ViP): these keep the image size.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.errors import CheckpointError, counted
from tinymixer.models import VisionPermutator, create_model
from tinymixer.models.mixer import Isotropic
from tinymixer.models.segmentation import Segmenter
from tinymixer.nn import BLANK, Module
from tinymixer.ops.resample import bilinear_matrix
from tinymixer.weights.fitting import finite, pieces, some, their_shape
from tinymixer.weights.layouts import Places, correspondence, find_layout
from tinymixer.weights.source import Weights, read_weights

ENOUGH = 0.5  # of the numbers of a backbone: with fewer, what was learned is lost in what is new

# In an isotropic model, the maps of the tokens, and which axis of each counts them.
TOKENS = re.compile(
    r"blocks\.\d+\.(?:(?P<into>token_mlp\.W1|enter\.linear1\.W)"
    r"|(?P<out_of>token_mlp\.(?:W2|b2)|leave\.linear2\.[Wb]))"
)
RAFTS = re.compile(r"(vertical|horizontal)_mlp\.")  # RaftMLP's, as wide as its own grid
# What sees pixels: its rows are (row, column, colour) of a window.
WINDOWS = re.compile(
    r"(patch_embed|stages\.0\.reduction\.convolution|stages\.0\.embed|levels\.0\.embed\.scales\.\d+)"
    r"\.linear\.W"
)


@dataclass(frozen=True)
class Started:
    """What became of each array of the model, by its name; `ignored` are names of the source."""

    kept: tuple[str, ...]
    new: tuple[str, ...]
    resized: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"{counted(len(self.kept), 'array')} kept"]
        for what in ("resized", "new", "ignored"):
            if names := getattr(self, what):
                words.append(f"{what}: {some(names)}")
        return "; ".join(words)


def start_from(
    model: Any,
    source: Weights | Mapping[str, Any] | Path | str,
    layout: str = "auto",
    *,
    keep_head: bool = True,
) -> Started:
    """Give `model` the weights in `source` as far as they fit, and say what became of each array.

    source and layout are those of `load_state`. Weights of a classifier fit the backbone of a
    Segmenter. Without `keep_head` the head is initialised even if it fits: its classes are others.

    Raises CheckpointError, and changes nothing, if less than half of the backbone's numbers are
    found, if some are not finite, or if an array knows the image size and cannot be resized.
    """
    if not isinstance(source, Weights):
        with read_weights(source) as weights:
            return start_from(model, weights, layout, keep_head=keep_head)
    inside = isinstance(model, Segmenter) and not any(x.startswith("backbone.") for x in source)
    part, prefix = (model.backbone, "backbone.") if inside else (model, "")
    require_same_places(part, source)
    if layout == "auto":
        layout = find_layout(part, source)
    places = {
        name: found
        for name, found in correspondence(part, layout).items()
        if name in source and (keep_head or not is_head(found[0][0]))
    }
    source.require_read(places)
    state, arrays, said = part.state(), dict[str, np.ndarray](), _said_model(source)
    resized, unfit = [], []
    for name, place in places.items():
        fits = source[name].shape == their_shape(place)
        if fits and _same_grid(part, said, layout, place):
            arrays |= pieces(_read(source, name, state[place[0][0]].dtype), place, state)
        elif (array := _resized(part, source, said, layout, name, place)) is not None:
            arrays[place[0][0]] = array
            resized.append(place[0][0])
        else:
            unfit.append(name)
    heads = [name for name in state if is_head(name)]
    if not all(name in arrays for name in heads):  # of other classes, or of other features
        arrays = {name: array for name, array in arrays.items() if name not in heads}
    _require_enough(part, source, layout, arrays, [(name, places[name]) for name in unfit])
    part.load_state(state | arrays)
    return Started(
        kept=tuple(prefix + name for name in arrays if name not in resized),
        new=tuple(name for name in model.state() if name.removeprefix(prefix) not in arrays),
        resized=tuple(prefix + name for name in resized),
        ignored=tuple(
            name for name in source if not any(ours in arrays for ours, _ in places.get(name, ()))
        ),
    )


def require_same_places(model: Any, source: Weights, name: str | None = None) -> None:
    """Raise CheckpointError for a grid that the weights of a Vision Permutator are not made for.

    They have the same shapes on every grid. Which one they are for, their file says, or else the
    configuration `name`.
    """
    then = _said_model(source, name) if isinstance(model, VisionPermutator) else None
    if isinstance(then, VisionPermutator) and _places(then) != _places(model):
        raise CheckpointError(
            f"{source.name}: a Vision Permutator cuts its channels into a segment for each place "
            f"of its grid, so these weights are for one image size: keep image_size="
            f"{','.join(map(str, then.image_size))} and patch_sizes="
            f"{','.join(map(str, _places(then)[1]))}, and resize the images"
        )


def _said_model(source: Weights, name: str | None = None) -> Any:
    """The model that the file says it is of, or the configuration `name`, without weights."""
    name, options = source.record.get("model", name), source.record.get("model_options", {})
    return None if name is None else create_model(name, rng=BLANK, **options)


def _places(model: VisionPermutator) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Image size and patch sizes."""
    embeds = (stage.embed for stage in model.stages)
    return model.image_size, tuple(1 if x is None else x.kernel for x in embeds)


def is_head(name: str) -> bool:
    """Whether the array of ours is one of the head, which knows the classes."""
    return name.startswith("head.")


def _read(source: Weights, name: str, dtype: np.dtype) -> np.ndarray:
    array = source[name].read()
    if not finite(array, dtype):
        raise CheckpointError(
            f"{source.name}: {name} {array.dtype} holds what is not a finite number in {dtype}; "
            "these weights are damaged, or of a training that failed. Take others"
        )
    return array


def _require_enough(
    model: Module,
    source: Weights,
    layout: str,
    arrays: Mapping[str, np.ndarray],
    unfit: list[tuple[str, Places]],
) -> None:
    """Raise CheckpointError unless what is found is a backbone to start from."""
    system = type(model).__name__
    misfits = [f"{name} {source[name].shape}, here {their_shape(x)}" for name, x in unfit]
    if any(RAFTS.search(place[0][0]) for _, place in unfit):
        raise CheckpointError(
            f"{source.name} was made for another grid: {some(misfits)}. {system} resizes images of "
            "any size to its own grid: give it the image_size of the weights, with --set"
        )
    sizes = {name: x.size for name, x in model.state().items() if not is_head(name)}
    share = sum(sizes.get(name, 0) for name in arrays) / sum(sizes.values())
    if share < ENOUGH:
        missing = [name for name in sizes if name not in arrays]
        raise CheckpointError(
            f"{source.name} holds {share:.0%} of what {system} needs in the layout {layout!r}. "
            f"Fits: {some(list(arrays)) or 'nothing'}. Is missing: {some(missing)}. "
            f"Has other sizes: {some(misfits) or 'nothing'}. It holds: {some(list(source))}. "
            "Choose the --model, and with --set the options, that the weights were made with"
        )


# Resizing -----------------------------------------------------------------------------------------


def _resized(
    model: Any, source: Weights, said: Any, layout: str, name: str, place: Places
) -> np.ndarray | None:
    """Our array from one of another grid, window or number of colours; None where it is neither."""
    (ours, view), *others = place
    shape, found = model.state()[ours].shape, source[name].shape
    tokens, window = TOKENS.fullmatch(ours), WINDOWS.fullmatch(ours)
    simple = not others and view.split == view.theirs and len(found) == len(view.theirs)
    if not simple or not (window or (tokens and isinstance(model, Isotropic))):
        return None
    theirs = tuple(found[axis] for axis in view.order)
    colours = source.record.get("model_options", {}).get("channels")
    if len(theirs) > len(shape):  # the weights of a convolution say it themselves
        colours, theirs = theirs[-2], (math.prod(theirs[:-1]), theirs[-1])
    axis = len(shape) - 1 if tokens and tokens["into"] else 0
    if len(theirs) != len(shape) or any(
        theirs[i] != shape[i] for i in range(len(shape)) if i != axis
    ):
        return None
    old: Any
    if window:
        old, new = _window(theirs[0], colours), _window(shape[0], model.channels)
        if old and new and old[1] != new[1] and {old[1], new[1]} != {1, 3}:
            return None
    else:
        new = _grid(model)
        old = _grid_of(said, layout, theirs[axis], new)
    if old is None or new is None:
        return None
    array = _read(source, name, model.state()[ours].dtype).transpose(view.order).reshape(theirs)
    if window:
        return _seen_resized(array, old, new)
    if axis:
        return array @ resizing(new, old)  # resize the tokens to the old grid, then mix
    return np.tensordot(resizing(old, new), array, 1)  # mix, then resize to the new grid


def _grid(model: Any) -> tuple[int, int]:
    height, width = model.image_size
    P = model.patch_embed.patch_size
    return height // P, width // P


def _grid_of(said: Any, layout: str, tokens: int, like: tuple[int, int]) -> tuple[int, int] | None:
    """The grid of so many tokens that the weights are for; None if there is none.

    That of the model which their file says; of released weights a square one; of others one with
    the proportions of `like`.
    """
    if isinstance(said, Isotropic):
        grid = _grid(said)
        return grid if math.prod(grid) == tokens else None
    if layout != "tinymixer" and math.isqrt(tokens) ** 2 == tokens:
        return (math.isqrt(tokens),) * 2
    H, W = like
    rows = round(math.sqrt(tokens * H / W))
    return (rows, tokens // rows) if rows and rows * rows * W == tokens * H else None


def _same_grid(model: Any, said: Any, layout: str, place: Places) -> bool:
    """Whether an array of the right shape, if it maps tokens, is for the model's grid too."""
    if not isinstance(model, Isotropic) or not TOKENS.fullmatch(place[0][0]):
        return True
    grid = _grid(model)
    return _grid_of(said, layout, math.prod(grid), grid) == grid


def _window(rows: int, colours: int | None) -> tuple[int, int] | None:
    """(k, colours) of a window of k x k pixels; where the colours are unknown, of three or one."""
    for n in (colours,) if colours else (3, 1):  # n and 3n are never both square numbers
        k = math.isqrt(rows // n)
        if k * k * n == rows:
            return k, n
    return None


def _seen_resized(W: np.ndarray, old: Any, new: Any) -> np.ndarray:
    """W (k k colours, C) for windows of other sizes or colours: it sees them resized to the old."""
    (k, colours), (n, new_colours) = old, new
    W = W.reshape(k * k, colours, -1)
    W = np.tensordot(resizing((n, n), (k, k)).T, W, 1)  # (n n, colours, C)
    if new_colours < colours:  # grey is three equal colours
        W = W.sum(1, keepdims=True)
    elif new_colours > colours:
        W = np.repeat(W / new_colours, new_colours, 1)
    return W.reshape(n * n * new_colours, -1)


def resizing(old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """(n, m): each of the n places of the grid `new` as a mean over the m of the grid `old`."""
    rows, columns = (_line(a, b) for a, b in zip(old, new, strict=True))
    return np.kron(rows, columns)


def _line(n_in: int, n_out: int) -> np.ndarray:
    """Larger: on the straight line between neighbours. Smaller: a mean over all that it covers."""
    if n_out >= n_in:
        return bilinear_matrix(n_in, n_out)
    gathered = bilinear_matrix(n_out, n_in).T
    return gathered / gathered.sum(1, keepdims=True)
