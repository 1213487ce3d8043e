"""CIFAR with few records, in place of the real sizes."""

import pytest
from fake_cifar import SMALL

from tinymixer import data
from tinymixer.data import cifar


@pytest.fixture(params=SMALL)
def layout(request, monkeypatch):
    monkeypatch.setitem(data.PUBLISHED, request.param, data.Published(SMALL[request.param], cifar))
    return SMALL[request.param]


@pytest.fixture
def ten(monkeypatch):
    monkeypatch.setitem(data.PUBLISHED, "cifar10", data.Published(SMALL["cifar10"], cifar))
    return SMALL["cifar10"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of one's own for the squares of pictures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return tmp_path / ".cache" / "tinymixer"
