"""Typical wrong answers to the exercises of lesson 09, each with what the check must say to it."""

from notebooks import wrong

from tinymixer import nn


def stops_at_the_top(module, prefix=""):
    return [name for name, value in vars(module).items() if isinstance(value, nn.Parameter)]


def without_lists(module, prefix=""):
    names = []
    for name, value in vars(module).items():
        if isinstance(value, nn.Parameter):
            names.append(prefix + name)
        elif isinstance(value, nn.Module):
            names += without_lists(value, prefix + name + ".")
    return names


def without_prefix(module, prefix=""):
    return [path.split(".")[-1] for path, _ in module.named_parameters()]


def sorted_by_name(module, prefix=""):
    return sorted(path for path, _ in module.named_parameters())


def only_modules_in_lists(module, prefix=""):
    return [path for path, _ in module.named_parameters() if path != "scales.0"]


def cut(rng, n):
    draws = rng.standard_normal(n)
    while (outside := abs(draws) > 2).any():
        draws[outside] = rng.standard_normal(outside.sum())
    return draws


def thrown_away(rng, n):
    draws = rng.standard_normal(n)
    return draws[abs(draws) <= 2] / 0.88


def redrawn_once(rng, n):
    draws = rng.standard_normal(n)
    outside = abs(draws) > 2
    draws[outside] = rng.standard_normal(outside.sum())
    return draws / 0.88


WRONG = [
    wrong("walk", "stop at the top", names_of=stops_at_the_top),
    wrong("walk", "lists are left out", names_of=without_lists),
    wrong("walk", "the prefix is lost", names_of=without_prefix),
    wrong("walk", "another order", names_of=sorted_by_name),
    wrong("walk", "lies in a list itself", names_of=only_modules_in_lists),
    wrong(
        "fan",
        "looks like the variance",
        first_std=lambda shape, side: 1 / shape[0 if side == "right" else 1],
    ),
    wrong("fan", "the first axis for both", first_std=lambda shape, side: shape[0] ** -0.5),
    wrong("fan", "the last axis for both", first_std=lambda shape, side: shape[1] ** -0.5),
    wrong(
        "fan", "fan-out", first_std=lambda shape, side: shape[1 if side == "right" else 0] ** -0.5
    ),
    wrong("fan", "Glorot", first_std=lambda shape, side: (2 / sum(shape)) ** 0.5),
    wrong("cut", "scaling is missing", cut_normal=cut),
    wrong("cut", "clipping", cut_normal=lambda rng, n: rng.standard_normal(n).clip(-2, 2)),
    wrong("cut", "drawn again", cut_normal=thrown_away),
    wrong("cut", "tails are left", cut_normal=redrawn_once),
    wrong("cut", "divide by it", cut_normal=lambda rng, n: cut(rng, n) * 0.8796),
    wrong("cut", "divide by its root", cut_normal=lambda rng, n: cut(rng, n) / 0.774),
    wrong("cut", "should be 1", cut_normal=lambda rng, n: cut(rng, n) * 0.8),
]
