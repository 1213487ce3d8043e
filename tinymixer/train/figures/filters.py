"""Pictures of weights: token maps and patch filters."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tinymixer.train.figures.style import INK, card, tiles


def token_maps(
    W1: np.ndarray | Mapping[str, np.ndarray], grid: tuple[int, int], n: int = 64
) -> Figure:
    """The hidden units of token MLPs: rows of W1 (D_S, S) as maps on the (H, W) grid of tokens.

    W1 is one block's, or several under their titles: {"block 0": ..., "block 7": ...}. Of each,
    the n units of largest norm are shown, each scaled by its largest weight: red adds a token,
    blue subtracts it. The most opposite units are paired, and pairs sorted by frequency.

    Raises ValueError if W1 has not one column per token. Source: the figure of hidden units in
    Tolstikhin et al. 2021, "MLP-Mixer", arXiv 2105.01601.
    """
    what = "Token mixing: what hidden units add (red) and subtract (blue)"
    blocks = W1 if isinstance(W1, Mapping) else {what: W1}
    columns = min(len(blocks), 4)
    rows = math.ceil(len(blocks) / columns)
    side = (5, 4.6, 3.2, 2.5)[columns - 1]  # of one block, in inches
    figure = card(
        columns * side, rows * (side + 0.25) + 0.2, what if isinstance(W1, Mapping) else ""
    )
    for i, (title, W) in enumerate(blocks.items()):
        if W.shape[1] != math.prod(grid):
            raise ValueError(
                f"token_maps: W1 {W.shape} has weights for {W.shape[1]} tokens, but a grid of "
                f"{grid[0]}x{grid[1]} has {math.prod(grid)}. Give the token grid of the model"
            )
        maps = _strongest(W, n).reshape(-1, *grid)
        maps = maps[_opposite_pairs(maps)]
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(title, fontsize=10, color=INK)
        tiles(axes, maps, _columns(len(maps)), cmap="RdBu_r", vmin=-1, vmax=1)
    return figure


def patch_filters(W: np.ndarray, patch_size: int, n: int = 128) -> Figure:
    """The filters of the patch embedding: columns of W (P*P*channels, C) as P x P pictures, in
    colour for three channels and in grey for one.

    The n filters with the largest weights, low frequencies first, each scaled by its own maximum:
    grey is a weight of zero, white the largest, black the smallest in all three colours.

    Raises ValueError if W has not P*P*3 or P*P rows.
    """
    channels = len(W) // patch_size**2
    if len(W) not in (3 * patch_size**2, patch_size**2):
        raise ValueError(
            f"patch_filters: W {W.shape} has {len(W)} rows, but a patch of "
            f"{patch_size}x{patch_size} has {3 * patch_size**2} values, or {patch_size**2} in "
            "grey. Give the model's patch_size"
        )
    filters = _strongest(W.T, n).reshape(-1, patch_size, patch_size, channels)
    filters = filters[_frequency(filters.mean(-1)).argsort(kind="stable")]
    figure = card(5, 5.2)
    axes = figure.subplots()
    axes.set_title("Patch embedding: the patterns that filters look for", fontsize=10, color=INK)
    tiles(axes, 0.5 + 0.5 * filters, _columns(len(filters)))
    return figure


def _strongest(units: np.ndarray, n: int) -> np.ndarray:
    """The n rows of largest norm, in their order, each divided by its largest absolute value."""
    strongest = np.sort(np.argsort(-np.linalg.norm(units, axis=1), kind="stable")[:n])
    units = units[strongest]
    return units / np.maximum(np.abs(units).max(1, keepdims=True), 1e-30)


def _frequency(maps: np.ndarray) -> np.ndarray:
    """maps (n, H, W) -> (n,): Σ f |F(f)|² / Σ |F(f)|², the centre of mass of the power spectrum.

    In cycles per token: 0 for a constant map, √½ for a chessboard.
    """
    power = np.abs(np.fft.fft2(maps)) ** 2
    f = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, maps.shape[1:]), indexing="ij"))
    return (power * f).sum((1, 2)) / np.maximum(power.sum((1, 2)), 1e-30)


def _opposite_pairs(maps: np.ndarray) -> list[int]:
    """An order of maps (n, H, W): most opposite pairs side by side, low frequencies first."""
    flat = maps.reshape(len(maps), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    likeness = flat @ flat.T
    np.fill_diagonal(likeness, np.inf)
    pairs, left = [], set(range(len(maps)))
    while len(left) > 1:
        pair = divmod(int(likeness.argmin()), len(maps))
        likeness[pair, :] = likeness[:, pair] = np.inf
        pairs.append(pair)
        left -= set(pair)
    f = _frequency(maps)
    pairs.sort(key=lambda pair: f[pair[0]] + f[pair[1]])
    return [i for pair in pairs for i in pair] + list(left)


def _columns(n: int) -> int:
    """How many columns make n tiles a square; even, so that pairs stay together."""
    return 2 * math.ceil(math.sqrt(n) / 2)
