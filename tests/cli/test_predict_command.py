"""What `tinymixer predict` sees in pictures, and what it says of files that are none."""

import numpy as np
import pytest
from command_line import call, refused, shell
from PIL import Image

from tinymixer.cli.predict import as_seen, read_picture
from tinymixer.train.checkpoint import load_model
from tinymixer.train.evaluation import log_probabilities
from tinymixer.train.parallel import Workers


def test_predict_shows_the_top_five_and_what_the_model_sees(run, here, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    Image.fromarray(picture).save(here / "mine.png")
    assert call("predict", "mine.png", "--run", run) == 0
    line = capsys.readouterr().out.splitlines()[0]
    model, saved = load_model(run / "last.npz")
    record = saved.header.dataset
    with Workers(1) as workers:
        seen = as_seen(Image.fromarray(picture), 32, 32)[None]
        (log_p,) = log_probabilities(model, seen, record.mean, record.std, workers)
    best = sorted(zip(np.exp(log_p), record.class_names, strict=True), reverse=True)[:5]
    assert line == "mine.png: " + ", ".join(f"{name} {p:.1%}" for p, name in best)
    assert (run / "prediction-mine.png").exists()


def test_predict_sees_the_middle_of_the_picture(here):
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the middle square
    seen = as_seen(Image.fromarray(wide), 32, 32)
    assert seen.shape == (32, 32, 3)
    assert (seen == 200).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_seen_as_that_of_8(here, suffix):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey.astype(np.uint16) * 256 + 99).save(here / f"deep.{suffix}")
    seen = np.asarray(read_picture(here / f"deep.{suffix}"))
    np.testing.assert_array_equal(seen, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_picture_that_does_not_say_what_is_white_is_refused(dtype, run, here, capsys):
    Image.fromarray(np.ones((40, 40), dtype)).save(here / "x.tif")
    refused(capsys, here, ("predict", "x.tif", "--run", run), "expected 8 or 16 bits")


def test_a_photograph_is_turned_as_its_camera_says(here):
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    picture.save(here / "x.png", exif=exif)
    seen = np.asarray(read_picture(here / "x.png"))[:, :, 0]
    np.testing.assert_array_equal(seen, np.rot90(np.asarray(picture), -1))


def test_whatever_a_reader_of_pictures_raises_names_the_file(run, here, capsys, monkeypatch):
    """The one of AVIF raises RuntimeError for damage; not every Pillow has it."""

    def damaged(*args):
        raise RuntimeError("failed to decode")

    Image.new("RGB", (40, 40)).save(here / "x.png")
    monkeypatch.setattr(Image.Image, "convert", damaged)
    refused(capsys, here, ("predict", "x.png", "--run", run), "picture x.png: failed to decode")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty.png"),
        (b"GIF89a but not really", "fake.gif"),
        (b"just text", "text.txt"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "broken.png"),
        (None, "missing.jpg"),
    ],
)
def test_what_is_no_picture_is_named(content, name, run, here, capsys):
    if content is not None:
        (here / name).write_bytes(content)
    refused(capsys, here, ("predict", name, "--run", run), name)


@pytest.mark.parametrize("other", ["b/x.png", "a/x.gif", "a/x.png"])
def test_two_pictures_that_would_be_drawn_into_one_file_are_named(other, run, here, capsys):
    for path in (here / "a" / "x.png", here / other):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(path)
    argv = ("predict", "a/x.png", other, "--run", run)
    refused(capsys, here, argv, f"a/x.png and {other} would both be drawn as prediction-x.png")


def test_a_folder_is_no_picture(run, here, capsys):
    refused(capsys, here, ("predict", run, "--run", run), run.name)


def test_a_truncated_picture_is_named(run, here, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(here / "cut.png")
    (here / "cut.png").write_bytes((here / "cut.png").read_bytes()[:3000])
    refused(capsys, here, ("predict", "cut.png", "--run", run), "cut.png")


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [("ünï.png", "ascii", r"\xfcn\xef.png"), ("bad\udcff.png", "utf-8", r"bad\udcff.png")],
)
def test_a_name_that_cannot_be_printed_is_escaped(name, encoding, shown, run, here):
    try:
        Image.new("RGB", (40, 40)).save(here / name)
    except (OSError, UnicodeError):
        pytest.skip("no file can have this name here")
    argv = ("predict", name, "--run", run)
    done = shell('"$0" "$@"', *argv, PYTHONIOENCODING=f"{encoding}:strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{shown}: ")
