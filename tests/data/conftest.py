"""CIFAR with few records, in place of the real sizes."""

import pytest
from fake_cifar import SMALL

from tinymixer import data


@pytest.fixture(params=SMALL)
def layout(request, monkeypatch):
    monkeypatch.setitem(data._LAYOUTS, request.param, SMALL[request.param])
    return SMALL[request.param]


@pytest.fixture
def ten(monkeypatch):
    monkeypatch.setitem(data._LAYOUTS, "cifar10", SMALL["cifar10"])
    return SMALL["cifar10"]
