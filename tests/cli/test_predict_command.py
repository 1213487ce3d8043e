"""What `tinymixer predict` sees in pictures, and what it says of files that are none."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import call, contents, refused, shell
from PIL import Image

from tinymixer.cli import predict
from tinymixer.data.pictures import as_seen, read_picture
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


@pytest.fixture
def photos(here):
    """A folder of ten pictures, three files that are none, and a hidden one."""
    folder = here / "photos"
    (folder / "more" / ".hidden").mkdir(parents=True)
    x = np.random.default_rng(0).integers(0, 256, (10, 40, 60, 3)).astype(np.uint8)
    for i in range(7):
        Image.fromarray(x[i]).save(folder / f"p{i + 5}.png")  # p5 ... p11
    Image.fromarray(x[7]).save(folder / "more" / "p5.png")
    Image.fromarray(x[8]).save(folder / "more" / "no suffix", "JPEG")
    Image.fromarray(x[9]).save(folder / "more" / ".hidden" / "x.png")
    (folder / "more" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "iphone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("words")
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_predicted_in_order_and_what_is_damaged_is_named_at_the_end(
    photos, run, here, capsys
):
    assert call("predict", "photos", "--run", run, "--out", "out") == 2
    lines, errors = (text.splitlines() for text in capsys.readouterr())
    good = ["more/no suffix", "more/p5.png", *(f"p{i}.png" for i in range(5, 12))]
    assert [line.partition(": ")[0] for line in lines[:9]] == [f"photos/{name}" for name in good]
    assert lines[9:] == ["wrote out/predictions.png", "wrote out/predictions.csv"]
    assert [error.split(": ")[1:3] for error in errors] == [
        ["cannot read the picture photos/empty.png", "its file is empty"],
        [
            "cannot read the picture photos/iphone.heic",
            "it is a HEIC picture, which is not read; save it as JPEG or PNG",
        ],
        ["cannot read the picture photos/more/cut.jpg", errors[2].split(": ")[2]],
        ["3 of 12 pictures could not be read"],
    ]
    rows = table(here / "out" / "predictions.csv")
    assert len(rows) == 12
    assert list(rows[0])[:3] == ["path", "class", "probability"]
    by_path = {row["path"]: row for row in rows}
    for line in lines[:9]:
        path, _, said = line.partition(": ")
        row = by_path[path]
        found = [(row[f"class{n}"], row[f"probability{n}"]) for n in ("", " 2", " 3", " 4", " 5")]
        assert said == ", ".join(f"{name} {float(share):.1%}" for name, share in found)
        assert row["problem"] == ""
    assert "HEIC" in by_path["photos/iphone.heic"]["problem"]
    assert by_path["photos/iphone.heic"]["class"] == ""
    assert sorted(contents(here / "out").keys()) == sorted(
        Path(name) for name in ("predictions.csv", "predictions.png")
    )


def test_alone_and_among_others_a_picture_gets_one_answer(photos, run, here, capsys):
    assert call("predict", "photos/p5.png", "--run", run, "--out", "one") == 0
    alone = capsys.readouterr().out.splitlines()[0]
    assert call("predict", "photos/p5.png", "photos/p6.png", "--run", run, "--out", "two") == 0
    assert capsys.readouterr().out.splitlines()[0] == alone
    assert list(contents(here / "one")) == [Path("prediction-p5.png")]


def test_a_pattern_is_predicted_and_one_name_in_two_folders_is_no_error(photos, run, here, capsys):
    argv = ("predict", "photos/p?.png", "photos/**/p5.png", "--run", run, "--out", "out")
    assert call(*argv) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line.partition(": ")[0].removeprefix("photos/") for line in lines[:-2]]
    assert found == [*(f"p{i}.png" for i in range(5, 10)), "more/p5.png"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("nothing",), "there is no picture in nothing"),
        (("photos/*.jpg",), "no picture matches photos/*.jpg"),
        (("photos/*.txt", "nothing"), "no picture matches photos/*.txt"),
    ],
)
def test_a_folder_or_pattern_without_pictures_is_named(words, named, photos, run, here, capsys):
    (here / "nothing").mkdir()
    refused(capsys, here, ("predict", *words, "--run", run), named)


@pytest.mark.parametrize("empty", ["nothing", "photos/*.jpg", "gone/*"])
@pytest.mark.parametrize("good", [("photos/p*",), ("photos/p5.png",)])
def test_what_holds_no_picture_is_named_at_the_end_and_the_rest_predicted(
    empty, good, photos, run, here, capsys
):
    (here / "nothing").mkdir()
    assert call("predict", empty, *good, "--run", run, "--out", "out") == 2
    lines, errors = (text.splitlines() for text in capsys.readouterr())
    assert lines[-1] == "wrote out/predictions.csv"
    assert len(table(here / "out" / "predictions.csv")) == len(lines) - 2 >= 1
    [error] = errors
    assert f"no picture {'in' if empty == 'nothing' else 'matches'} {empty}; give fil" in error


@pytest.mark.parametrize(
    ("word", "out"),
    [
        ("photos", "photos"),
        ("photos", "photos/more/new"),
        ("photos", None),
        ("photos/*.png", "photos"),
        ("photos/**/p*", "photos/more"),
        ("p*/p5.png", "photos/../photos"),
    ],
)
def test_predictions_are_not_written_among_the_pictures(word, out, photos, run, here, capsys):
    if out is None:
        run = run.rename(photos / "run")
    argv = ("predict", word, "--run", run, *(("--out", out) if out else ()))
    refused(capsys, here, argv, f"is among the pictures of {word}, and they would be taken")
    assert call("predict", "photos/p5.png", "--run", run, "--out", "photos") == 0


def test_words_that_are_no_names_of_files_and_links_to_nothing_are_named(photos, run, here, capsys):
    (photos / "gone.png").symlink_to("nowhere")
    words = ("https://example.com/x.png", "", "photos")
    assert call("predict", *words, "--run", run, "--out", "out") == 2
    errors = capsys.readouterr().err
    assert "cannot read the picture photos/gone.png: there is no such file" in errors
    assert "https://example.com/x.png is an address; give files" in errors
    assert "a name is empty; give files" in errors
    (here / "file").write_text("in the way")
    argv = ("predict", "photos", "--run", run, "--out", "file")
    refused(capsys, here, argv, "cannot write to file")
    assert capsys.readouterr().out == ""


def test_many_pictures_are_drawn_on_numbered_pages(photos, run, here, capsys, monkeypatch):
    monkeypatch.setattr(predict, "ON_A_PAGE", 2)
    monkeypatch.setattr(predict, "MOST_PAGES", 3)
    assert call("predict", "photos/p*", "--run", run, "--out", "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[7:] == [
        *(f"wrote out/predictions-{i}.png" for i in (1, 2, 3)),
        "wrote out/predictions.csv",
        "predictions.csv has all pictures; the 3 sheets show those of the beginning",
    ]
    assert len(table(here / "out" / "predictions.csv")) == 7


def test_of_many_damaged_pictures_the_first_are_named(run, here, capsys):
    (here / "bad").mkdir()
    for i in range(50):
        (here / "bad" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert call("predict", "bad", "--run", run, "--out", "out") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 22
    assert "bad/0.png" in errors[0]
    assert errors[20].startswith("tinymixer: ... and 30 more")
    assert errors[21] == "tinymixer: 50 of 50 pictures could not be read"
    assert not (here / "out").exists()


def test_no_picture_is_replaced_by_what_is_drawn(photos, run, here, capsys):
    Image.new("RGB", (40, 40)).save(photos / "predictions.png")
    argv = ("predict", "photos/p*.png", "--run", run, "--out", "photos")
    refused(capsys, here, argv, "photos, where the predictions are written, is among the pictures")
    argv = ("predict", *photos.glob("p*.png"), "--run", run, "--out", "photos")
    refused(capsys, here, argv, "photos/predictions.png is one of the pictures")
    Image.new("RGB", (40, 40)).save(photos / "x.png")
    os.link(photos / "x.png", photos / "prediction-x.png")  # the same under the other name
    argv = ("predict", "photos/x.png", "--run", run, "--out", "photos")
    refused(capsys, here, argv, "prediction-x.png is one of the pictures")


def test_names_do_nothing_to_a_terminal_and_are_whole_in_the_table(run, here, capsys):
    (here / "odd").mkdir()
    names = ["a\x1b[2Jb.png", "two\nlines.png", "$x_1^2$.png", '=cmd(), "1".png', "猫.png"]
    try:
        for name in names:
            Image.new("RGB", (40, 40), "red").save(here / "odd" / name)
    except OSError:
        pytest.skip("no file can have these names here")
    assert call("predict", "odd", "--run", run, "--out", "out") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 7
    found = {row["path"] for row in table(here / "out" / "predictions.csv")}
    assert found == {f"odd/{name}" for name in names}
    for name in names:
        assert call("predict", f"odd/{name}", "--run", run, "--out", "alone") == 0
    assert len(contents(here / "alone")) == 5


def test_a_model_of_grey_images_sees_grey(run):
    model, saved = load_model(run / "last.npz")
    grey = predict.Sees(model, replace(saved.header.dataset, channels=1), False, "cpu")
    seen = grey.seen(Image.new("RGB", (50, 50), (255, 0, 0)))
    assert seen.shape == (32, 32, 1)
    assert (seen == 76).all()  # 0.299 of red


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


def test_a_picture_and_its_mirror_image_are_one_to_test_time_flips(photos, run, here):
    model, saved = load_model(run / "last.npz")
    with Image.open(photos / "p5.png") as picture:
        x = as_seen(picture, 32, 32)
    shares = {
        tta: predict.Sees(model, saved.header.dataset, False, "cpu", tta).answer([x, x[:, ::-1]])
        for tta in ("none", "flip")
    }
    one, other = shares["flip"].shares
    np.testing.assert_allclose(one, other, rtol=1e-5)
    one, other = shares["none"].shares
    assert np.abs(one / other - 1).max() > 1e-4
    argv = ("photos/p5.png", "--run", run, "--out", "out", "--tta", "flip")
    assert call("predict", *argv) == 0


def test_pixels_of_many_pictures_are_drawn_and_tabled(photos, here, capsys):
    argv = ("--task", "segment", "--train-size", 20, "--test-size", 12, "--workers", 1)
    assert call("train", *argv, "--epochs", 1, "--out", "seg") == 0
    capsys.readouterr()
    assert call("predict", "photos/p*", "--run", "seg", "--out", "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["wrote out/predictions.png", "wrote out/predictions.csv"]
    for row in table(here / "out" / "predictions.csv"):
        shares = [float(row[name] or 0) for name in row if name.startswith("probability")]
        assert 0 < sum(shares) < 1.00001
        assert shares == sorted(shares, reverse=True)
