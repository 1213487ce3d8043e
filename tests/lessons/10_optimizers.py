"""Typical wrong answers to the exercises of lesson 10, each with what the check must say to it."""

import math

import numpy as np
from notebooks import wrong

from tinymixer import optim


def half_life(beta):
    """The first whole number n with beta ** n < 1/2."""
    return math.floor(math.log(0.5) / math.log(beta)) + 1


def rate(step, base, final, warmup, total):
    return optim.learning_rate(step, base=base, final=final, warmup=warmup, total=total)


def upside_down(base, final, warmup, total, longer):
    last = rate(total - 1, base, final, warmup, total)
    return last / rate(total, base, final, warmup, longer)


def both_longer(base, final, warmup, total, longer):
    last = rate(total - 1, base, final, warmup, longer)
    return rate(total, base, final, warmup, longer) / last


def both_old(base, final, warmup, total, longer):
    last = rate(total - 1, base, final, warmup, total)
    return rate(total, base, final, warmup, total) / last


def from_final(base, final, warmup, total, longer):
    return rate(total, base, final, warmup, longer) / final


def one_too_far(base, final, warmup, total, longer):
    last = rate(total - 1, base, final, warmup, total)
    return rate(total + 1, base, final, warmup, longer) / last


def from_the_top(base, final, warmup, total, longer):
    return base / rate(total - 1, base, final, warmup, total)


def by_its_length(g, max_norm):
    norm = np.linalg.norm(g)
    return g / norm * min(norm, max_norm)


def factor_of_floats(g, max_norm):
    return g * min(1.0, max_norm / math.hypot(*g))


WRONG = [
    wrong("memory", "still go down", first_step_up=lambda beta1: half_life(beta1) - 1),
    wrong("memory", "starts at 0 or includes", first_step_up=lambda beta1: half_life(beta1) + 1),
    wrong("memory", "old steps are counted", first_step_up=lambda beta1: half_life(beta1) + 1000),
    wrong("memory", "1 / (1 - beta1)", first_step_up=lambda beta1: 1 / (1 - beta1)),
    wrong("memory", "how long v remembers", first_step_up=lambda beta1: half_life(0.999)),
    wrong("memory", "Now change it", first_step_up=lambda beta1: 7),
    wrong("memory", "a number of steps", first_step_up=lambda beta1: np.ones(3)),
    wrong("memory", "it is step 7; yours is 2", first_step_up=lambda beta1: 2),
    wrong("longer", "upside down", rate_jump=upside_down),
    wrong("longer", "no change", rate_jump=lambda *_: 1.0),
    wrong("longer", "taken with the old total", rate_jump=both_longer),
    wrong("longer", "the old schedule goes on", rate_jump=both_old),
    wrong("longer", "not quite `final`", rate_jump=from_final),
    wrong("longer", "count from 0", rate_jump=one_too_far),
    wrong("longer", "starts again from `base`", rate_jump=from_the_top),
    wrong("clip", "by itself", clipped=lambda g, max_norm: g.clip(-max_norm, max_norm)),
    wrong("clip", "made longer", clipped=lambda g, max_norm: g * max_norm / np.linalg.norm(g)),
    wrong("clip", "root is missing", clipped=lambda g, max_norm: g * max_norm / (g @ g)),
    wrong("clip", "a sum in place", clipped=lambda g, max_norm: g * max_norm / abs(g).sum()),
    wrong(
        "clip",
        "norm becomes 1",
        clipped=lambda g, max_norm: g / max(np.linalg.norm(g), 1),
    ),
    wrong("clip", "a gradient of zeros", clipped=by_its_length),
    wrong("clip", "a gradient of zeros", clipped=factor_of_floats),
]
