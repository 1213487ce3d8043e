"""Pictures: each is seen as its file means it, and what is no picture is called by its name."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import odd_pictures
import pytest
from odd_pictures import BAD, saved
from PIL import Image

from tinymixer.data import pictures
from tinymixer.data.pictures import as_seen, read_picture
from tinymixer.errors import DataError

GOOD = odd_pictures.good()
LOSSY = ("jpeg", "avif", "tiff, JPEG")  # kinds that keep blocks of one colour to a few units


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_is_seen_as_its_file_means_it(name, tmp_path, capfd):
    content, expected = GOOD[name]
    (tmp_path / "x.dat").write_bytes(content)  # the name says nothing
    seen = read_picture(tmp_path / "x.dat")
    assert seen.mode == "RGB"
    if expected is not None:
        seen = np.asarray(seen)
        assert seen.shape == expected.shape
        far = 8 if name.startswith(LOSSY) else 0
        assert np.abs(seen.astype(int) - expected).mean() <= far / 4
        assert np.abs(seen.astype(int) - expected)[4::16, 4::16].max(initial=0) <= far
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_read_is_called_by_its_name(name, tmp_path, capfd):
    content, words = BAD[name]
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read_picture(tmp_path / "x.jpg")
    message = str(refusal.value)
    assert message.startswith(f"cannot read the picture {tmp_path / 'x.jpg'}: ")
    assert words in message
    assert "\n" not in message
    assert len(message) < 600
    assert capfd.readouterr() == ("", "")


def test_missing_files_folders_and_devices_are_named(tmp_path):
    for path, words in (
        (tmp_path / "none.jpg", "there is no such file"),
        (tmp_path, "it is a folder"),
        ("/dev/zero", "not a regular file"),
    ):
        if os.path.exists(path) or "none" in str(path):
            with pytest.raises(DataError, match=words):
                read_picture(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        read_picture(tmp_path / "pipe.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_large_picture_comes_smaller_and_looks_the_same(kind, tmp_path):
    rough = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    whole = Image.fromarray(rough).resize((2200, 1650), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "x").write_bytes(saved(whole, kind, quality=95, compress_level=1, exif=turned))
    small, full = read_picture(tmp_path / "x", (32, 32)), read_picture(tmp_path / "x")
    assert full.size == full.info["size"] == small.info["size"] == (1650, 2200)
    assert min(small.size) >= pictures.FINE * pictures.LEAST
    assert small.width * small.height <= whole.width * whole.height / 4
    difference = as_seen(small, 32, 32).astype(int) - as_seen(full, 32, 32)
    assert np.abs(difference).max() <= 8
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "transparent RGB"])
@pytest.mark.parametrize("size", [None, (1, 1)])
def test_a_png_is_the_same_in_bands_and_whole(mode, size, tmp_path, monkeypatch):
    """Rows are written as differences from the one above, which may be in the band before."""
    rng = np.random.default_rng(1)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 7, 4)).astype(np.uint8)).resize((61, 53), 3)
    noise = rng.integers(0, 2, (53, 61, 4)).astype(np.uint8)
    picture = Image.fromarray(np.asarray(smooth) ^ noise)
    options = {"transparency": picture.getpixel((9, 9))[:3]} if mode == "transparent RGB" else {}
    picture = picture.quantize(200) if mode == "P" else picture.convert(mode.split()[-1])
    (tmp_path / "x.png").write_bytes(saved(picture, "PNG", **options))
    monkeypatch.setattr(pictures, "LEAST", 2)
    whole = np.asarray(read_picture(tmp_path / "x.png", size))
    monkeypatch.setattr(pictures, "BAND", 200)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "x.png", size)), whole)
    if size is None:
        with Image.open(tmp_path / "x.png") as image:
            white = Image.new("RGBA", image.size, "white")
            wanted = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        np.testing.assert_array_equal(whole, np.asarray(wanted))


def test_what_is_transparent_is_white_in_every_size(tmp_path):
    x = np.zeros((2048, 2048, 4), np.uint8)
    x[:, :1024, 3] = 255
    (tmp_path / "x").write_bytes(saved(x, "PNG", compress_level=1))
    seen = as_seen(read_picture(tmp_path / "x", (8, 8)), 8, 8)
    assert (seen[:, :4] == 0).all()
    assert (seen[:, 4:] == 255).all()


def test_nothing_is_changed_for_the_rest_of_the_process(tmp_path):
    """Pictures are read in many threads: their warnings stay away, and everybody else's come."""
    names = list(GOOD)
    for i, name in enumerate(names):
        (tmp_path / str(i)).write_bytes(GOOD[name][0])
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as threads:
        seen = list(
            threads.map(lambda i: np.asarray(read_picture(tmp_path / str(i))), range(len(names)))
        )
    assert list(warnings.filters) == before
    assert limit == Image.MAX_IMAGE_PIXELS
    for i in range(len(names)):
        np.testing.assert_array_equal(seen[i], np.asarray(read_picture(tmp_path / str(i))))


@pytest.mark.parametrize("name", [n for n in GOOD if "words" not in n][::3])
def test_a_cut_file_is_refused_or_shows_the_same(name, tmp_path):
    content, _ = GOOD[name]
    whole = np.asarray(pictures._decode(content, None))
    for cut in np.linspace(4, len(content) - 1, 40).astype(int):
        (tmp_path / "x").write_bytes(content[:cut])
        try:
            seen = np.asarray(read_picture(tmp_path / "x"))
        except DataError:
            continue
        np.testing.assert_array_equal(seen, whole)
