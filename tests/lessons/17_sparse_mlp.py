"""Typical wrong answers to the exercises of lesson 17, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def renormalised(p, K):
    G = tie_safe(p, K)
    return G / G.sum(1, keepdims=True)


def tie_safe(p, K):
    rank = np.argsort(np.argsort(-p, axis=1, kind="stable"), axis=1)
    return np.where(rank < K, p, 0)


def threshold(p, K):
    return np.where(p >= np.sort(p, axis=1)[:, -K, None], p, 0)


def ones(p, K):
    return (tie_safe(p, K) > 0) * 1.0


def last_of_equals(p, K):
    rank = np.argsort(np.argsort(p, axis=1, kind="stable"), axis=1)
    return np.where(rank >= p.shape[1] - K, p, 0)


def smallest(p, K):
    return p - tie_safe(p, K)


def first_columns(p, K):
    return tie_safe(p, K)[:, :K]


def dp_of(chosen, answers, dy):
    return (answers * dy[:, None]).sum(-1) * chosen


def no_sum(p, chosen, answers, dy):
    return p * dp_of(chosen, answers, dy)


def all_have_a_say(p, chosen, answers, dy):
    return through_softmax(p, dp_of(1, answers, dy))


def chosen_only(p, chosen, answers, dy):
    return through_softmax(p, dp_of(chosen, answers, dy)) * chosen


def through_softmax(p, dp):
    return p * (dp - (p * dp).sum(1, keepdims=True))


def handed_on(p, chosen, answers, dy):
    G = p * chosen / (p * chosen).sum(1, keepdims=True)
    return through_softmax(G, dp_of(chosen, answers, dy))


def counts(choice, E):
    return np.bincount(choice, minlength=E)


WRONG = [
    wrong("route", "rescaled to add up to 1", sparse_gate=renormalised),
    wrong("route", "a tie lets in more than K", sparse_gate=threshold),
    wrong("route", "not with what share", sparse_gate=ones),
    wrong("route", "the higher number", sparse_gate=last_of_equals),
    wrong("route", "the smallest are kept", sparse_gate=smallest),
    wrong("route", "yours is (3, 2)", sparse_gate=first_columns),
    wrong("gate", "the sum over j is missing", gate_gradient=no_sum),
    wrong("gate", "not chosen have an influence", gate_gradient=all_have_a_say),
    wrong("gate", "only the chosen experts get a gradient", gate_gradient=chosen_only),
    wrong("gate", "add up to 1", gate_gradient=handed_on),
    wrong("gate", "softmax comes after it", gate_gradient=lambda p, c, a, dy: dp_of(c, a, dy)),
    wrong(
        "unequal",
        "the square is missing",
        imbalance_of=lambda choice, E: counts(choice, E).std() / counts(choice, E).mean(),
    ),
    wrong(
        "unequal",
        "divided by E - 1",
        imbalance_of=lambda choice, E: (
            (counts(choice, E).std(ddof=1) / counts(choice, E).mean()) ** 2
        ),
    ),
    wrong(
        "unequal",
        "minlength",
        imbalance_of=lambda choice, E: (
            (np.bincount(choice).std() / np.bincount(choice).mean()) ** 2
        ),
    ),
    wrong("unequal", "depend on how many rows", imbalance_of=lambda c, E: counts(c, E).var()),
]
