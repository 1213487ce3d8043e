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
