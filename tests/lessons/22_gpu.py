"""Typical wrong answers to the exercises of lesson 22, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def long_pieces(t, threads, pack, n):
    return list(range(t * n // threads, (t + 1) * n // threads))


def short_jumps(t, threads, pack, n):
    """Over threads, not over their packs."""
    starts = range(t * pack, n, threads)
    return np.unique([j for start in starts for j in range(start, min(n, start + pack))])


def whole_rounds(t, threads, pack, n):
    """As many packs for each thread, also where the row has ended."""
    rounds = -(-n // (threads * pack))
    return [(i * threads + t) * pack + k for i in range(rounds) for k in range(pack)]


def kept_bits(step, shift):
    def rounded(x, bits):
        m, e = np.frexp(x)
        return np.ldexp(step(np.ldexp(m, bits + shift)), e - bits - shift)

    return rounded


def into_x(x, bits):
    x[...] = kept_bits(np.rint, 1)(x, bits)
    return x


def as_float16(x, bits):
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


WRONG = [
    wrong("elements", "one long piece", elements_of=long_pieces),
    wrong("elements", "single elements", elements_of=lambda t, T, p, n: range(t, n, T)),
    wrong(
        "elements", "only the first pack", elements_of=lambda t, T, p, n: range(t * p, t * p + p)
    ),
    wrong("elements", "passes over their packs", elements_of=short_jumps),
    wrong("elements", "first element", elements_of=lambda t, T, p, n: range(t * p, n, T * p)),
    wrong("elements", "behind the end", elements_of=whole_rounds),
    wrong("rounded", "cut off", rounded=kept_bits(np.trunc, 1)),
    wrong("rounded", "one bit too few", rounded=kept_bits(np.rint, 0)),
    wrong("rounded", "one bit too many", rounded=kept_bits(np.rint, 2)),
    wrong("rounded", "behind the point", rounded=lambda x, bits: np.rint(x * 2**bits) / 2**bits),
    wrong("rounded", "decimal digits", rounded=lambda x, bits: np.round(x, bits)),
    wrong("rounded", "wrote into x", rounded=into_x),
    wrong("rounded", "float16", rounded=as_float16),
    wrong("rounded", "not for 7", rounded=lambda x, bits: kept_bits(np.rint, 1)(x, 10)),
]
