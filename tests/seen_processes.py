"""Processes of a run as the system shows them: those that it started, and whether one has ended."""

import time
from pathlib import Path


def children(pid):
    """The process numbers of those that `pid` started; none where the system does not tell."""
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


def gone(pid, within=0.0):
    """Whether a process has ended within so many seconds, even if no one has asked how."""
    deadline = time.monotonic() + within
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def with_setting(*settings):
    """The process numbers of those that were started with all these, each "NAME=value", set."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            given = (place / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        if {*settings} <= {*given}:
            found.append(int(place.name))
    return found
