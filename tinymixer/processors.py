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
    """How many processors this process can use: at least 1.

    A scheduler may restrict a process to some processors (its CPU affinity), and a container may
    limit its processor time (its CPU quota). A quota of 1.5 counts as 2. Where no threads
    start, it is 1.
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
    """The CPU quota of the container, in processors; infinite where there is no limit.

    The smallest limit holds, of this process's control group and of all groups that contain it.
    Inside a container the group may not be found under its name: then the root is its own group.
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
            quota, period = map(int, words)  # "max" means no limit
            if quota > 0:  # -1: no limit
                return quota / period
    return math.inf
