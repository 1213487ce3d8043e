"""Small files that would unpack to gigabytes, and photos of many megapixels.

They are read in a process of their own, whose memory and time are measured.
"""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from odd_pictures import GREY, RGB, WIDE, bmp_rle, chunk, png, rows_of, saved, tiff, with_segments
from PIL import Image, features

MOST_MEMORY, MOST_SECONDS = 300e6, 10  # a few tenths of a second on an idle machine
READ = """
import json, re, sys, time
from pathlib import Path
from tinymixer.data.pictures import read_picture
from tinymixer.errors import DataError
found = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    begin = time.process_time()
    try:
        said = list(read_picture(path, (32, 32)).info["size"])
    except DataError as error:
        said = str(error)
    (used,) = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    found[path.name] = said, time.process_time() - begin, 1024 * int(used)
print(json.dumps(found))
"""


def resized(jpeg, width, height):
    """A JPEG that claims another size."""
    at = max(jpeg.find(b"\xff\xc0\0\x11\x08"), jpeg.find(b"\xff\xc2\0\x11\x08")) + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def bombs():
    """name -> (content, what is said: the size that is read, or words of the refusal)."""
    jpeg, slow = saved(WIDE, "JPEG"), saved(WIDE, "JPEG", progressive=True)
    last = slow[slow.rindex(b"\xff\xda") : -2]
    gif = saved(Image.fromarray(RGB).quantize(48), "GIF")
    frame = gif.index(b",", 13 + 3 * 64)
    grey = tiff(GREY, {258: 8, 262: 1})
    rle, bmp = bmp_rle(GREY), saved(RGB, "BMP")
    photo = np.add.outer(np.arange(2500), np.arange(3600)).astype(np.uint8)

    def of(tag, before, after):
        old, new = (struct.pack("<HHII", tag, 4, *numbers) for numbers in (before, after))
        return lambda content: content.replace(old, new)

    big = 2**22
    many = of(279, (1, 48), (big, 0))(of(273, (1, 8), (big, 0))(grey)) + bytes(4 * big)
    wide = of(256, (1, 8), (1, 65535))(of(257, (1, 6), (1, 65535))(grey))
    empty = zlib.compress(bytes(2**24), 9)
    found = {
        "photo.jpg": (saved(np.tile(photo, (4, 3)), "JPEG"), [10_800, 10_000]),
        "photo12.jpg": (saved(np.stack([photo] * 3, -1), "JPEG", progressive=True), [3600, 2500]),
        "wide.png": (png(9000, 9000, 8, 2, bytes(9000 * 27_001)), [9000, 9000]),
        "pixels.png": (png(60_000, 60_000, 8, 2, bytes(2**24)), "60000 × 60000"),
        "side.png": (png(10**8, 1, 1, 0, bytes(2**24)), "1 × 100000000"),
        "deep.png": (png(12_000, 12_000, 16, 6, bytes(2**24)), "12000 × 12000"),
        "text.png": (png(6, 8, 8, 2, rows_of(RGB), *[(b"zTXt", b"a\0\0" + empty)] * 99), [8, 6]),
        "profile.png": (png(6, 8, 8, 2, rows_of(RGB), (b"iCCP", b"a\0\0" + empty)), [8, 6]),
        "chunks.png": (
            png(6, 8, 8, 2, rows_of(RGB), before=chunk(b"IDAT", b"") * 100_000),
            [8, 6],
        ),
        "frames.png": (
            png(6, 8, 8, 2, rows_of(RGB), (b"acTL", struct.pack(">II", 2**31 - 1, 0))),
            [8, 6],
        ),
        "scans.jpg": (slow[:-2] + last * 2000 + b"\xff\xd9", [128, 96]),
        "scans10000.jpg": (resized(slow[:-2] + last * 30, 9000, 9000), "in 4"),
        "pixels.jpg": (resized(jpeg, 65_500, 65_500), "65500 × 65500"),
        "kept.jpg": (resized(slow, 20_000, 20_000), "20000 × 20000"),
        "segments.jpg": (with_segments(jpeg, *[(0xE5, b"")] * 100_000), "10,000 segments"),
        "comment.gif": (
            gif[:205] + b"!\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0" + gif[205:],
            [8, 6],
        ),
        "frames.gif": (gif[:-1] + gif[frame:-1] * 20_000 + b";", [8, 6]),
        "pixels.gif": (gif[: frame + 5] + b"\xff" * 4 + gif[frame + 9 :], "65535 × 65535"),
        "pixels.tif": (wide, "65535 × 65535"),
        "circle.tif": (grey[:-4] + struct.pack("<I", 56), [8, 6]),
        "pages.tif": (
            grey[:-4]
            + struct.pack("<I", len(grey))
            + b"".join(struct.pack("<HI", 0, len(grey) + 6 * n) for n in range(1, 100_000)),
            [8, 6],
        ),
        "strips.tif": (many, "4,194,304 values"),
        "runs.bmp": (rle[:18] + struct.pack("<ii", 1500, 1500) + rle[26:], "slow to read"),
        "pixels.bmp": (bmp[:18] + struct.pack("<ii", 30_000, 30_000) + bmp[26:], "30000 × 30000"),
        "words.ppm": (b"P3 2000 2000 255\n" + b"1 " * 2**20, "slow to read"),
        "comment.ppm": (b"P6 #" + b"x" * 10**6 + b"\n8 6\n255\n" + RGB.tobytes(), [8, 6]),
        "digits.ppm": (b"P6 " + b"9" * 10**6, "header"),
    }
    if features.check("webp"):
        webp = bytearray(saved(RGB, "WEBP", lossless=True))
        sides = int.from_bytes(webp[21:25], "little") | 0xFFFFFFF
        webp[21:25] = sides.to_bytes(4, "little")
        found["pixels.webp"] = bytes(webp), "16384 × 16384"
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory with /proc")
def test_no_file_takes_much_memory_or_time(tmp_path):
    expected = bombs()
    for name, (content, _) in expected.items():
        (tmp_path / name).write_bytes(content)
    child = [sys.executable, "-W", "error", "-c", READ, str(tmp_path)]
    done = subprocess.run(child, capture_output=True, text=True)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found.keys() == expected.keys()
    for name, (said, seconds, memory) in found.items():
        wanted = expected[name][1]
        assert said == wanted if isinstance(wanted, list) else wanted in said
        assert seconds < MOST_SECONDS, name
        assert memory < MOST_MEMORY, name
