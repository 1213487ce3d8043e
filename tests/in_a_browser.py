"""What the package computes, as JSON: in any Python, and so in a browser's too.

    python tests/in_a_browser.py

Prints one line. test_browser.py compares those of several Pythons.
"""

import contextlib
import io
import json
import warnings

import numpy as np
from tqdm import tqdm

from tinymixer import ops
from tinymixer.cli import main
from tinymixer.data import Augment, load
from tinymixer.data.autoaugment import POLICIES
from tinymixer.data.draws import Stream, noise
from tinymixer.gradcheck import check_function
from tinymixer.ops.experts import by_expert, top_k, within_capacity
from tinymixer.train.config import Config
from tinymixer.train.metrics import confusion_matrix
from tinymixer.train.processes import Processes
from tinymixer.train.profile import Stopwatch
from tinymixer.train.ranks import run_threads
from tinymixer.train.trainer import Trainer

# Enough for the command to start a second process, if it may.
QUICK = ("Dispatch", "Add", "Subtract", "Multiply", "ReLU", "Exp", "Transpose", "Reshape")


def integers() -> dict[str, object]:
    """What is computed with integers, and so has to be equal."""
    shapes = load("shapes", train_size=20, test_size=20)
    images, labels = shapes.train_images, shapes.train_labels
    found: dict[str, object] = {"shapes": shapes.fingerprint}
    for policy in POLICIES:
        augment = Augment(auto_augment=policy, cutmix=1.0, random_erasing=0.5)
        mixed, _ = augment(images, labels, np.arange(20), epoch=0, seed=0, num_classes=10)
        found[policy] = int(mixed.sum(dtype=np.int64))
    late = np.arange(1) + (2**31 - 1)
    found["noise"] = noise((1, 224, 224, 3), 0, Stream.ERASE_FILL, 0, late).tolist()[0][0][0]
    found["confusion"] = confusion_matrix(labels, (labels + labels % 2) % 10, 10).tolist()
    choice = top_k(np.cos(np.arange(12.0)).reshape(4, 3), 2)
    kept = within_capacity(choice, 3, 3)
    x, p = np.arange(20.0).reshape(4, 5), np.arange(12.0).reshape(4, 3)
    for room in (None, 3):
        order, parts = by_expert(choice, kept, 3, room)
        answers = [ops.Dispatch().forward(x, rows.astype(np.int64)) for rows in parts]
        op = ops.Combine()
        y = op.forward(p, *answers, order.astype(np.int64))  # a learner's own may have 64 bits
        found[f"experts, room {room}"] = [y.tolist(), op.backward(y)[0].tolist()]
    found["chosen"] = np.bincount(choice.ravel(), minlength=3).tolist()
    return found


def checks() -> dict[str, str]:
    """Gradients that are checked, with a function and with the command."""
    rng = np.random.default_rng(0)
    x, gamma, beta = (rng.standard_normal(shape) for shape in ((7, 3, 5), 5, 5))
    found = {
        "LayerNorm": check_function(ops.LayerNorm(), x, gamma, beta).verdict,
        "GELU": check_function(ops.GELU(), x).verdict,
    }
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        code = main(["gradcheck", *(word for name in QUICK for word in ("--op", name))])
    return found | {"command": code, "operations": shown.getvalue().count("passed")}


def losses() -> list[float]:
    """Of two training steps of mixer_pico, and of the test images after them."""
    config = Config(epochs=1, batch_size=32, augment=Augment(auto_augment="cifar10"))
    dataset = load("shapes", train_size=64, test_size=32)
    trainer = Trainer(config, dataset, quiet=True, workers=4, processes=None)
    trainer.run()
    last = trainer.history[-1]
    return [last.train_loss, last.test_loss]


def refusals() -> dict[str, str]:
    """What needs threads or processes, and says so."""
    found = {}
    for name, call in (
        ("one rank", lambda: run_threads(1, lambda ranks: ranks.rank)),
        ("threads", lambda: run_threads(2, lambda ranks: ranks.rank)),
        ("processes", lambda: Processes(2, print)),
    ):
        try:
            found[name] = str(call())
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def results() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(tqdm(range(3), file=io.StringIO()))  # a bar that is shown
        found = Stopwatch().run("integers", integers)
        return {"integers": found, "checks": checks(), "losses": losses(), "refusals": refusals()}


if __name__ == "__main__":
    print(json.dumps(results()))
