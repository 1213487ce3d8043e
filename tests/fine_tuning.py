"""Does fine-tuning pay? A command, not a test: about half an hour of one processor.

    python tests/fine_tuning.py --data-dir data

mixer_pico is trained on 40,000 of the built-in `shapes`, once. Then, for each seed, it is trained
on the first 500 training images of CIFAR-10 twice, by one recipe and for as many steps: from these
weights, and from scratch. Both are tested on all 10,000 test images.

The recipe is that of `tinymixer train --dataset cifar10` with batches of 50 for 30 epochs, which
are 300 steps, and `--whiten 0`. Chosen on training images 500 to 2,500, with no part of the test
images in it: the learning rate, among 1e-3 and 4e-3, where 4e-3 is the better one for both; and
40,000 shapes (41.6 % there, one epoch before the end) rather than the 20,000 of the default run
(40.5 %).
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymixer import cli, data
from tinymixer.train import load_model
from tinymixer.train.evaluation import measure
from tinymixer.train.parallel import Workers
from tinymixer.train.tasks import TASKS

QUIET = ("--quiet", "--workers", "1")
SHAPES = ("--train-size", "40000", "--test-size", "4000", "--epochs", "10", "--optimizer", "adamw")
FEW = ("--dataset", "cifar10", "--train-size", "500", "--test-size", "100")
RECIPE = ("--batch-size", "50", "--epochs", "30", "--optimizer", "adamw", "--whiten", "0")


def train(out: Path, *words: Any) -> Path:
    """The run in `out`, trained unless it is there."""
    if not (out / "last.npz").exists():
        code = cli.main(["train", "--out", str(out), *QUIET, *map(str, words)])
        if code:
            raise SystemExit(code)
    return out


def accuracy(run: Path, dataset: data.Dataset) -> float:
    """On all test images of a data set, seen with the run's mean and std."""
    model, saved = load_model(run / "last.npz")
    record = saved.header.dataset
    seen = replace(dataset, mean=record.mean, std=record.std)
    with Workers(1) as workers:
        _, matrix = measure(TASKS["classify"], model, seen, workers)
    return 100 * float(matrix.trace() / matrix.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data-dir", default="data", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs/fine-tuning"), help="for the runs")
    parser.add_argument("--init", type=Path, help="weights instead of those of the run on shapes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    shapes = args.init or train(args.out / "shapes", "--dataset", "shapes", *SHAPES)
    cifar10 = data.load("cifar10", args.data_dir)
    starts = {"from scratch": (), "from shapes": ("--init", shapes)}
    found: dict[str, list[float]] = {name: [] for name in starts}
    for seed in args.seeds:
        for name, words in starts.items():
            out = args.out / f"{name.replace(' ', '-')}-{seed}"
            run = train(out, *FEW, *RECIPE, "--data-dir", args.data_dir, "--seed", seed, *words)
            found[name].append(accuracy(run, cifar10))
            print(f"seed {seed} {name}: {found[name][-1]:.2f} %", flush=True)
    print(f"| 500 images of CIFAR-10 | {' | '.join(f'seed {s}' for s in args.seeds)} | mean |")
    for name, figures in found.items():
        cells = [f"{x:.2f}" for x in [*figures, statistics.mean(figures)]]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
