"""Policies of AutoAugment for tests, beside those that users may name."""

from tinymixer.data.autoaugment import POLICIES
from tinymixer.options import OneOf


def add_policy(monkeypatch, name, pairs):
    """A policy of a test's own, which `Augment(auto_augment=name)` then accepts."""
    monkeypatch.setitem(POLICIES, name, pairs)
    listed = OneOf.__contains__
    monkeypatch.setattr(OneOf, "__contains__", lambda all_, x: x == name or listed(all_, x))
