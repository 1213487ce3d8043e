"""What is each part of the CIFAR-10 recipe worth? A command, not a test: hours of two processors.

    python tests/ablation.py --data-dir data --epochs 3

For each row and seed, `mixer_pico` is trained by the recipe of `tinymixer train --minutes` with one
thing changed, on 45,000 images, and measured on the 5,000 that are held back: no test image is
looked at. A run that is there already is not trained again, and one that was stopped goes on.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from tinymixer import data
from tinymixer.data import Augment
from tinymixer.errors import TinymixerError
from tinymixer.train import Config, Trainer
from tinymixer.train.config import OPEN_END, RATES, recipe
from tinymixer.train.evaluation import measure
from tinymixer.train.stopping import Stopped

HELD_BACK = 5000
ROWS = {
    "the recipe": lambda c: c,
    "AdamW instead of Muon": lambda c: replace(c, optimizer="adamw", lr=RATES["adamw"]),
    "not whitened": lambda c: replace(c, whiten=0),
    "batches of 128": lambda c: replace(c, batch_size=128),
    "cosine schedule": lambda c: replace(c, schedule="cosine"),
    "no label smoothing": lambda c: replace(c, label_smoothing=0.0),
    "no mirror images": lambda c: augmented(c, flip="none"),
    "no crops": lambda c: augmented(c, crop_padding=0),
    "averaged weights": lambda c: replace(c, ema=0.999),
}


def augmented(config: Config, **changes: object) -> Config:
    return replace(config, augment=Augment(**{**vars(config.augment), **changes}))


def accuracies(config: Config, dataset: data.Dataset, out: Path) -> tuple[float, float]:
    """In percent on the images held back: of the last weights, and with `--tta flip`."""
    last = out / "last.npz"
    if last.exists():
        trainer = Trainer.resume(last, dataset, processes=None)
    else:
        trainer = Trainer(config, dataset, out, processes=None)
    trainer.run()
    found = []
    with trainer.workers, trainer.own_step.averaged():
        for tta in ("none", "flip"):
            _, matrix = measure(trainer.task, trainer.model, trainer.split, trainer.workers, tta)
            found.append(100 * float(matrix.trace() / matrix.sum()))
    return found[0], found[1]


def line(name: str, found: list[tuple[float, float]]) -> str:
    """Means, and in brackets the smallest and the largest of all seeds."""
    columns = zip(*found, strict=True)
    cells = (f"{statistics.mean(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in columns)
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data-dir", default="data", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="for the runs")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    args = parser.parse_args()
    dataset = data.load("cifar10", args.data_dir)
    usual = replace(
        recipe("cifar10", "classify"), **{**OPEN_END, "epochs": args.epochs}, val_size=HELD_BACK
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in args.rows}
    for seed in args.seeds:
        for name in args.rows:
            config = replace(ROWS[name](usual), seed=seed)
            out = args.out / f"{name.replace(' ', '-')}-{args.epochs:g}-{seed}"
            found[name].append(accuracies(config, dataset, out))
            print(f"seed {seed}, {name}: %.1f %%, flip %.1f %%" % found[name][-1], flush=True)
    print("| | held back | with --tta flip |\n|---|---|---|")
    print(*(line(name, figures) for name, figures in found.items()), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except (TinymixerError, Stopped) as error:  # after Stopped, the same command goes on
        sys.exit(f"ablation: {error}")
