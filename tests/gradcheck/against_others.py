"""200 functions, given to four gradient checkers: how often each is wrong about them.

    python tests/gradcheck/against_others.py --save tests/gradcheck/against_others.json

Beside tinymixer it asks `torch.autograd.gradcheck`, `jax.test_util.check_grads` and
`autograd.test_util.check_grads`, those that are installed (pip install torch jax autograd).

100 functions have the right backward, 100 have one error in it. All checkers get the same formulas,
each in the form that its documentation asks for, on the same float64 inputs, with its own defaults.
Only the first derivative in reverse mode is asked for, since a hand-written backward gives no more.
A right function called wrong is a false alarm, a wrong one called right is a miss. tinymixer may
also say "not decidable here", which is counted apart.

The functions and their errors are in common_functions.py. Note that a checker that gives a false
alarm at some input also "catches" every error there: with seed 2026, all that the other three saw
of the factor 1 + 1e-6 they saw where they call the right gradient wrong as well.
"""

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common_functions import ERRORS, KINDS, SEED, Example, draw

from tinymixer import __version__
from tinymixer.engine import Function
from tinymixer.gradcheck import check_function

RIGHT, WRONG, UNDECIDED = "right", "wrong", "not decidable"


# ------------------------------------------------------------------ the four checkers


def tinymixer_says(example: Example) -> str:
    class Own(Function):
        def forward(self, *inputs):
            self.saved = inputs
            return example.family.forward(np, *inputs)

        def backward(self, dy):
            return example.backward(np, dy, *self.saved)

    verdict = check_function(Own(), *example.inputs).verdict
    return {"passed": RIGHT, "failed": WRONG}.get(verdict, UNDECIDED)


def torch_says(example: Example) -> str:
    torch, gradcheck = import_module("torch"), import_module("torch.autograd.gradcheck")

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(context, *inputs):
            context.save_for_backward(*inputs)
            return example.family.forward(torch, *inputs)

        @staticmethod
        def backward(context, dy):
            return example.backward(torch, dy, *context.saved_tensors)

    inputs = [torch.tensor(x, requires_grad=True) for x in example.inputs]
    try:
        gradcheck.gradcheck(Own.apply, inputs)
    except gradcheck.GradcheckError:
        return WRONG
    return RIGHT


def jax_says(example: Example) -> str:
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    check_grads = import_module("jax.test_util").check_grads
    jax.config.update("jax_enable_x64", True)
    f = jax.custom_vjp(lambda *inputs: example.family.forward(jnp, *inputs))
    f.defvjp(
        lambda *inputs: (example.family.forward(jnp, *inputs), inputs),
        lambda inputs, dy: example.backward(jnp, dy, *inputs),
    )
    try:
        check_grads(f, tuple(map(jnp.asarray, example.inputs)), order=1, modes=["rev"])
    except AssertionError:
        return WRONG
    return RIGHT


def autograd_says(example: Example) -> str:
    extend = import_module("autograd.extend")
    check_grads = import_module("autograd.test_util").check_grads

    f = extend.primitive(lambda *inputs: example.family.forward(np, *inputs))

    def vjp(i):
        return lambda y, *inputs: lambda dy: example.backward(np, dy, *inputs)[i]

    # autograd draws its direction from NumPy's global generator, which is left as it was.
    places = tuple(range(len(example.inputs)))
    extend.defvjp(f, *map(vjp, places))
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(SEED)  # noqa: NPY002
    try:
        check_grads(f, places, modes=["rev"], order=1)(*example.inputs)
    except AssertionError:
        return WRONG
    finally:
        np.random.set_state(before)  # noqa: NPY002
    return RIGHT


CHECKERS: dict[str, Callable[[Example], str]] = {
    "tinymixer": tinymixer_says,
    "torch": torch_says,
    "jax": jax_says,
    "autograd": autograd_says,
}


def answer(checker: str, example: Example) -> str:
    """What a checker says: right, wrong, not decidable, or the exception that it ends in."""
    try:
        with np.errstate(all="ignore"):
            return CHECKERS[checker](example)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


# ------------------------------------------------------------------ the tables


def tally(checker: str, examples: list[Example], show: bool) -> dict[str, Any]:
    """Counts of one checker, by kind of function and by kind of error."""
    kinds = {k: Counter(false_alarms=0, misses=0, undecided=0) for k in KINDS}
    missed, crashes = Counter(dict.fromkeys(ERRORS, 0)), 0
    start = time.process_time()
    for example in examples:
        said = answer(checker, example)
        kind = kinds[example.family.kind]
        crashes += said not in (RIGHT, WRONG, UNDECIDED)
        kind["undecided"] += said == UNDECIDED
        kind["false_alarms"] += not example.error and said not in (RIGHT, UNDECIDED)
        kind["misses"] += bool(example.error) and said == RIGHT
        missed[example.error] += bool(example.error) and said == RIGHT
        if show and said != (WRONG if example.error else RIGHT):
            where = f"{example.family.kind}: {example.family.name}"
            print(f"{checker}: {where}, {example.error or 'no error'}: called {said[:200]}")
    total = Counter()
    for counts in kinds.values():
        total.update(counts)
    return {
        **{k: total[k] for k in ("false_alarms", "misses", "undecided")},
        "crashes": crashes,
        "seconds": round(time.process_time() - start, 1),
        "by_kind": {kind: dict(counts) for kind, counts in kinds.items()},
        "misses_by_error": {error: missed[error] for error in ERRORS},
    }


def print_tables(result: dict[str, Any]) -> None:
    checkers = result["checkers"]
    heads = "".join(f"{name:>16}" for name in checkers)
    for title, key in {"false alarms": "false_alarms", "misses": "misses"}.items():
        print(f"\n{title + ' of right functions' * (key != 'misses'):34}   of{heads}")
        for kind, of in result["of_each_kind"].items():
            cells = "".join(f"{c['by_kind'][kind][key]:16}" for c in checkers.values())
            print(f"{kind:34}{of:5}{cells}")
        cells = "".join(f"{c[key]:16}" for c in checkers.values())
        print(f"{'together':34}{sum(result['of_each_kind'].values()):5}{cells}")
    print(f"\n{'misses by kind of error':34}   of{heads}")
    for error, of in result["errors"].items():
        cells = "".join(f"{c['misses_by_error'][error]:16}" for c in checkers.values())
        print(f"{error:34}{of:5}{cells}")
    for key in ("undecided", "crashes", "seconds"):
        print(f"{key:39}" + "".join(f"{c[key]:16}" for c in checkers.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--each", type=int, default=10, help="right and wrong ones of each kind")
    parser.add_argument("--show", action="store_true", help="print each answer that is not right")
    parser.add_argument("--save", type=Path, help="where to write the tables, as JSON")
    args = parser.parse_args()
    examples = list(draw(args.seed, args.each))
    errors = Counter(example.error for example in examples)
    installed = [name for name in CHECKERS if name == "tinymixer" or find_spec(name)]
    for name in CHECKERS:
        if name not in installed:
            print(f"{name} is left out: it is not installed (pip install {name})")
    others = [name for name in ("numpy", *installed) if name != "tinymixer"]
    result = {
        "seed": args.seed,
        "functions": len(examples),
        "python": platform.python_version(),
        "versions": {"tinymixer": __version__} | {n: metadata.version(n) for n in others},
        "of_each_kind": dict.fromkeys(KINDS, args.each),
        "errors": {error: errors[error] for error in ERRORS},
        "checkers": {name: tally(name, examples, args.show) for name in installed},
    }
    print_tables(result)
    if args.save:
        args.save.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
