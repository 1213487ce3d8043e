"""Floor 5. A summary of a model, read off the tape of one forward pass.

A model is run once, on one blank image. Each Function that left a node on the tape is a row: it
knows its weights, its output and what it keeps for backward. Nothing is declared twice, so a
summary cannot disagree with the model, and a model of your own is summarised like any other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tinymixer import nn
from tinymixer.backend import array_module
from tinymixer.engine import Tensor, enable_grad, tensors_below
from tinymixer.models import create_model


@dataclass(frozen=True)
class LayerRow:
    """One Function of a forward, for one image; memory is in bytes."""

    layer: str  # the path of the Module whose Parameters it uses; empty if it uses none
    function: str
    output: str  # shape, with B for the number of images
    parameters: int  # not counting those that an earlier row uses too
    multiply_accumulates: int
    memory: int  # activations that this is the first to keep for backward, weights not included


@dataclass(frozen=True)
class Summary:
    """The rows of a model in order of computation, and their totals; str() is a table."""

    rows: list[LayerRow]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_accumulates(self) -> int:
        return sum(row.multiply_accumulates for row in self.rows)

    @property
    def memory(self) -> int:
        return sum(row.memory for row in self.rows)

    def __str__(self) -> str:
        cells = [("", "layer", "function", "output", "parameters", "mult.-acc.", "bytes kept")]
        for times, row in _folded(self.rows):
            cells.append((times, row.layer, row.function, row.output, *_counts(row)))
        cells.append(("", "total", "", "", *_counts(self)))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        head, *body, total = ("  ".join(map(_aligned, line, widths, "><<<>>>")) for line in cells)
        rule = "-" * len(head)
        note = "For one image; kept for backward are activations, weights not counted."
        return "\n".join([head, rule, *body, rule, total, note])


def blueprint(name: str, num_classes: int | None = None, **changes: Any) -> nn.Module:
    """The model that `create_model` makes, but with weights of zero, which cost nothing to make.

    Only its shapes have a meaning, and they are enough to summarise the largest model on any
    machine.
    """
    return create_model(name, num_classes, rng=nn.BLANK, **changes)


def summarise(model: Any, image_size: tuple[int, int] | None = None) -> Summary:
    """What `model` computes for one image, of its own `image_size` or another, by Function.

    Memory is counted in the precision of the weights, and as an evaluation would keep it: the
    masks of dropout come on top in training.
    """
    layers = nn.layer_names(model)
    weights = [parameter.data for parameter in layers]
    blank = array_module(weights[0]).zeros(
        (1, *(image_size or model.image_size), getattr(model, "channels", 3)), weights[0].dtype
    )
    met: set[Tensor] = set()  # Parameters, and
    held = {id(_owner(W)) for W in weights}  # memory, that rows so far have counted
    rows = []
    with enable_grad():
        output = model(Tensor(blank))
    for y in tensors_below(output):
        node = y.creator
        used = {x for x in node.inputs if x in layers}
        arrays = [None if x is None else x.data for x in node.inputs]
        kept = {id(x): x.nbytes for x in map(_owner, node.saved or ()) if hasattr(x, "nbytes")}
        rows.append(
            LayerRow(
                layer=nn.layer_of(node, layers),
                function=type(node).__name__,
                output=_with_batch(y.shape),
                parameters=sum(parameter.size for parameter in used - met),
                multiply_accumulates=node.multiply_accumulates(*arrays),
                memory=sum(nbytes for owner, nbytes in kept.items() if owner not in held),
            )
        )
        met |= used
        held |= kept.keys()
    return Summary(rows)


def _owner(x: Any) -> Any:
    """The array whose memory x is a view of; that is what a saved view keeps alive."""
    while getattr(x, "base", None) is not None:
        x = x.base
    return x


def _with_batch(shape: tuple[int, ...]) -> str:
    """Channels come last and images just before them, in every layout of activations here."""
    sizes = [str(n) for n in shape]
    if len(shape) > 1 and shape[-2] == 1:
        sizes[-2] = "B"
    return f"({', '.join(sizes)})"


def _folded(rows: list[LayerRow]) -> Iterator[tuple[str, LayerRow]]:
    """The rows, each with "" before it, but a stack of equal blocks once, with "8 x" before it.

    Blocks are equal when only the numbers in their paths differ: `blocks.*.token_mlp`.
    """
    alike = [replace(row, layer=re.sub(r"\.\d+", ".*", row.layer)) for row in rows]
    i = 0
    while i < len(rows):
        for n in range(1, (len(rows) - i) // 2 + 1):
            times = 1
            while alike[i + times * n : i + (times + 1) * n] == alike[i : i + n]:
                times += 1
            if times > 1:
                yield from ((f"{times} x", row) for row in alike[i : i + n])
                i += times * n
                break
        else:
            yield "", rows[i]
            i += 1


def _counts(row: LayerRow | Summary) -> tuple[str, str, str]:
    return f"{row.parameters:,}", f"{row.multiply_accumulates:,}", f"{row.memory:,}"


def _aligned(cell: str, width: int, side: str) -> str:
    return f"{cell:{side}{width}}"
