"""Typical wrong answers to the exercises of lesson 10, each with what the check must say to it."""

import math

import numpy as np
from notebooks import wrong


def moments(m, v, g):
    return 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g


def uncorrected(w, m, v, g, lr, t, eps=1e-8):
    m, v = moments(m, v, g)
    return w - lr * m / (np.sqrt(v) + eps), m, v


def rootless(w, m, v, g, lr, t, eps=1e-8):
    m, v = moments(m, v, g)
    return w - lr * m / (1 - 0.9**t) / (v / (1 - 0.999**t) + eps), m, v


def eps_inside(w, m, v, g, lr, t, eps=1e-8):
    m, v = moments(m, v, g)
    return w - lr * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + eps), m, v


def hats_kept(w, m, v, g, lr, t, eps=1e-8):
    m, v = moments(m, v, g)
    m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return w - lr * m / (np.sqrt(v) + eps), m, v


def from_zero(w, m, v, g, lr, t, eps=1e-8):
    m, v = moments(m, v, g)
    return w - lr * m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + eps), m, v


def not_squared(w, m, v, g, lr, t, eps=1e-8):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g
    return w - lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps), m, v


def summed(w, m, v, g, lr, t, eps=1e-8):
    m, v = 0.9 * m + g, 0.999 * v + 0.001 * g * g
    return w - lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps), m, v


def cosine(t, final, base):
    return final + (base - final) * 0.5 * (1 + math.cos(math.pi * t))


def no_warmup(step, base, final, warmup, total):
    return cosine(max(0, (step - warmup) / (total - warmup)), final, base)


def from_step_0(step, base, final, warmup, total):
    return base * (step + 1) / (warmup + 1) if step < warmup else cosine(step / total, final, base)


def from_rate_0(step, base, final, warmup, total):
    if step < warmup:
        return base * step / warmup
    return cosine((step - warmup) / (total - warmup), final, base)


def whole_wave(step, base, final, warmup, total):
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    return cosine(2 * (step - warmup) / (total - warmup), final, base)


def by_its_length(g, max_norm):
    norm = np.linalg.norm(g)
    return g / norm * min(norm, max_norm)


def factor_of_floats(g, max_norm):
    return g * min(1.0, max_norm / math.hypot(*g))


WRONG = [
    wrong("adam", "hats are missing", adam_step=uncorrected),
    wrong("adam", "the root is missing", adam_step=rootless),
    wrong("adam", "inside the root", adam_step=eps_inside),
    wrong("adam", "without hats", adam_step=hats_kept),
    wrong("adam", "t counts from 1 already", adam_step=from_zero),
    wrong("adam", "g squared", adam_step=not_squared),
    wrong("adam", "weight the new one", adam_step=summed),
    wrong("cosine", "warm-up is missing", rate_at=no_warmup),
    wrong("cosine", "starts at step 0", rate_at=from_step_0),
    wrong("cosine", "starts at zero", rate_at=from_rate_0),
    wrong("cosine", "half of one", rate_at=whole_wave),
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
