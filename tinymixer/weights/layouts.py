"""The layouts of released checkpoints: for each a function that lists the rules of its models.

Sources: the checkpoints released with each system's code, and timm's for Mixer.
"""

from collections.abc import Callable, Collection
from typing import Any

from tinymixer.nn import Module
from tinymixer.weights.rules import (
    NORM,
    Arrays,
    Rule,
    View,
    Viewed,
    interleaved,
    interleaved_in,
    interleaved_out,
    kernel,
    kernel_last,
    linear,
    mlp,
    same,
    transposed,
)

LAYOUTS = ("tinymixer", "official", "timm")


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
    """Stages are numbered 0, 2, 4, ... there, reductions 1, 3, ...; channels before members.

    Every linear map but the head is a 1 x 1 convolution there, also those of the split attention.
    """

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
    z = linear(interleaved_out(3, convolution=True), interleaved(3))
    return [
        *rules,
        in_block("norm", "norm1.", NORM),
        in_block("channels", "attn.mlp_c.", linear(conv)),
        in_block("attention.linear_1", "attn.reweight.fc1.", linear(conv)),
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

# A name that released weights of one system have, and no others, and how the system is called.
SIGNS = {
    "MixerBlock_0/token_mixing/Dense_0/kernel": ("MLPMixer", "Mixer, in its authors' layout"),
    "blocks.0.mlp_tokens.fc1.weight": ("MLPMixer", "Mixer, in timm's layout"),
    "layers.0.blocks.0.axial_shift.conv1.weight": ("ASMLP", "AS-MLP"),
    "network.0.0.attn.mlp_h1.weight": ("HireMLP", "Hire-MLP"),
    "network.0.0.attn.mlp_h.weight": ("VisionPermutator", "Vision Permutator"),
    "levels.0.fn.2.1.fn.0.weight": ("RaftMLP", "RaftMLP"),
}


# Our arrays in one of theirs, side by side along axis 1 where there are several, and their views.
Places = list[tuple[str, View]]
Correspondence = dict[str, Places]  # by their name


def correspondence(model: Module, layout: str) -> Correspondence:
    """Where the arrays of `model` are found in `layout`.

    Raises ValueError for a layout that the model's system does not have.
    """
    state = model.state()
    if layout == "tinymixer":
        return {name: [(name, same(array.shape))] for name, array in state.items()}
    rules_of = {"official": OFFICIAL, "timm": TIMM}.get(layout, {}).get(type(model).__name__)
    if rules_of is None:
        raise ValueError(
            f"{type(model).__name__} has no layout {layout!r}; there is "
            f"{' and '.join(layouts_of(model))}. Others were never released, or hold no such model"
        )
    rules, found = rules_of(model), Correspondence()
    for name, array in state.items():
        their_name, view = next(filter(None, (rule.find(name) for rule in rules)))
        found.setdefault(their_name, []).append((name, view(array.shape)))
    return found


def layouts_of(model: Module) -> list[str]:
    """The layouts that weights of the model's system come in."""
    system = type(model).__name__
    return ["tinymixer"] + ["official"] * (system in OFFICIAL) + ["timm"] * (system in TIMM)


def other_system(model: Module, names: Collection[str]) -> str | None:
    """What system these names are of, in words, if that is not the model's."""
    found = [SIGNS[name] for name in SIGNS if name in names]
    return found[0][1] if found and found[0][0] != type(model).__name__ else None


def find_layout(model: Module, names: Collection[str]) -> str:
    """The layout of the model's system that most of these names are of; ours if none is of any."""
    shares = {
        layout: sum(name in names for name in correspondence(model, layout))
        for layout in layouts_of(model)
    }
    return max(shares, key=lambda layout: shares[layout])
