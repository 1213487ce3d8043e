"""What a training pass yields beside its output."""

import numpy as np
from checks import B, C

from tinymixer import nn
from tinymixer.engine import Tensor


def test_auxiliary_collects_in_its_own_thread_and_nests(rng):
    norm = nn.BatchNorm(C)
    x = rng.standard_normal((2, 2, B, C))
    loss = Tensor(np.ones(()))
    with nn.auxiliary() as outer:
        with nn.auxiliary() as inner:
            norm(x, rng=rng)
            nn.add_loss(loss)
        nn.add_loss(loss)
    assert (len(inner.updates), len(inner.losses)) == (1, 1)
    assert (len(outer.updates), len(outer.losses)) == (0, 1)
    assert not norm.running_mean.data.any()
    ((update, arrays),) = inner.updates
    update(*arrays)
    assert norm.running_mean.data.all()
    nn.add_loss(loss)  # outside: ignored
