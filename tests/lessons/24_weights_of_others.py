"""Typical wrong answers to the exercises of lesson 24, each with what the check must say to it."""

from notebooks import wrong


def split_the_other_way(theirs, p):
    n = theirs.shape[1]
    return theirs.reshape(p, -1, n).transpose(2, 1, 0).reshape(n, -1)


def left_lying(theirs, p):
    n = theirs.shape[1]
    return theirs.reshape(-1, p, n).transpose(1, 0, 2).reshape(-1, n)


def where(fits, missing=True):
    """Theirs where `fits` says so, and with `missing` ours elsewhere."""

    def keep_what_fits(ours, theirs):
        found = dict(ours) if missing else {}
        return found | {n: x for n, x in theirs.items() if n in ours and fits(x, ours[n])}

    return keep_what_fits


WRONG = [
    wrong("read", "only transposed", read_interleaved=lambda theirs, p: theirs.T),
    wrong("read", "split as (member, channel)", read_interleaved=split_the_other_way),
    wrong("read", "without the transpose into (in, out)", read_interleaved=left_lying),
    wrong(
        "read",
        "a reshape alone",
        read_interleaved=lambda theirs, p: theirs.reshape(theirs.shape[1], -1),
    ),
    wrong("fitting", "only they have", keep_what_fits=lambda ours, theirs: ours | theirs),
    wrong("fitting", "shapes are not compared", keep_what_fits=where(lambda x, y: True)),
    wrong("fitting", "sizes are compared", keep_what_fits=where(lambda x, y: x.size == y.size)),
    wrong("fitting", "is missing", keep_what_fits=where(lambda x, y: x.shape == y.shape, False)),
    wrong("fitting", "W fits", keep_what_fits=lambda ours, theirs: dict(ours)),
]
