"""Files as users have them: a folder of pictures of every kind, and IDX files."""

import gzip

import numpy as np
from PIL import Image

from tinymixer.data import idx

COLOURS = {"blue": (20, 30, 200), "green": (10, 180, 40), "red": (210, 40, 20)}


def cmyk(image, path):
    image.convert("CMYK").save(path.with_suffix(".jpg"))


def palette(image, path):
    image.quantize(8).save(path.with_suffix(".gif"))


def transparent(image, path):
    image.putalpha(255)
    image.save(path.with_suffix(".png"))


def grey_of_16_bits(image, path):
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(path.with_suffix(".png"))


def rotated(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path.with_suffix(".jpeg"), exif=exif)


def animated(image, path):
    image.save(path.with_suffix(".gif"), save_all=True, append_images=[Image.new("RGB", (40, 30))])


def named_wrongly(image, path):
    image.save(path.with_suffix(".txt"), "PNG")


KINDS = [
    lambda image, path: image.save(path.with_suffix(".jpg")),
    lambda image, path: image.save(path.with_suffix(".png")),
    *(cmyk, palette, transparent, grey_of_16_bits, rotated, animated, named_wrongly),
    lambda image, path: image.save(path.with_suffix(".bmp")),
]
DAMAGED = {
    "red/cut.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "blue/empty.png": b"",
    "blue/page.jpg": b"<!doctype html>\n<title>404</title>",
}


def picture(kind, i):
    image = Image.new("RGB", (40 + i, 30), COLOURS[kind])
    image.paste((255, 255, 255), (0, 0, 3 + i % 5, 4))
    return image


def flowers(root, count=20, kinds=COLOURS):
    """`count` pictures of each class, of mixed kinds."""
    for kind in kinds:
        (root / kind).mkdir(parents=True)
        for i in range(count):
            KINDS[i % len(KINDS)](picture(kind, i), root / kind / f"{i:03}")
    return root


N, M, H, W = 60, 20, 28, 28  # training and test images of IDX files, and their size


def arrays(begins=()):
    rng = np.random.default_rng(0)
    made = {}
    for part, count in (("train", N), ("test", M)):
        made[f"{part}_images"] = rng.integers(0, 256, (count, H, W), np.uint8)
        made[f"{part}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    made["train_labels"][: len(begins)] = begins
    return made


def written(x):
    return bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()


def files(made, naming="{}", packed=False):
    pack = gzip.compress if packed else bytes
    return {naming.format(idx.PARTS[part]): pack(written(x)) for part, x in made.items()}
