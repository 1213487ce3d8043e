"""Typical wrong answers to the exercises of lesson 20, each with what the check must say to it."""

from notebooks import wrong

from tinymixer.train.parallel import GradientSum


def remainder_lost(rank, size, count):
    each = count // size
    return range(rank * each, (rank + 1) * each)


def rounded_up(rank, size, count):
    each = -(-count // size)
    return range(min(rank * each, count), min((rank + 1) * each, count))


def rest_for_the_last(rank, size, count):
    each = count // size
    return range(rank * each, count if rank == size - 1 else (rank + 1) * each)


def end_included(rank, size, count):
    return range(rank * count // size, (rank + 1) * count // size + 1)


def mean_of_means(ranks, gradient, images):
    return sum(ranks.gather(gradient)) / ranks.size


def sum_of_means(ranks, gradient, images):
    return sum(ranks.gather(gradient))


def undivided(ranks, gradient, images):
    return sum(ranks.gather(images * gradient))


def divided_by_ranks(ranks, gradient, images):
    return sum(ranks.gather(images * gradient)) / ranks.size


def unweighted(ranks, gradient, images):
    return sum(ranks.gather(gradient)) / sum(ranks.gather(images))


def own_number(ranks, gradient, images):
    """Divided by what this rank has, not by what all have."""
    return sum(ranks.gather(images * gradient)) / max(1, images)


def first_rank_only(ranks, gradient, images):
    """Only rank 0 gathers, so it waits for calls that the others do not make."""
    if ranks.rank == 0:
        ranks.gather(images)
    return sum(ranks.gather(images * gradient)) / 32


def waiting(mine, leaves):
    total = GradientSum(leaves)
    for leaf in mine:
        total.add(leaf, [])
    return set(total.waiting)


def without_root(mine, leaves):
    return waiting(mine, leaves) - {((leaves - 1).bit_length(), 0)}


def alone_stays(mine, leaves):
    """A node without sibling is reported where it is, and not taken to the next level."""
    left, nodes, width, level = set(), set(mine), leaves, 0
    while width > 1:
        pairs = {n for n in nodes if n ^ 1 in nodes}
        left |= {(level, n) for n in nodes - pairs}
        nodes, width, level = {n // 2 for n in pairs}, (width + 1) // 2, level + 1
    return left


needed = {"sums of gradients", "losses", "running statistics"}

WRONG = [
    wrong("leaves", "remainder lost", my_leaves=remainder_lost),
    wrong("leaves", "all wait for the one with most", my_leaves=rounded_up),
    wrong("leaves", "all wait for the one with most", my_leaves=rest_for_the_last),
    wrong("leaves", "computed twice", my_leaves=lambda rank, size, count: range(count)),
    wrong("leaves", "there is no leaf 7", my_leaves=end_included),
    wrong("leaves", "not neighbours", my_leaves=lambda r, size, n: list(range(r, n, size))),
    wrong("leaves", "whole numbers", my_leaves=lambda r, size, n: [r * n / size]),
    wrong("leaves", "a range or a list", my_leaves=lambda r, size, n: n // size),
    wrong("leaves", "`return` is missing", my_leaves=lambda r, size, n: None),
    wrong("sent", "weights need not be sent", sent=needed | {"weights"}),
    wrong("sent", "moments need not be sent", sent=needed | {"moments"}),
    wrong("sent", "images need not be sent", sent=["images", "labels", *needed]),
    wrong("sent", "random numbers need not be sent", sent=needed | {"random numbers"}),
    wrong("sent", "sums of gradients must be sent", sent={"losses", "running statistics"}),
    wrong("sent", "losses must be sent", sent=needed - {"losses"}),
    wrong("sent", "running statistics must be sent", sent=needed - {"running statistics"}),
    wrong("sent", "not in the list", sent={"gradients"}),
    wrong("sent", "wanted is a set", sent="losses"),
    wrong("unequal", "mean of means", whole_gradient=mean_of_means),
    wrong("unequal", "plain sum of means", whole_gradient=sum_of_means),
    wrong("unequal", "divide it by their number", whole_gradient=undivided),
    wrong("unequal", "by the number of ranks", whole_gradient=divided_by_ranks),
    wrong("unequal", "counts as one image", whole_gradient=unweighted),
    wrong("unequal", "their weights would differ", whole_gradient=own_number),
    wrong("unequal", "own gradient", whole_gradient=lambda ranks, gradient, n: gradient),
    wrong("unequal", "deadlock", whole_gradient=first_rank_only),
    wrong("unequal", "of shape (2,)", whole_gradient=lambda ranks, g, n: ranks.gather(g)),
    wrong("unequal", "`return` is missing", whole_gradient=lambda ranks, g, n: None),
    wrong("left", "all leaves", left_over=lambda mine, leaves: {(0, leaf) for leaf in mine}),
    wrong(
        "left", "the level comes first", left_over=lambda *a: {n[::-1] for n in without_root(*a)}
    ),
    wrong("left", "it is not left over", left_over=alone_stays),
    wrong("left", "has no sibling", left_over=waiting),
    wrong("left", "highest node alone", left_over=lambda *a: sorted(without_root(*a))[-1:]),
    wrong("left", "keeps", left_over=lambda mine, leaves: set()),
    wrong("left", "`return` is missing", left_over=lambda mine, leaves: None),
]
