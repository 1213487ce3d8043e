"""Floor 5. Weights of others: the names and layouts of released checkpoints, read and written.

A layout is a list of rules. One says where a layer of ours is found in theirs, and what its arrays
are called there; where they are laid out differently, a View says how: theirs split into axes, the
axes in another order, joined again into ours. So each rule can be read in both directions.

Sources: the checkpoints released with each system's code, and timm's for Mixer.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymixer.backend import to_numpy
from tinymixer.errors import CheckpointError
from tinymixer.files import write_atomically
from tinymixer.nn import Module

LAYOUTS = ("tinymixer", "official", "timm")


class View(NamedTuple):
    """How their array becomes ours: split it into axes, put these in order, join them."""

    theirs: tuple[int, ...]  # its shape
    split: tuple[int, ...]
    order: tuple[int, ...]

    def read(self, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return theirs.reshape(self.split).transpose(self.order).reshape(shape)

    def write(self, ours: np.ndarray) -> np.ndarray:
        axes = ours.reshape([self.split[i] for i in self.order])
        return np.ascontiguousarray(axes.transpose(np.argsort(self.order)).reshape(self.theirs))


Viewed = Callable[[tuple[int, ...]], View]  # by the shape of our array


def same(shape: tuple[int, ...]) -> View:
    return View(shape, shape, tuple(range(len(shape))))


def transposed(shape: tuple[int, ...]) -> View:
    """A matrix (out, in), ours (in, out)."""
    return View(shape[::-1], shape[::-1], (1, 0))


def kernel(k: int) -> Viewed:
    """A convolution's (out, in, k, k), ours (k * k * in, out)."""

    def view(shape: tuple[int, ...]) -> View:
        theirs = (shape[1], shape[0] // k**2, k, k)
        return View(theirs, theirs, (2, 3, 1, 0))

    return view


def kernel_last(k: int) -> Viewed:
    """A convolution's (k, k, in, out), ours (k * k * in, out)."""
    return lambda shape: same((k, k, shape[0] // k**2, shape[1]))


def interleaved(p: int) -> Viewed:
    """A vector of (channel, member), ours (member, channel), with p members."""
    return lambda shape: View(shape, (shape[0] // p, p), (1, 0))


def interleaved_in(p: int) -> Viewed:
    """A 1 x 1 convolution whose inputs are (channel, member), ours (member, channel)."""

    def view(shape: tuple[int, ...]) -> View:
        n, out = shape
        return View((out, n, 1, 1), (out, n // p, p), (2, 1, 0))

    return view


def interleaved_out(p: int, convolution: bool) -> Viewed:
    """A map whose outputs are (channel, member), ours (member, channel)."""

    def view(shape: tuple[int, ...]) -> View:
        n_in, n = shape
        theirs = (n, n_in, 1, 1) if convolution else (n, n_in)
        return View(theirs, (n // p, p, n_in), (2, 1, 0))

    return view


# What the arrays of a layer are called, and how they are viewed.
Arrays = Mapping[str, tuple[str, Viewed]]

NORM: Arrays = {
    "gamma": ("weight", same),
    "beta": ("bias", same),
    "running_mean": ("running_mean", same),
    "running_var": ("running_var", same),
}


def linear(weight: Viewed = transposed, bias: Viewed = same) -> Arrays:
    return {"W": ("weight", weight), "b": ("bias", bias)}


def mlp(view: Viewed = transposed, first: str = "fc1", second: str = "fc2") -> Arrays:
    """Of a ChannelMLP. The weights of a TokenMLP are (out, in) already: view=same."""
    return {
        "W1": (f"{first}.weight", view),
        "b1": (f"{first}.bias", same),
        "W2": (f"{second}.weight", view),
        "b2": (f"{second}.bias", same),
    }


class Rule(NamedTuple):
    """A layer of ours, `blocks.*.norm` with numbers for the stars, and where it is in theirs."""

    ours: str
    theirs: str | Callable[..., str]  # "blocks.{}.norm1." or a function of the numbers
    arrays: Arrays

    def find(self, name: str) -> tuple[str, Viewed] | None:
        """What the array `name` of ours is called in theirs, and how it is viewed."""
        layer, _, array = name.rpartition(".")
        match = re.fullmatch(re.escape(self.ours).replace(r"\*", r"(\d+)"), layer)
        if match is None or array not in self.arrays:
            return None
        numbers = [int(number) for number in match.groups()]
        place = self.theirs(*numbers) if callable(self.theirs) else self.theirs.format(*numbers)
        their_array, view = self.arrays[array]
        return place + their_array, view


# The systems -------------------------------------------------------------------------------------


def mixer_official(model: Any) -> list[Rule]:
    """The .npz files of the authors: "/" between names, matrices (in, out) as ours."""

    def norm(ours: str, theirs: str) -> Rule:
        return Rule(ours, theirs, {"gamma": ("scale", same), "beta": ("bias", same)})

    def dense(weight: Viewed) -> Arrays:
        return {
            "W1": ("Dense_0/kernel", weight),
            "b1": ("Dense_0/bias", same),
            "W2": ("Dense_1/kernel", weight),
            "b2": ("Dense_1/bias", same),
        }

    stem: Arrays = {"W": ("kernel", kernel_last(model.patch_embed.patch_size)), "b": ("bias", same)}
    return [
        Rule("patch_embed.linear", "stem/", stem),
        norm("blocks.*.token_norm", "MixerBlock_{}/LayerNorm_0/"),
        Rule("blocks.*.token_mlp", "MixerBlock_{}/token_mixing/", dense(transposed)),
        norm("blocks.*.channel_norm", "MixerBlock_{}/LayerNorm_1/"),
        Rule("blocks.*.channel_mlp", "MixerBlock_{}/channel_mixing/", dense(same)),
        norm("norm", "pre_head_layer_norm/"),
        Rule("head", "head/", {"W": ("kernel", same), "b": ("bias", same)}),
    ]


def mixer_timm(model: Any) -> list[Rule]:
    return [
        Rule("patch_embed.linear", "stem.proj.", linear(kernel(model.patch_embed.patch_size))),
        Rule("blocks.*.token_norm", "blocks.{}.norm1.", NORM),
        Rule("blocks.*.token_mlp", "blocks.{}.mlp_tokens.", mlp(same)),
        Rule("blocks.*.channel_norm", "blocks.{}.norm2.", NORM),
        Rule("blocks.*.channel_mlp", "blocks.{}.mlp_channels.", mlp()),
        Rule("norm", "norm.", NORM),
        Rule("head", "head.", linear()),
    ]


def as_mlp(model: Any) -> list[Rule]:
    """The four neighbours of a merge are listed down the columns there, along the rows here."""

    def merged(shape: tuple[int, ...]) -> View:
        n, D = shape
        return View((D, n, 1, 1), (D, 2, 2, n // 4), (2, 1, 3, 0))

    def merged_vector(shape: tuple[int, ...]) -> View:
        return View(shape, (2, 2, shape[0] // 4), (1, 0, 2))

    block, shift, conv = "layers.{}.blocks.{}.", "layers.{}.blocks.{}.axial_shift.", kernel(1)
    return [
        Rule("patch_embed.linear", "patch_embed.proj.", linear(kernel(model.patch_size))),
        Rule("patch_norm", "patch_embed.norm.", NORM),
        Rule("stages.*.blocks.*.norm", block + "norm1.", NORM),
        Rule("stages.*.blocks.*.linear_in", shift + "conv1.", linear(conv)),
        Rule("stages.*.blocks.*.norm_in", shift + "norm1.", NORM),
        Rule("stages.*.blocks.*.horizontal", shift + "conv2_1.", linear(conv)),
        Rule("stages.*.blocks.*.vertical", shift + "conv2_2.", linear(conv)),
        Rule("stages.*.blocks.*.norm_out", shift + "norm2.", NORM),
        Rule("stages.*.blocks.*.linear_out", shift + "conv3.", linear(conv)),
        Rule("stages.*.blocks.*.mlp_norm", block + "norm2.", NORM),
        Rule("stages.*.blocks.*.mlp", block + "mlp.", mlp(conv)),
        Rule(
            "stages.*.merge.norm",
            lambda i: f"layers.{i - 1}.downsample.norm.",
            {"gamma": ("weight", merged_vector), "beta": ("bias", merged_vector)},
        ),
        Rule(
            "stages.*.merge.linear",
            lambda i: f"layers.{i - 1}.downsample.reduction.",
            linear(merged),
        ),
        Rule("norm", "norm.", NORM),
        Rule("head", "head.", linear()),
    ]


def hire_mlp(model: Any) -> list[Rule]:
    """Stages are numbered 0, 2, 4, ... there, reductions 1, 3, ...; channels before members."""

    def in_block(ours: str, theirs: str, arrays: Arrays) -> Rule:
        return Rule(
            f"stages.*.blocks.*.{ours}", lambda i, j: f"network.{2 * i}.{j}.{theirs}", arrays
        )

    def reduction(i: int) -> str:
        return f"network.{2 * i - 1}." if i else "patch_embed."

    conv, rules = kernel(1), []
    for i, stage in enumerate(model.stages):
        ours, k = f"stages.{i}.", stage.reduction.convolution.kernel
        rules += [
            Rule(ours + "reduction.convolution.linear", reduction(i) + "proj.", linear(kernel(k))),
            Rule(ours + "reduction.norm", reduction(i) + "norm.", NORM),
        ]
        for branch, theirs in (("rows", "mlp_h"), ("columns", "mlp_w")):
            p, block = stage.blocks[0].rows.p, ours + f"blocks.*.{branch}."
            place = f"network.{2 * i}.{{}}.attn.{theirs}"
            out = linear(interleaved_out(p, convolution=True), interleaved(p))
            rules += [
                Rule(block + "linear_1", place + "1.", linear(interleaved_in(p))),
                Rule(block + "norm", place + "1_norm.", NORM),
                Rule(block + "linear_2", place + "2.", out),
            ]
    z = linear(interleaved_out(3, convolution=False), interleaved(3))
    return [
        *rules,
        in_block("norm", "norm1.", NORM),
        in_block("channels", "attn.mlp_c.", linear(conv)),
        in_block("attention.linear_1", "attn.reweight.fc1.", linear()),
        in_block("attention.linear_2", "attn.reweight.fc2.", z),
        in_block("projection", "attn.proj.", linear(conv)),
        in_block("mlp_norm", "norm2.", NORM),
        in_block("mlp", "mlp.", mlp(conv)),
        Rule("norm", "norm.", NORM),
        Rule("head", "head.", linear()),
    ]


def raft_mlp(model: Any) -> list[Rule]:
    """One matrix for all the windows of a level there; a norm of rafts lists (channel, member)."""

    def window(k: int) -> Viewed:
        def view(shape: tuple[int, ...]) -> View:
            n, C = shape
            return View((C, n), (C, n // k**2, k, k), (2, 3, 1, 0))

        return view

    multi_scale = any(len(level.embed.scales) > 1 for level in model.levels)
    rules = []
    for i, level in enumerate(model.levels):
        ours, theirs = f"levels.{i}.", f"levels.{i}.fn."
        for j, scale in enumerate(level.embed.scales):
            embed = theirs + ("0.fc." if multi_scale else "1.")
            arrays = linear(window(scale.kernel) if multi_scale else transposed)
            rules.append(Rule(f"{ours}embed.scales.{j}.linear", embed, arrays))
        r = level.blocks[0].raft_size
        raft_norm = {"gamma": ("weight", interleaved(r)), "beta": ("bias", interleaved(r))}
        for name, place in (("vertical", "1."), ("horizontal", "3.")):

            def at(j: int, theirs: str = theirs, place: str = place) -> str:
                return f"{theirs}{2 + j}.{place}"

            def at_norm(j: int, at: Callable[[int], str] = at) -> str:
                return at(j) + "norm.1."

            rules += [
                Rule(f"{ours}blocks.*.{name}_norm", at_norm, raft_norm),
                Rule(f"{ours}blocks.*.{name}_mlp", at, mlp(same, "fn.0", "fn.3")),
            ]
    return [
        *rules,
        Rule("levels.*.blocks.*.channel_norm", lambda i, j: f"levels.{i}.fn.{2 + j}.5.norm.", NORM),
        Rule(
            "levels.*.blocks.*.channel_mlp",
            lambda i, j: f"levels.{i}.fn.{2 + j}.5.",
            mlp(transposed, "fn.0", "fn.3"),
        ),
        Rule("norm", "heads.0.1.", NORM),
        Rule("head", "classifier.", linear()),
    ]


def vip(model: Any) -> list[Rule]:
    """Stages and what reduces the grid between them are numbered together there."""
    rules, number = [], 0
    for i, stage in enumerate(model.stages):
        ours = f"stages.{i}."
        if stage.embed is not None:
            theirs = f"network.{number}.proj." if i else "patch_embed.proj."
            rules.append(Rule(ours + "embed.linear", theirs, linear(kernel(stage.embed.kernel))))
            number += i > 0
        place = f"network.{number}.{{}}."
        block, attention = ours + "blocks.*.", ours + "blocks.*.permute_mlp.attention."
        z = linear(interleaved_out(3, convolution=False), interleaved(3))
        rules += [
            Rule(block + "permute_norm", place + "norm1.", NORM),
            Rule(block + "permute_mlp.channel", place + "attn.mlp_c.", linear()),
            Rule(block + "permute_mlp.vertical", place + "attn.mlp_h.", linear()),
            Rule(block + "permute_mlp.horizontal", place + "attn.mlp_w.", linear()),
            Rule(attention + "linear_1", place + "attn.reweight.fc1.", linear()),
            Rule(attention + "linear_2", place + "attn.reweight.fc2.", z),
            Rule(block + "permute_mlp.output", place + "attn.proj.", linear()),
            Rule(block + "channel_norm", place + "norm2.", NORM),
            Rule(block + "channel_mlp", place + "mlp.", mlp()),
        ]
        number += 1
    return [*rules, Rule("norm", "norm.", NORM), Rule("head", "head.", linear())]


# By the name of the model's class.
OFFICIAL: dict[str, Callable[[Any], list[Rule]]] = {
    "MLPMixer": mixer_official,
    "ASMLP": as_mlp,
    "HireMLP": hire_mlp,
    "VisionPermutator": vip,
    "RaftMLP": raft_mlp,
}
TIMM: dict[str, Callable[[Any], list[Rule]]] = {"MLPMixer": mixer_timm}


# Reading and writing -----------------------------------------------------------------------------


def load_state(
    model: Module,
    source: Mapping[str, Any] | Path | str,
    layout: str = "tinymixer",
    *,
    name: str = "",
) -> None:
    """Copy the weights in `source`, named and laid out as in `layout`, into `model`.

    source is a mapping of names to arrays, or an .npz or .safetensors file of them, or a checkpoint
    of a training run; `name` is what errors call it. Every array must be used, every shape must fit
    and every number be finite, or CheckpointError lists what is missing, left over, misshapen or
    not finite, and the model stays as it was. ValueError for a layout that the model's
    system does not have.
    """
    if not name:
        name = str(source) if isinstance(source, str | Path) else "the mapping"
    model.load_state(_as_ours(model, _arrays(source), layout, name))


def save_state(model: Module, path: Path | str, layout: str = "tinymixer") -> None:
    """Write the weights of `model` to an .npz or .safetensors file, named and laid out as `layout`.

    Raises ValueError for another kind of file or a layout that the model's system does not have.
    """
    path, arrays = Path(path), state_in(model, layout)
    if path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        write_atomically(path, _safetensors().save(arrays))
    else:
        raise ValueError(f"cannot write {path}: expected a name that ends in .npz or .safetensors")


def state_in(model: Module, layout: str) -> dict[str, np.ndarray]:
    """The weights of `model` as NumPy arrays, named and laid out as in `layout`."""
    ours = {name: to_numpy(array) for name, array in model.state().items()}
    theirs = {}
    for name, parts in _correspondence(model, layout).items():
        arrays = [view.write(ours[our_name]) for our_name, view in parts]
        theirs[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
        if name.endswith(RUNNING):  # released code counts the batches, and nothing reads it
            theirs[name.removesuffix(RUNNING) + COUNTER] = np.zeros((), np.int64)
    return theirs


def num_classes_in(
    source: Mapping[str, Any] | Path | str, model: Module, layout: str
) -> int | None:
    """For how many classes weights were made, by the bias of the head; None if it is not there."""
    for name, [(our_name, _), *_] in _correspondence(model, layout).items():
        if our_name == "head.b" and name in (arrays := _arrays(source)):
            return arrays[name].size
    return None


RUNNING, COUNTER = ".running_var", ".num_batches_tracked"

# Their name -> our arrays, side by side along axis 1 where there are several, and their views.
Correspondence = dict[str, list[tuple[str, View]]]


def _correspondence(model: Module, layout: str) -> Correspondence:
    state = model.state()
    if layout == "tinymixer":
        return {name: [(name, same(array.shape))] for name, array in state.items()}
    system = type(model).__name__
    rules_of = {"official": OFFICIAL, "timm": TIMM}.get(layout, {}).get(system)
    if rules_of is None:
        known = ["tinymixer"] + ["official"] * (system in OFFICIAL) + ["timm"] * (system in TIMM)
        raise ValueError(
            f"{system} has no layout {layout!r}; there is {' and '.join(known)}. Others were "
            "never released, or hold no such model"
        )
    rules, found = rules_of(model), Correspondence()
    for name, array in state.items():
        (their_name, view), *_ = filter(None, (rule.find(name) for rule in rules))
        found.setdefault(their_name, []).append((name, view(array.shape)))
    return found


def _as_ours(
    model: Module, theirs: Mapping[str, np.ndarray], layout: str, source: str
) -> dict[str, np.ndarray]:
    """Our arrays by name, or CheckpointError with all that is wrong."""
    state, expected = model.state(), _correspondence(model, layout)
    ours: dict[str, np.ndarray] = {}
    wrong: dict[str, list[str]] = {"missing": [], "misshapen": [], "not finite": []}
    for name, parts in expected.items():
        shape = _their_shape([view for _, view in parts])
        if name not in theirs:
            wrong["missing"].append(f"{name} {shape}")
        elif theirs[name].shape != shape:
            wrong["misshapen"].append(f"{name} {theirs[name].shape}, expected {shape}")
        elif theirs[name].dtype.kind not in "fiu" or not np.isfinite(theirs[name]).all():
            wrong["not finite"].append(f"{name} {theirs[name].dtype}")
        else:
            widths = np.cumsum([view.theirs[1] for _, view in parts[:-1]])
            pieces = np.split(theirs[name], widths, axis=1) if len(parts) > 1 else [theirs[name]]
            for (our_name, view), piece in zip(parts, pieces, strict=True):
                ours[our_name] = view.read(piece, state[our_name].shape)
    wrong["left over"] = [
        f"{name} {array.shape}"
        for name, array in theirs.items()
        if name not in expected and not name.endswith(COUNTER)
    ]
    if any(wrong.values()):
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__} in the layout {layout!r}: "
            f"{'; '.join(f'{what}: {_some(names)}' for what, names in wrong.items() if names)}. "
            "Choose the model, its options and the layout that the weights were made with"
        )
    return ours


def _their_shape(views: list[View]) -> tuple[int, ...]:
    first = views[0].theirs
    if len(views) == 1:
        return first
    return (first[0], sum(view.theirs[1] for view in views))


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _arrays(source: Mapping[str, Any] | Path | str) -> dict[str, np.ndarray]:
    """Names and NumPy arrays of a mapping or file; what wraps all of them is taken off."""
    found: Any = read_file(Path(source)) if isinstance(source, str | Path) else source
    for wrapper in ("model", "state_dict"):
        if isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if "header" in found and any(name.startswith("weights/") for name in found):
        found = _trained(found)
    return {name: np.asarray(array) for name, array in found.items()}


def _trained(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The weights in the arrays of a training run's checkpoint, averaged if an average was kept."""
    return {
        name.removeprefix(group): array
        for group in ("weights/", "ema/")
        for name, array in checkpoint.items()
        if name.startswith(group)
    }


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays in an .npz or .safetensors file, or CheckpointError saying what is wrong."""
    try:
        if path.suffix == ".safetensors":
            return _safetensors().load(path.read_bytes())
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise CheckpointError(f"no file {path}: expected weights, .npz or .safetensors") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except KeyError as error:  # of the table of types that safetensors has for NumPy
        raise CheckpointError(
            f"{path} holds arrays of type {error.args[0]}, which NumPy does not have; expected "
            "float32, float16 or float64. Convert them to float32 with the library that made them, "
            "in PyTorch by tensor.float(), and save them again"
        ) from error
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise CheckpointError(
            f"{path} is not a whole .npz or .safetensors file of arrays "
            f"({str(error).partition(chr(10))[0]}). Fetch or convert it again"
        ) from error


def _safetensors() -> Any:
    try:
        from safetensors import numpy
    except ImportError:
        raise CheckpointError(
            "reading and writing .safetensors needs the package safetensors: pip install "
            "'tinymixer[safetensors]'"
        ) from None
    return numpy
