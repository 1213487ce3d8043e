"""Options: fields of a dataclass that say what they do and which values they may have."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import pytest

from tinymixer.data import Augment
from tinymixer.errors import TinymixerError
from tinymixer.options import Between, OneOf, check_options, option
from tinymixer.train import Config


@dataclass(frozen=True)
class Recipe:
    count: int = option(3, Between(1, 5), "how many")
    share: float = option(0.5, Between(0, 1), "what part")
    alpha: float = option(0.0, Between(0.5, 2, or_zero=True), "how much, 0 for nothing")
    colour: str = option("red", OneOf(("red", "blue")), "which of two")
    size: int | None = option(None, Between(1, 9), "how large")
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_options(self, "ingredient")


@pytest.mark.parametrize(
    "allowed",
    [
        {"count": 1},
        {"count": 5},
        {"share": 0},  # a whole number is a float as well
        {"share": 1.0},
        {"alpha": 0},
        {"alpha": 0.5},
        {"colour": "blue"},
        {"size": None},
        {"size": 9},
        {"more": {"taste": "sweet"}},
    ],
)
def test_what_is_allowed_is_taken(allowed):
    Recipe(**allowed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "ingredient count=0: expected 1 to 5"),
        ({"count": 6}, "ingredient count=6: expected 1 to 5"),
        ({"count": 2.0}, "ingredient count=2.0: expected int"),
        ({"count": "3"}, "ingredient count='3': expected int"),
        ({"share": float("nan")}, "ingredient share=nan: expected 0 to 1"),
        ({"share": None}, "ingredient share=None: expected float"),
        ({"alpha": 0.4}, "ingredient alpha=0.4: expected 0, or 0.5 to 2"),
        ({"alpha": float("nan")}, "ingredient alpha=nan: expected 0, or 0.5 to 2"),
        ({"colour": "green"}, "ingredient colour='green': expected red or blue"),
        ({"colour": ["red"]}, "ingredient colour=['red']: expected str"),
        ({"size": 0}, "ingredient size=0: expected 1 to 9"),
        ({"size": "1"}, "ingredient size='1': expected int | None"),
        ({"more": [1]}, "ingredient more=[1]: expected dict"),
        ({"count": True}, "ingredient count=True: expected int"),
        ({"share": False}, "ingredient share=False: expected float"),
        ({"size": True}, "ingredient size=True: expected int | None"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_sentence(wrong, message):
    with pytest.raises(TinymixerError) as refusal:
        Recipe(**wrong)
    assert str(refusal.value) == message


# By build_model, by Augment itself, and not at all: a note for the reader.
CHECKED_ELSEWHERE = {"model_options", "augment", "begun_from"}
OPTIONS = {
    f"{kind.__name__}.{f.name}": (kind, f) for kind in (Config, Augment) for f in fields(kind)
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_words_and_is_checked(name):
    kind, f = OPTIONS[name]
    if f.name in CHECKED_ELSEWHERE:
        return
    assert len(f.metadata["help"].split()) >= 3
    allowed = f.metadata["allowed"]
    outside = "nonsense" if isinstance(allowed, OneOf) else 2 * allowed.high + 1
    if f.type is not float and not isinstance(outside, str):
        outside = int(outside)
    with pytest.raises(TinymixerError, match=f"{f.name}={outside!r}: expected".replace("+", ".")):
        replace(kind(), **{f.name: outside})


def test_the_fields_without_allowed_values_are_checked_by_what_they_are_for():
    assert is_dataclass(Config().augment)
    with pytest.raises(TinymixerError, match="no option 'colour'"):
        Config(model_options={"colour": 1}).build_model(10, None)
