"""How long a kernel takes, by the GPU's own clock."""

import sys
from types import SimpleNamespace

from tinymixer.fast.gpu.launches import gpu_ms


def test_a_gpu_is_timed_by_its_own_clock_behind_what_keeps_it_at_work(monkeypatch):
    done = []

    class Event:
        def __init__(self):
            self.record = lambda: done.append(self)
            self.synchronize = lambda: done.append("waited")

    def elapsed(start, end):
        assert done == ["again", "ahead", start, "again", "again", "again", end, "waited"]
        return 6.0

    cuda = SimpleNamespace(Event=Event, get_elapsed_time=elapsed)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    again, ahead = (lambda word=word: done.append(word) for word in ("again", "ahead"))
    assert gpu_ms(again, 3, ahead) == 2.0
