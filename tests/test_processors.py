"""As many processors are counted as the process may use, not as many as the machine has."""

import os

import pytest

from tinymixer import processors as module
from tinymixer.processors import processors


@pytest.fixture
def eight(monkeypatch, tmp_path):
    """A process that may run on eight processors, in no container."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(module, "OURS", tmp_path / "cgroup")
    monkeypatch.setattr(module, "GROUPS", tmp_path / "fs")
    return tmp_path


def limited(root, groups, files):
    (root / "cgroup").write_text(groups)
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/seen/outside/only\n", {"cpu.max": "400000 100000"}, 4),
        (
            "3:memory:/x\n2:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "50000"}, 8),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "5", "cpu/cpu.cfs_period_us": "0"}, 8),
        ("nonsense\n", {"cpu.max": "100000 100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
    ],
)
def test_a_container_gives_the_time_of_so_many(eight, groups, files, count):
    limited(eight, groups, files)
    assert processors() == count


def test_a_process_may_be_tied_to_some(eight, monkeypatch):
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    assert processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1
