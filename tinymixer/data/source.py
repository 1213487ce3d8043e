"""Where a data set comes from: all that it takes to load the same one again."""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinymixer import data
from tinymixer.options import Between, OneOf, check_options, option

NAMES = ("cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist", "shapes")  # found by name
OWN = {"folder": "PATH", "npz": "FILE"}  # your own: the kind, a colon, and where it is
MOST_IMAGES = 2**32


class DataSets(Collection[str]):
    """The names of data sets and, for your own, `folder:PATH` with any path."""

    def __contains__(self, dataset: object) -> bool:
        kind, _, path = str(dataset).partition(":")
        return dataset in NAMES or (kind in OWN and path != "")

    def __iter__(self) -> Iterator[str]:
        return iter((*NAMES, *(f"{kind}:{path}" for kind, path in OWN.items())))

    def __len__(self) -> int:
        return len(NAMES) + len(OWN)


DATASET = OneOf(DataSets())
PART = Between(1, MOST_IMAGES)


@dataclass(frozen=True)
class Source:
    """A data set, and how much of it: `Source("shapes", train_size=2000).load()`.

    dataset is a name, or `folder:PATH`, `npz:FILE`: the path is kept absolute, so that a run finds
    its pictures from wherever it goes on. seed draws the shapes. With pixels every pixel has a
    label. Raises TinymixerError for options out of range.
    """

    dataset: str = option("cifar10", DATASET, "data set to train and test on")
    train_size: int | None = option(None, PART, "training images used, counted from the first")
    test_size: int | None = option(None, PART, "test images used, counted from the first")
    image_size: int | None = option(
        None, Between(1, 4096), "side in pixels to which the pictures of a folder are brought"
    )
    pixels: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self, "training option")
        if self.path is not None:
            path = os.path.abspath(os.path.expanduser(self.path))
            object.__setattr__(self, "dataset", f"{self.kind}:{path}")

    @property
    def kind(self) -> str:
        """The name of the data set, or "folder" or "npz"."""
        return self.dataset.partition(":")[0]

    @property
    def path(self) -> str | None:
        """Where your own data are; None for a data set that has a name."""
        return self.dataset.partition(":")[2] if self.kind in OWN else None

    @property
    def name(self) -> str:
        """A short one, of which a folder can be named: "shapes", or the last part of the path."""
        name = Path(self.path).stem if self.path else self.kind
        return re.sub(r"[^\w .-]", "_", name) or self.kind

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of its images, if that is known before they are loaded."""
        if self.kind in ("mnist", "fashion_mnist", "kmnist"):
            return 28, 28, 1
        return None if self.path else (32, 32, 3)

    def options(self) -> dict[str, Any]:
        """What `data.load` takes beside the name."""
        return {name: value for name, value in asdict(self).items() if name != "dataset"}

    def load(self, data_dir: str | Path | None = None, *, download: bool = False) -> "data.Dataset":
        """The data set in memory, which knows this source; data_dir and download: see `data.load`.

        Raises DataError if it is missing or damaged.
        """
        return data.load(self.dataset, data_dir, download=download, **self.options())
