"""What programs wrap around weights, taken off: `state_dict`, `module.`, `opt/target/`.

Names come with "/" between the containers of a file and "." between the parts of a model. The first
part of all names is looked at, again and again, until it says nothing any more:

* It is the name of a container of weights: that container is taken, and what is beside it left.
  Of averaged and raw weights, the averaged are taken, since those are what is evaluated; arrays
  that are not averaged, such as running means, come from the raw ones.
* All names have the same first part: it is a prefix, and is taken off, unless it is a part of a
  model, such as `levels` of a pyramid whose head was left out.

What is left may still be several models, such as `student` and `teacher`: then the user says which.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tinymixer.weights.layouts import SIGNS

AVERAGED = (
    *("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model"),
    *("ema", "ema_params", "params_ema", "ema_weights"),
)
RAW = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("params", "target", "weights", "_orig_mod", "backbone", "encoder", "base_encoder"),
)
WHOLE = ("model", "net", "module", "_orig_mod")  # what holds a model whole, head included
PARTS = (
    *("blocks", "layers", "levels", "network", "stages", "patch_embed", "stem", "norm"),
    *("head", "heads", "classifier"),
)
OURS = (  # a name that each model of ours has, as layouts.SIGNS are of released ones
    *("patch_embed.linear.W", "stages.0.reduction.convolution.linear.W"),
    *("stages.0.embed.linear.W", "levels.0.embed.scales.0.linear.W"),
)
COUNTS = ("n_averaged", "step", "epoch")  # single numbers that stand among names of a model
FEWEST = 9  # names that a common first part is a prefix of, and not a layer that is alone
DEEPEST = 16


@dataclass(frozen=True)
class Unwrapped:
    """Names without what was wrapped around them, each with the name in the file; and what was."""

    names: dict[str, str]
    notes: tuple[str, ...]


def unwrapped(names: list[str], average: bool = True, key: str = "") -> Unwrapped:
    """The names of the weights among `names`, or of those in the container `key` among them.

    Without `average`, of the raw ones. Raises ValueError for a key that is not there, and where
    there are several models.
    """
    inside = {name: name for name in names}
    if key := key.rstrip("/."):
        within = (f"{key}/", f"{key}.")
        inside = {x[len(key) + 1 :]: x for x in names if x.startswith(within) and x not in within}
        if not inside:
            firsts = dict.fromkeys(_split(name)[0] or name for name in names)
            raise ValueError(f"it has no {key!r}; it has {_some(list(firsts))}")
    found = _without(inside, average, DEEPEST)
    models = _models(found.names)
    if len(models) > 1 and "" not in models:
        places = [found.names[prefix + sign][: -len(sign)] for prefix, sign in models.items()]
        several = _some([place.rstrip("/.") for place in places])
        raise ValueError(
            f"it holds several models: {several}. Choose one with --checkpoint-key, or by "
            "read_weights(..., key=...)"
        )
    for prefix, sign in models.items():
        if prefix and sign not in OURS:  # which a model of ours may hold as a part
            return _taken(found, prefix)
    return found


def _models(names: Iterable[str]) -> dict[str, str]:
    """What comes before the names of each whole model, and the sign by which it is known."""
    signs = (*SIGNS, *OURS)
    found = ((x, sign) for x in names if x.endswith(signs) for sign in signs if x.endswith(sign))
    places = ((name.removesuffix(sign), sign) for name, sign in found)
    return {prefix: sign for prefix, sign in places if prefix[-1:] in ("", "/", ".")}


def _taken(found: Unwrapped, prefix: str) -> Unwrapped:
    """The names without the prefix that those of a model begin with.

    What is beside a container, "mixer/...", is left out; beside the names of a part,
    "backbone....", there may be those of its head.
    """
    inside = {x: place for x, place in found.names.items() if x.startswith(prefix)}
    beside = {x: place for x, place in found.names.items() if x not in inside}
    notes = [f"the names were taken without {prefix!r}, which they begin with"]
    if beside and prefix.endswith("/"):
        firsts = dict.fromkeys(_split(x)[0] or x for x in beside)
        notes.append(f"beside them, {_some(list(firsts))} was left out")
        beside = {}
    names = beside | {x.removeprefix(prefix): place for x, place in inside.items()}
    return Unwrapped(names, (*found.notes, *notes))


def _without(names: dict[str, str], average: bool, depth: int) -> Unwrapped:
    groups: dict[str, dict[str, str]] = {}
    for name, place in names.items():
        first, mark, rest = _split(name)
        groups.setdefault(first + mark, {})[rest] = place
    firsts = {group.rstrip("/."): group for group in groups}
    parts = {group.rstrip("/.") for group in groups if group} | groups.get("", {}).keys()
    raw = next((firsts[name] for name in RAW if name in firsts), None)
    averaged = next((firsts[name] for name in AVERAGED if name in firsts), None)
    inside = raw or averaged
    # "model/…" is a container whatever is beside it, "model.…" if no part of a model is: a loss may
    # be. "backbone.…" is one only if nothing else is there.
    whole = inside and inside[:-1] in WHOLE and len(groups[inside]) >= FEWEST
    if inside and (
        inside[-1] == "/"
        or (whole and not parts & {*PARTS})
        or parts <= {*AVERAGED, *RAW, *COUNTS} - {*PARTS}
    ):
        return _chosen(groups, raw, averaged, average, depth)
    if len(groups) == 1 and len(names) >= FEWEST and depth:
        (prefix, inner), *_ = groups.items()
        if prefix.endswith(("/", ".")) and prefix[:-1] not in PARTS:
            found = _without(inner, average, depth - 1)
            note = f"the names were taken without {prefix!r}, which they begin with"
            return Unwrapped(found.names, (note, *found.notes))
    return Unwrapped(names, ())


def _chosen(
    groups: dict[str, dict[str, str]],
    raw: str | None,
    averaged: str | None,
    average: bool,
    depth: int,
) -> Unwrapped:
    """The weights in one container of them, or, of two, in the averaged or the raw one."""
    if not depth:
        raise ValueError(f"its containers are nested more than {DEEPEST} deep")
    found = {
        group: _without(groups[group], average, depth - 1) for group in (raw, averaged) if group
    }
    if raw and averaged and 2 * len(found[averaged].names) >= len(found[raw].names):
        take, leave = (averaged, raw) if average else (raw, averaged)
        names = dict(found[take].names)
        if average and names.keys() <= found[raw].names.keys():
            names = found[raw].names | names
        kinds = ("averaged", "raw") if average else ("raw", "averaged")
        notes = [
            f"the {kinds[0]} weights in {take.rstrip('/')!r} were taken, not the {kinds[1]} in "
            f"{leave.rstrip('/')!r}"
        ]
    else:
        take = raw or averaged or ""
        names, notes = found[take].names, [f"the weights were taken from {take.rstrip('/')!r}"]
        if take.endswith("."):
            notes = [f"the names were taken without {take!r}, which they begin with"]
    left = [group.rstrip("/.") for group in groups if group not in (raw, averaged, "")]
    left += groups.get("", {})
    if left:
        notes.append(f"beside them, {_some(left)} was left out")
    return Unwrapped(names, (*notes, *found[take].notes))


def _split(name: str) -> tuple[str, str, str]:
    """The first part of a name, what ends it and the rest; a name without parts is its own rest."""
    found = re.match(r"([^/.]+)([/.])(.+)", name, re.DOTALL)
    return (found[1], found[2], found[3]) if found else ("", "", name)


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
