"""Records of a run: what is written comes back, and nothing else is taken for one."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hostile_files import HEADER

from tinymixer import data
from tinymixer.train.config import Config
from tinymixer.train.records import DatasetRecord, EpochFigures, Header, Progress

FIGURES = HEADER.history[0]


def in_file(record):
    return json.loads(json.dumps(record.to_json()))


@pytest.mark.parametrize(
    "record",
    [
        *(HEADER, replace(HEADER, step=0, progress=Progress(), history=()), HEADER.dataset),
        *(FIGURES, replace(FIGURES, test_iou=0.25), HEADER.progress, Progress()),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_is_written_comes_back(record):
    assert type(record).from_json(in_file(record)) == record


def test_a_line_of_figures_has_an_iou_only_where_one_is_measured():
    assert "test_iou" not in FIGURES.to_json()
    assert replace(FIGURES, test_iou=0.5).to_json() == FIGURES.to_json() | {"test_iou": 0.5}


def test_the_epoch_is_counted_not_stored():
    assert HEADER.epoch == 1
    assert "epoch" not in HEADER.to_json()


def test_progress_adds_up():
    progress = Progress(1.0, 2.0, 3, 4.0).plus(loss=0.5, correct=1.5, images=5, seconds=0.25)
    assert progress == Progress(1.5, 3.5, 8, 4.25)
    assert Progress().plus() == Progress()


def test_a_data_set_is_recorded_as_numbers_of_python():
    dataset = data.load("shapes", train_size=11, test_size=13)
    record = DatasetRecord.of(replace(dataset, mean=tuple(np.float32(dataset.mean))))
    assert DatasetRecord.from_json(in_file(record)) == record
    assert record.fingerprint == dataset.fingerprint
    assert record.class_names == dataset.class_names
    assert [type(x) for x in record.mean] == [float] * 3


def test_options_that_a_file_does_not_have_are_the_defaults():
    """As in a file from before there was the option."""
    said = in_file(HEADER)
    del said["config"]["momentum"], said["config"]["augment"]["cutout"]
    assert Header.from_json(said) == HEADER


def changed(**changes):
    """What HEADER says, with a value at a path: step=..., or dataset__mean=..."""
    said = in_file(HEADER)
    for path, value in changes.items():
        *groups, name = path.split("__")
        place = said
        for group in groups:
            place = place[int(group) if group.isdigit() else group]
        if value is ...:
            del place[name]
        else:
            place[name] = value
    return said


NAN, INF = float("nan"), float("inf")
WRONG = [
    *({name: ...} for name in HEADER.to_json()),
    *({f"dataset__{name}": ...} for name in asdict(HEADER.dataset)),
    *({f"progress__{name}": ...} for name in asdict(HEADER.progress)),
    *({f"history__0__{name}": ...} for name in FIGURES.to_json()),
    *({"ghost": 1}, {"dataset__ghost": 1}, {"history__0__ghost": 1}, {"config__ghost": 1}),
    *({"step": x} for x in (-1, 0.5, 2.0, "2", None, True, [2], 10**30, 0)),
    *({"history": x} for x in ({}, [1], [{}], None, "x", [[]])),
    *({"history__0__test_loss": x} for x in ("low", None, NAN, INF, True, 10**400)),
    *({"history__0__test_accuracy": x} for x in (-0.1, 1.1)),
    *({"history__0__epoch": x} for x in (0, -1, 2, 1.5)),
    *({f"history__0__{p}_iou": x} for p in ("test", "val") for x in (None, 2, NAN)),
    *({"history__0__val_accuracy": x} for x in (None, 2, NAN, 0.5)),  # and no val_loss
    *({"machine": x} for x in ("x86_64", {}, {"numpy": "2"}, [])),
    *({"extended": x} for x in (None, {}, [1], [[1]], [[1, "x"]], [[1, 2, 3]], [[-1, 2]])),
    *({"config__val_size": x} for x in (None, -1, 2.5, 10**30)),
    *({"progress": x} for x in ({}, None, [])),
    *({"progress__images": x} for x in (None, 2.5, -1, 16.0, 0)),
    *({"progress__correct": x} for x in (-1, 17, NAN)),
    *({"progress__seconds": x} for x in (-1, INF)),
    *({"dataset": x} for x in (None, [], "shapes")),
    *({"dataset__name": x} for x in (None, 3, "a\nb")),
    *({"dataset__fingerprint": x} for x in (None, "", "0123", "g" * 64, "A" * 64)),
    *({"dataset__class_names": x} for x in ([], None, "ab", [1], ["a", None], ["a\x1b"])),
    *({"dataset__source": x} for x in ("shapes", {"dataset": "imagenet"}, {"ghost": 1}, 3)),
    *({"dataset__source__train_size": x} for x in (0, "5", 2.5)),
    *({"dataset__channels": x} for x in (0, 2, "3", None, True, 3.0, 1)),  # and three means
    *({"dataset__image_size": x} for x in (None, 32, [32], [0, 32], [32, 2.5], [32, 32, 3])),
    *({f"dataset__{part}_images": x} for part in ("train", "test") for x in (0, -1, None, "9")),
    *({"dataset__mean": x} for x in ("x", [1, 2], [1, 2, NAN], [-1, 2, 3], [1, 2, 3, 4], 1)),
    *({"dataset__std": x} for x in ([0, 0, 0], [1, 0, 2], [1, 2, INF], None)),
    *({"config": x} for x in (None, [], "x")),
    *({"config__augment": x} for x in (None, [], {"ghost": 1}, {"cutout": "x"})),
    *({"config__model": x} for x in ("ghost", None, 3)),
    *({"config__lr": x} for x in ("x", None, NAN, -1, 1e300)),
    *({"config__batch_size": x} for x in (0, 2.5, None, 10**30)),
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_no_run_writes_is_refused_in_a_sentence(change):
    with pytest.raises(ValueError, match=r".") as refused:
        Header.from_json(changed(**change))
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 200 or "expected mixer_s32 or" in str(refused.value)


def test_the_last_epoch_alone_may_be_a_part_of_one():
    second = replace(FIGURES, epoch=1.5)
    assert Header.from_json(in_file(replace(HEADER, history=(FIGURES, second)))).epoch == 2
    with pytest.raises(ValueError, match=r"epoch 0\.5 at place 1"):
        Header.from_json(in_file(replace(HEADER, history=(replace(FIGURES, epoch=0.5), FIGURES))))


def test_a_default_configuration_comes_back():
    header = replace(HEADER, config=Config(), step=0, progress=Progress())
    assert Header.from_json(in_file(header)).config == Config()


def test_figures_of_a_line_are_named_in_its_error():
    with pytest.raises(ValueError, match=r'a line of figures.s lr is "x", expected a'):
        EpochFigures.from_json(FIGURES.to_json() | {"lr": "x"})
