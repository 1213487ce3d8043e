"""Pictures of weights: token maps and patch filters."""

import base64
import io
import math
from collections.abc import Mapping
from html import escape

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from tinymixer.errors import counted
from tinymixer.train.figures.animation import Animation
from tinymixer.train.figures.style import INK, card, tiles

SHADES = 32  # of a map in an animation, on either side of white together


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
        maps = _maps(W, _shown(W, grid, n), grid)
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(title, fontsize=10, color=INK)
        tiles(axes, maps, _columns(len(maps)), cmap="RdBu_r", vmin=-1, vmax=1)
    return figure


def growing_token_maps(
    blocks: Mapping[str, Mapping[str, np.ndarray]], grid: tuple[int, int], n: int = 64
) -> Animation:
    """Token maps while a model trains: those of each block at its moments, one after another.

    blocks: {"first block": {"before training": W1, "step 100": W1, ...}, ...}, each with the same
    moments. On the left stand those of the first block at the first moment. Hidden units and their
    order are those that `token_maps` shows at the last moment; each map is scaled as there.

    Raises ValueError as `token_maps` does.
    """
    units = {title: _shown([*W1s.values()][-1], grid, n) for title, W1s in blocks.items()}
    (title, W1s), *_ = blocks.items()
    (when, W1), *_ = W1s.items()
    side, apart = 280, 20
    size = ((side + apart) * (1 + len(blocks)) - apart, side + 44)

    def panel(at: int, title: str, when: str, W: np.ndarray, shown: np.ndarray) -> str:
        left, middle = at * (side + apart), at * (side + apart) + side / 2
        return (
            f'<g font-family="sans-serif" font-size="13" text-anchor="middle" fill="{INK}">'
            f'<text x="{middle}" y="14">{escape(title)}</text>'
            f'<image x="{left}" y="22" width="{side}" height="{side}" '
            'style="image-rendering: pixelated" '
            f'href="{_as_png(_maps(W, shown, grid))}"/>'
            f'<text x="{middle}" y="{side + 38}">{escape(when)}</text></g>'
        )

    backdrop = panel(0, title, when, W1, units[title])
    drawings = [
        "".join(
            panel(i + 1, title, when, W1s[when], units[title])
            for i, (title, W1s) in enumerate(blocks.items())
        )
        for when in W1s
    ]
    return Animation(drawings, size, 0.4, backdrop)


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
    filters = _scaled(W.T[_strongest(W.T, n)]).reshape(-1, patch_size, patch_size, channels)
    filters = filters[_frequency(filters.mean(-1)).argsort(kind="stable")]
    figure = card(5, 5.2)
    axes = figure.subplots()
    axes.set_title("Patch embedding: the patterns that filters look for", fontsize=10, color=INK)
    tiles(axes, 0.5 + 0.5 * filters, _columns(len(filters)))
    return figure


def _shown(W1: np.ndarray, grid: tuple[int, int], n: int) -> np.ndarray:
    """Which rows of W1 (D_S, S) are shown, in which order. Raises ValueError for another grid."""
    if W1.shape[1] != math.prod(grid):
        tokens = counted(W1.shape[1], "token")
        raise ValueError(
            f"token_maps: W1 {W1.shape} has weights for {tokens}, but a grid of "
            f"{grid[0]}x{grid[1]} has {math.prod(grid)}. Give the token grid of the model"
        )
    strongest = _strongest(W1, n)
    return strongest[_opposite_pairs(_maps(W1, strongest, grid))]


def _maps(W1: np.ndarray, units: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    return _scaled(W1[units]).reshape(-1, *grid)


def _as_png(maps: np.ndarray) -> str:
    """Maps (n, H, W), -1..1, in rows with white between them, as the address of a PNG picture.

    It has one pixel for a token, which keeps an animation small.
    """
    (n, H, W), columns, white = maps.shape, _columns(len(maps)), SHADES + 1
    sheet = np.full((math.ceil(n / columns), H + 1, columns, W + 1), white, np.uint8)
    for i, shades in enumerate(np.rint((maps + 1) * SHADES / 2)):
        sheet[i // columns, :H, i % columns, :W] = shades
    picture = Image.fromarray(sheet.reshape(len(sheet) * (H + 1), -1)[:-1, :-1]).convert("P")
    colours = colormaps["RdBu_r"](np.linspace(0, 1, SHADES + 1), bytes=True)[:, :3]
    picture.putpalette([*colours.ravel().tolist(), 255, 255, 255])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _strongest(units: np.ndarray, n: int) -> np.ndarray:
    """Numbers of the n rows of largest norm, in their order."""
    return np.sort(np.argsort(-np.linalg.norm(units, axis=1), kind="stable")[:n])


def _scaled(units: np.ndarray) -> np.ndarray:
    """Each row divided by its largest absolute value."""
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
