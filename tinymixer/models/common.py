"""What the systems share: depths, sizes that have to fit, and frames of configurations."""

from collections.abc import Iterable, Sequence
from typing import Any

from tinymixer import nn
from tinymixer.engine import Tensor

IMAGENET: dict[str, Any] = {"image_size": 224, "num_classes": 1000}
CIFAR: dict[str, Any] = {"image_size": 32, "num_classes": 10}


def linear_rates(last: float, n: int) -> list[float]:
    """Drop rates of n branches, linear in depth: 0 at the first, `last` at the last.

    Source: Huang et al. 2016, "Deep networks with stochastic depth", arXiv 1603.09382, section 3.
    """
    return [last * i / max(1, n - 1) for i in range(n)]


def hidden_width(system: str, option: str, ratio: float, C: int) -> int:
    """⌊ratio C⌋, a number of channels. Raises ValueError if it is 0."""
    width = int(ratio * C)
    if not width:
        raise ValueError(
            f"{system}: {option}={ratio!r} of {C} channels is less than one channel; choose a "
            "larger ratio"
        )
    return width


def one_per_stage(system: str, **options: Sequence[Any]) -> None:
    """Raise ValueError unless each of these options has as many entries as the first."""
    first, *others = options
    for name in others:
        if len(options[name]) != len(options[first]):
            raise ValueError(
                f"{system}: expected one entry a stage in each of {', '.join(options)}; {first} "
                f"has {len(options[first])}, but {name} has {len(options[name])}: {options[name]}"
            )


def tiled(
    system: str,
    size: tuple[int, int],
    P: int,
    what: str = "images",
    cure: str = "choose a patch_size that divides both sides",
) -> tuple[int, int]:
    """(H, W), the grid of P x P patches of (height, width). Raises ValueError for a remainder."""
    height, width = size
    if height % P or width % P:
        raise ValueError(
            f"{system}: patches of {P}x{P} do not tile {what} of {height}x{width}; {cure}"
        )
    return height // P, width // P


def another_size(model: nn.Classifier, images: Any, why: str) -> ValueError:
    """The error for images of a size, or with channels, that the model was not built for."""
    height, width = model.image_size
    name, shape = type(model).__name__, f"(B, {height}, {width}, {model.channels})"
    if images.shape[1:-1] == model.image_size:
        return ValueError(
            f"{name}: expected images {shape}, got {images.shape}. Build the model with "
            f"channels={images.shape[-1]}, or give it images of its own kind"
        )
    return ValueError(
        f"{name}: expected images {shape}, got {images.shape}. {why} ties a model to one image "
        "size: resize the images, or build the model with their image_size"
    )


def outputs(stages: Iterable[nn.Module], x: Any, rng: nn.Rng | None) -> list[Tensor]:
    """What each stage makes of the output of the one before it; the first gets x."""
    found = []
    for stage in stages:
        x = stage(x, rng)
        found.append(x)
    return found
