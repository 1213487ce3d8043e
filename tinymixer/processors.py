"""Floor 0. What a process may use: processors, maybe fewer than the machine has, and threads."""

import contextlib
import math
import os
import sys
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")  # where Linux shows its control groups
OURS = Path("/proc/self/cgroup")  # and which of them this process is in


def threads_start() -> bool:
    """Whether this process may start threads and other processes: Python in a browser may not."""
    return sys.platform != "emscripten"


def processors() -> int:
    """The processors that this process may run on, and has time for: at least 1.

    A scheduler may tie a process to some (its affinity); a container may give it the time of some.
    The time of a part of a processor counts as one. Where no threads start, one is of use.
    """
    if not threads_start():
        return 1
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        found = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):  # of Linux
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count()
    return max(1, math.ceil(min(found or 1, _time())))


def _time() -> float:
    """As many processors as the container gives the time of; infinite where there is no limit.

    Of the group of this process and of those around it, the narrowest limit holds. A container may
    not see its group by the name that the machine has for it: then its root is its own group.
    """
    least = math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in OURS.read_text().splitlines():
            _, kinds, group = line.split(":", 2)
            if kinds == "" or "cpu" in kinds.split(","):
                top = GROUPS / kinds  # of cgroups v2, GROUPS itself
                place = top / group.strip("/")
                for folder in (place, *place.parents):
                    if folder.is_relative_to(top):
                        least = min(least, _limit(folder))
    return least


def _limit(group: Path) -> float:
    """Time allowed in each period, and the period: in one file (v2), or in two (v1)."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            words = " ".join((group / name).read_text() for name in names).split()
            quota, period = map(int, words)  # "max" is no number: no limit
            if quota > 0:  # -1: no limit
                return quota / period
    return math.inf
