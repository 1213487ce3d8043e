"""The plan of the house: dependencies point down only, and everything has its place."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinymixer"
SOURCES = sorted(PACKAGE.rglob("*.py"))
named_by_path = {"ids": lambda path: path.relative_to(ROOT).as_posix()}

FLOORS = {
    "arrays": 0,
    "errors": 0,
    "backend": 0,
    "files": 0,
    "launcher": 0,
    "options": 0,
    "processors": 0,
    "shapes": 0,
    "engine": 1,
    "protocols": 1,
    "optim": 1,
    "data": 1,
    "gradcheck": 2,
    "ops": 2,
    "nn": 3,
    "models": 4,
    "diagnosis": 4,
    "train": 5,
    "fast": 5,
    "summary": 5,
    "course": 5,
    "weights": 5,
    "__init__": 5,  # the public face: it may show anything but the command
    "cli": 6,
    "__main__": 6,
}
NO_TENSOR = {"optim", "data"}  # arrays in, arrays out
KNOWS_FAST = {"fast", "train", "cli"}
KNOWS_CUPY = ("backend.py", "fast/gpu/")


def imported(source, package):
    """The full name of every module that `source`, in `package`, imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, node.module or ""]).strip(".") if node.level else node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name):
    """The room of a module of ours; a name in tinymixer that is no room is the face's."""
    _, _, inside = name.partition(".")
    first = inside.partition(".")[0]
    return first if first in FLOORS else "__init__"


def offences(path, source):
    """What a file imports against the plan, in words."""
    parts = ["tinymixer", *path.relative_to(PACKAGE).with_suffix("").parts]
    here = parts[1]
    for name in imported(source, ".".join(parts[:-1])):
        top = name.partition(".")[0]
        inside = path.relative_to(PACKAGE).as_posix()
        if top in {"cupy", "cupyx"} and not inside.startswith(KNOWS_CUPY):
            yield f"{here} imports {name}: only backend and fast/gpu know CuPy"
        if top == "torch":
            yield f"{here} imports {name}: only tests/bench_torch.py knows PyTorch"
        if top != "tinymixer":
            continue
        there = room(name)
        if FLOORS[there] > FLOORS[here]:
            yield f"{here} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[there]})"
        if there == "engine" and here in NO_TENSOR:
            yield f"{here} imports {name}: it works on arrays and knows no Tensor"
        if there == "train" and here == "fast":
            yield f"{here} imports {name}: train knows fast, not the other way round"
        if there == "fast" and here not in KNOWS_FAST:
            yield f"{here} imports {name}: only train and cli know the fast twins"


@pytest.mark.parametrize("path", SOURCES, **named_by_path)
def test_dependencies_point_down(path):
    assert list(offences(path, path.read_text("utf-8"))) == []


PLANTED = {
    "up": ("engine.py", "from tinymixer.ops import GELU"),
    "up, whole module": ("ops/gelu.py", "import tinymixer.models.mixer"),
    "up, through the face": ("nn/layers.py", "from tinymixer import models"),
    "up to the face itself": ("data/cifar.py", "from tinymixer import __version__"),
    "the face, whole": ("optim.py", "import tinymixer"),
    "up, relative": ("ops/gelu.py", "from ..nn import Module"),
    "up, relative, whole module": ("ops/gelu.py", "from .. import nn"),
    "up, relative, from a package": ("ops/__init__.py", "from ..models import mixer"),
    "up, inside a function": ("errors.py", "def f():\n    from tinymixer import engine"),
    "up, only for types": (
        "backend.py",
        "if TYPE_CHECKING:\n    from tinymixer.nn import Module",
    ),
    "the face shows the command": ("__init__.py", "from tinymixer.cli import main"),
    "a data set with Tensors": ("data/shapes.py", "from tinymixer.engine import Tensor"),
    "an optimizer with Tensors": ("optim.py", "from tinymixer import engine"),
    "fast, known to the face": ("__init__.py", "from tinymixer import fast"),
    "fast, known to the summary": ("summary.py", "import tinymixer.fast.cpu"),
    "CuPy": ("nn/layers.py", "import cupy as cp"),
    "PyTorch": ("train/bench.py", "def f():\n    import torch.nn.functional"),
    "part of CuPy": ("fast/cpu.py", "from cupyx.scipy import special"),
    "CuPy beside the engine": ("engine.py", "def f():\n    import cupy"),
    "fast knows what trains": ("fast/gpu/launches.py", "from tinymixer.train import profile"),
}


@pytest.mark.parametrize(("file", "source"), PLANTED.values(), ids=PLANTED)
def test_a_planted_import_against_the_plan_is_found(file, source):
    assert len(list(offences(PACKAGE / file, source))) == 1


ALLOWED = {
    "down": ("nn/layers.py", "from tinymixer.engine import Tensor\nfrom tinymixer import ops"),
    "next door": ("ops/mlp.py", "from tinymixer.ops.gelu import gelu\nfrom .linear import f"),
    "train knows fast": ("train/trainer.py", "from tinymixer.fast import cpu"),
    "the face": ("__init__.py", "from tinymixer.models import create_model"),
    "CuPy, where a GPU is at work": ("fast/gpu/graphs.py", "def f():\n    import cupy"),
    "CuPy, where arrays are told apart": ("backend.py", "import cupy"),
    "others": ("optim.py", "import numpy as np\nfrom math import sqrt"),
}


@pytest.mark.parametrize(("file", "source"), ALLOWED.values(), ids=ALLOWED)
def test_imports_along_the_plan_are_left_alone(file, source):
    assert list(offences(PACKAGE / file, source)) == []


def test_every_room_has_its_floor():
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in SOURCES}
    assert rooms - FLOORS.keys() == set()


@pytest.mark.parametrize("path", SOURCES, **named_by_path)
def test_every_file_says_what_it_is_and_every_room_its_floor(path):
    tree = ast.parse(path.read_text("utf-8"))
    if not tree.body:
        return  # nothing in it yet
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    docstring = ast.get_docstring(tree) or ""
    assert docstring
    if parts[0] in {"__init__", "__main__"}:  # doors, on no floor
        return
    if len(parts) == 1 or parts[1:] == ("__init__",):
        assert docstring.startswith(f"Floor {FLOORS[parts[0]]}.")


def test_the_top_level_holds_what_the_plan_has_there():
    planned = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    planned |= {"tinymixer", "lessons", "tests", "data"}
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()]
    there = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    unplanned = there - planned
    assert {name for name in unplanned if not any(fnmatch(name, p) for p in ignored)} == set()


# Explicit generators are fine; these change or read a state that all share.
SEEDED = {"Generator", "BitGenerator", "SeedSequence", "default_rng", "Philox", "PCG64"}


def dangers(source):
    """Where `source` unpickles, or draws from global random state."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                yield "allow_pickle=True"
            case ast.Attribute(value=ast.Name(id="pickle"), attr="load" | "loads" as name):
                yield f"pickle.{name}"
            case ast.ImportFrom(module="pickle" | "random" as module):
                yield f"from {module} import"
            case ast.Import(names=names) if any(alias.name == "random" for alias in names):
                yield "import random"
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="np" | "xp" | "cupy"), attr="random"),
                attr=name,
            ) if name not in SEEDED:
                yield f"random.{name}"


# What processes say to those that they started themselves, through pipes that no other can open.
OWN_PIPES = {"train/processes.py"}


@pytest.mark.parametrize("path", SOURCES, **named_by_path)
def test_nothing_unpickles_and_nothing_shares_random_state(path):
    found = set(dangers(path.read_text("utf-8")))
    if path.relative_to(PACKAGE).as_posix() in OWN_PIPES:
        found -= {"pickle.load", "pickle.loads"}
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "np.load(f, allow_pickle=True)",
        "pickle.load(f)",
        "x = pickle.loads(b)",
        "from pickle import loads",
        "np.random.seed(1)",
        "np.random.rand(3)",
        "def f():\n    return np.random.shuffle(x)",
        "import random",
    ],
)
def test_planted_dangers_are_found(source):
    assert len(list(dangers(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "np.load(f, allow_pickle=False)",
        "class Narrow(pickle.Unpickler): pass",
        "rng = np.random.default_rng(3)",
        "rng: np.random.Generator = np.random.Generator(np.random.Philox(3))",
        "rng.random(3)",
    ],
)
def test_careful_code_is_left_alone(source):
    assert list(dangers(source)) == []
