"""Pictures of every kind that is read, and files of every kind that is not.

GOOD: name -> (content, the pixels that must be seen). BAD: name -> (content, words that say why).
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin, features

ROW, COLUMN = np.mgrid[:6, :8]
RGB = np.stack([ROW * 40 + 10, COLUMN * 30 + 5, ROW * COLUMN * 7], -1).astype(np.uint8)
GREY = RGB[:, :, 0] // 2 + RGB[:, :, 1] // 2
WIDE = np.kron(RGB, np.ones((16, 16, 1), np.uint8))  # blocks that JPEG keeps
HIDDEN = np.where((ROW + COLUMN) % 3 == 0, 0, 255).astype(np.uint8)  # alpha
ON_WHITE = np.where(HIDDEN[..., None] == 0, 255, RGB)
TURNED = {  # orientation -> what is seen, of what is stored
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


def three(grey):
    return np.repeat(grey[:, :, None], 3, axis=2)


def saved(image, kind, **options):
    """The bytes of a picture, an array or an Image, as Pillow writes it."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(height, width, depth, colour, rows, *extra, interlaced=0, before=b""):
    """A PNG made by hand: of rows with their filters, and extra chunks before them."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    middle = b"".join(chunk(*x) for x in extra) + before
    body = chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def rows_of(x):
    """The unfiltered rows of a PNG, of an array of big-endian numbers."""
    return b"".join(b"\0" + row.tobytes() for row in x)


def interlaced(x):
    """The seven passes of Adam7."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    passes.append((0, 1, 1, 2))
    pieces = [x[top::down, left::across] for left, top, across, down in passes]
    return b"".join(rows_of(piece) for piece in pieces if piece.size)


def with_segments(jpeg, *segments):
    """A JPEG with segments after its start: (marker, body)."""
    more = b"".join(
        b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments
    )
    return jpeg[:2] + more + jpeg[2:]


def exif(orientation, order=">"):
    head = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def tiff(x, tags, order="<"):
    """An uncompressed TIFF made by hand: tags -> one number each, beside those of the size."""
    tags = {256: x.shape[1], 257: x.shape[0], 273: 8, 279: x.nbytes, 259: 1} | tags
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    at = 8 + x.nbytes
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return head + struct.pack(order + "I", at) + x.tobytes() + directory


def bmp_rle(grey):
    """A BMP of 8 bits in run lengths of one."""
    runs = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in grey[::-1]) + b"\0\1"
    height, width = grey.shape
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    start = 14 + 40 + 1024
    return struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start) + info + palette + runs


def good():
    image, alpha = Image.fromarray(RGB), Image.fromarray(HIDDEN)
    rgba, palette = image.copy(), image.quantize(48)
    rgba.putalpha(alpha)
    of_palette = np.asarray(palette.convert("RGB"))
    key = int(np.asarray(palette)[2, 3])
    keyed = np.where((np.asarray(palette) == key)[..., None], 255, of_palette)
    bits = GREY > 90
    black = three(np.where(bits, 255, 0).astype(np.uint8))
    deep = GREY.astype(np.uint16) * 256 + 99
    half = np.full((6, 8, 4), 128, np.uint8)
    two = (COLUMN % 4).astype(np.uint8)
    packed = np.packbits(np.unpackbits(two[..., None], -1)[..., 6:].reshape(6, -1), -1)
    key16 = np.where((GREY[1, 1] == GREY)[..., None], 255, three(GREY))

    def more():  # Pillow leaves its settings on what it has saved
        return [Image.fromarray(255 - RGB) for _ in range(3)]

    jpeg, wide = saved(WIDE, "JPEG", quality=95, subsampling=0), Image.fromarray(WIDE)
    text = PngImagePlugin.PngInfo()
    text.add_text("a comment", "long " * 600_000, zip=True)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    deep_rgb = (RGB.astype(np.uint16) * 256 + 7).astype(">u2")
    found = {
        "png": (saved(image, "PNG"), RGB),
        "png, grey": (saved(GREY, "PNG"), three(GREY)),
        "png, grey and alpha": (
            saved(Image.merge("LA", (Image.fromarray(GREY), alpha)), "PNG"),
            np.where(HIDDEN[..., None] == 0, 255, three(GREY)),
        ),
        "png, transparent": (saved(rgba, "PNG"), ON_WHITE),
        "png, half transparent": (saved(half, "PNG"), np.full((6, 8, 3), 191, np.uint8)),
        "png, palette": (saved(palette, "PNG"), of_palette),
        "png, palette, a transparent colour": (saved(palette, "PNG", transparency=key), keyed),
        "png, palette, alphas": (
            saved(palette, "PNG", transparency=bytes(255 * (i != key) for i in range(48))),
            keyed,
        ),
        "png, 1 bit": (saved(Image.fromarray(bits), "PNG"), black),
        "png, 1 bit, white is transparent": (
            png(6, 8, 1, 0, rows_of(np.packbits(bits, 1)), (b"tRNS", b"\0\1")),
            black,
        ),
        "png, 1 bit, black is transparent": (
            png(6, 8, 1, 0, rows_of(np.packbits(bits, 1)), (b"tRNS", b"\0\0")),
            np.full((6, 8, 3), 255, np.uint8),
        ),
        "png, 2 bits": (png(6, 8, 2, 0, rows_of(packed.reshape(6, 2))), three(two * 85)),
        "png, 2 bits, a transparent grey": (
            png(6, 8, 2, 0, rows_of(packed.reshape(6, 2)), (b"tRNS", b"\0\1")),
            three(np.where(two == 1, 255, two * 85).astype(np.uint8)),
        ),
        "png, 16 bits grey": (saved(deep, "PNG"), three(GREY)),
        "png, 16 bits grey, a transparent one": (
            png(
                *(6, 8, 16, 0, rows_of(deep.astype(">u2"))),
                (b"tRNS", struct.pack(">H", deep[1, 1])),
            ),
            key16,
        ),
        "png, 16 bits grey and alpha": (
            png(6, 8, 16, 4, rows_of(np.stack([deep, HIDDEN * np.uint16(257)], -1).astype(">u2"))),
            np.where(HIDDEN[..., None] == 0, 255, three(GREY)),
        ),
        "png, 16 bits": (png(6, 8, 16, 2, rows_of(deep_rgb)), RGB),
        "png, 16 bits, a transparent colour": (
            png(6, 8, 16, 2, rows_of(deep_rgb), (b"tRNS", deep_rgb[0, 0].tobytes())),
            np.where((ROW + COLUMN == 0)[..., None], 255, RGB),
        ),
        "png, a transparent colour": (
            png(6, 8, 8, 2, rows_of(RGB), (b"tRNS", RGB[3, 3].astype(">u2").tobytes())),
            np.where((RGB[3, 3] == RGB).all(-1)[..., None], 255, RGB),
        ),
        "png, a second header": (
            png(6, 8, 8, 2, rows_of(RGB), (b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))),
            RGB,
        ),
        "png, interlaced": (png(6, 8, 8, 2, interlaced(RGB), interlaced=1), RGB),
        "png, animated": (saved(image, "PNG", save_all=True, append_images=more()), RGB),
        "png, a comment that unpacks to 3 MB": (saved(image, "PNG", pnginfo=text), RGB),
        "png, a damaged comment": (
            png(6, 8, 8, 2, rows_of(RGB), before=chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
            RGB,
        ),
        "png, a profile that unpacks to 9 MB": (
            png(6, 8, 8, 2, rows_of(RGB), (b"iCCP", b"x\0\0" + zlib.compress(bytes(9_000_000)))),
            RGB,
        ),
        "png, a damaged profile": (
            png(6, 8, 8, 2, rows_of(RGB), (b"iCCP", b"x\0\0not compressed")),
            RGB,
        ),
        "png, turned": (png(6, 8, 8, 2, rows_of(RGB), (b"eXIf", exif(6)[6:])), TURNED[6](RGB)),
        "png, no end, and more after it": (saved(image, "PNG")[:-12] + b"??", RGB),
        "png of one pixel": (saved(RGB[:1, :1], "PNG"), RGB[:1, :1]),
        "png of one row": (saved(RGB[:1], "PNG"), RGB[:1]),
        "png of one column": (saved(RGB[:, :1], "PNG"), RGB[:, :1]),
        "jpeg": (jpeg, WIDE),
        "jpeg, progressive": (saved(WIDE, "JPEG", quality=95, progressive=True), WIDE),
        "jpeg, grey": (saved(three(GREY)[:, :, 0].repeat(16, 0).repeat(16, 1), "JPEG"), None),
        "jpeg, CMYK": (saved(wide.convert("CMYK"), "JPEG", quality=95), WIDE),
        "jpeg, turned by XMP": (with_segments(jpeg, (0xE1, xmp)), TURNED[6](WIDE)),
        "jpeg, Exif cut": (with_segments(jpeg, (0xE1, exif(6)[:-9])), WIDE),
        "jpeg, Exif of noise": (
            with_segments(jpeg, (0xE1, b"Exif\0\0II*\0" + bytes(range(99)))),
            WIDE,
        ),
        "jpeg, Exif that points outside": (
            with_segments(jpeg, (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")),
            WIDE,
        ),
        "jpeg, Exif with a damaged tag after the orientation": (
            with_segments(
                jpeg,
                (
                    0xE1,
                    exif(6)[:15] + b"\2" + exif(6)[16:28] + struct.pack(">HHII", 283, 5, 9, 2**31),
                ),
            ),
            TURNED[6](WIDE),
        ),
        "jpeg, orientation 77": (with_segments(jpeg, (0xE1, exif(77))), WIDE),
        "jpeg, several pictures": (saved(wide, "MPO", save_all=True, append_images=more()), None),
        "jpeg, damaged index of pictures": (
            with_segments(jpeg, (0xE2, b"MPF\0II*\0\xff\xff")),
            WIDE,
        ),
        "jpeg, comments": (with_segments(jpeg, *[(0xFE, b"x" * 60_000)] * 50), WIDE),
        "jpeg, a damaged profile": (with_segments(jpeg, (0xE2, b"ICC_PROFILE\0\1\2x")), WIDE),
        "jpeg, more after it": (jpeg + b"a video" * 999, WIDE),
        "gif": (saved(palette, "GIF"), of_palette),
        "gif, transparent": (saved(palette, "GIF", transparency=key), keyed),
        "gif, animated": (saved(palette, "GIF", save_all=True, append_images=more()), of_palette),
        "gif, comment": (saved(palette, "GIF", comment=b"long " * 10_000), of_palette),
        "gif, grey": (saved(GREY, "GIF"), three(GREY)),
        "bmp": (saved(image, "BMP"), RGB),
        "bmp, grey": (saved(GREY, "BMP"), three(GREY)),
        "bmp, palette": (saved(palette, "BMP"), of_palette),
        "bmp, 1 bit": (saved(Image.fromarray(bits), "BMP"), black),
        "bmp, run lengths": (bmp_rle(GREY), three(GREY)),
        "tiff": (saved(image, "TIFF"), RGB),
        "tiff, LZW": (saved(image, "TIFF", compression="tiff_lzw"), RGB),
        "tiff, deflate": (saved(image, "TIFF", compression="tiff_adobe_deflate"), RGB),
        "tiff, packbits": (saved(image, "TIFF", compression="packbits"), RGB),
        "tiff, JPEG": (saved(wide, "TIFF", compression="jpeg", quality=95), WIDE),
        "tiff, BigTIFF": (saved(image, "TIFF", big_tiff=True), RGB),
        "tiff, CMYK": (saved(image.convert("CMYK"), "TIFF"), RGB),
        "tiff, transparent": (saved(rgba, "TIFF"), ON_WHITE),
        "tiff, palette": (saved(palette, "TIFF"), of_palette),
        "tiff, fax": (saved(Image.fromarray(bits), "TIFF", compression="group4"), black),
        "tiff, pages": (saved(image, "TIFF", save_all=True, append_images=more()), RGB),
        "tiff, turned": (saved(image, "TIFF", exif={0x0112: 6}), TURNED[6](RGB)),
        "tiff, 16 bits": (saved(deep, "TIFF"), three(GREY)),
        "tiff, 16 bits, large numbers first": (
            tiff(deep.astype(">u2"), {258: 16, 262: 1}, ">"),
            three(GREY),
        ),
        "tiff, 16 bits, white is 0": (
            tiff(65535 - deep, {258: 16, 262: 0}),
            three(GREY),
        ),
        "tiff, white is 0": (tiff(255 - GREY, {258: 8, 262: 0}), three(GREY)),
        "ppm": (saved(image, "PPM"), RGB),
        "pgm": (saved(GREY, "PPM"), three(GREY)),
        "pbm": (saved(Image.fromarray(bits), "PPM"), black),
        "pgm, 16 bits": (b"P5 8 6 65535\n" + deep.astype(">u2").tobytes(), three(GREY)),
        "ppm in words": (
            b"P3\n# a comment\n8 6\n255\n" + b" ".join(b"%d" % v for v in RGB.ravel()),
            RGB,
        ),
        "pgm in words": (b"P2 8 6 255\n" + b" ".join(b"%d" % v for v in GREY.ravel()), three(GREY)),
        "pbm in words": (b"P1 8 6\n" + b" ".join(b"%d" % (not v) for v in bits.ravel()), black),
    }
    for turn, seen in TURNED.items():
        for order in "<>":
            content = with_segments(jpeg, (0xE1, exif(turn, order)))
            found[f"jpeg, orientation {turn} {order}"] = (content, seen(WIDE))
    if features.check("webp"):
        found |= {
            "webp": (saved(wide, "WEBP", quality=99), None),
            "webp, lossless": (saved(image, "WEBP", lossless=True), RGB),
            "webp, transparent": (saved(rgba, "WEBP", lossless=True), ON_WHITE),
            "webp, turned": (saved(image, "WEBP", lossless=True, exif=exif(6)), TURNED[6](RGB)),
            "webp, animated": (
                saved(image, "WEBP", lossless=True, save_all=True, append_images=more()),
                RGB,
            ),
        }
    if "avif" in features.get_supported():
        found |= {
            "avif": (saved(wide, "AVIF", quality=99, subsampling="4:4:4", speed=10), WIDE),
            "avif, turned": (
                saved(wide, "AVIF", quality=99, subsampling="4:4:4", speed=10, exif=exif(6)),
                TURNED[6](WIDE),
            ),
        }
    return found


def brand(name):
    return struct.pack(">I", 24) + b"ftyp" + name + bytes(4) + b"mif1" + name + bytes(99)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
FLOATS = np.ones((6, 8), np.float32)
BAD = {
    "empty": (b"", "empty"),
    "text": (b"just text", "not a picture"),
    "page": (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "heic": (brand(b"heic"), "a HEIC picture"),
    "heif": (brand(b"mif1"), "a HEIC picture"),
    "cr3": (brand(b"crx "), "raw file"),
    "video": (brand(b"isom"), "a video"),
    "matroska": (b"\x1aE\xdf\xa3" + bytes(99), "a video"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "a video"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    "eps of DOS": (b"\xc5\xd0\xd3\xc6" + bytes(99), "PostScript"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="..."/>', "an SVG"),
    "photoshop": (b"8BPS\0\1" + bytes(99), "Photoshop"),
    "metafile": (b"\xd7\xcd\xc6\x9a" + bytes(99), "metafile"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "jpeg xl": (b"\xff\x0a" + bytes(99), "JPEG XL"),
    "icon": (b"\0\0\1\0\1\0" + bytes(99), "an icon"),
    "zip": (b"PK\3\4" + bytes(99), "an archive"),
    "npy": (b"\x93NUMPY\1\0" + bytes(99), "an array of NumPy"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
    "canon raw": (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "raw file"),
    "dng": (tiff(GREY, {258: 8, 262: 1, 50706: 1}), "raw file"),
    "nef": (tiff(GREY, {258: 8, 262: 1, 254: 1}), "raw file"),
    "png, cut": (saved(NOISE, "PNG")[:3000], "damaged or incomplete"),
    "png, few rows": (png(6, 8, 8, 2, rows_of(RGB[:3])), "end early"),
    "png, few rows, interlaced": (
        png(6, 8, 8, 2, interlaced(RGB)[:-40], interlaced=1),
        "end early",
    ),
    "png, flipped": (saved(NOISE, "PNG").replace(b"IDAT\x78", b"IDAT\x79"), "damaged"),
    "png, no header": (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
    "png, a palette first": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"PLTE", b"abc") + png(6, 8, 8, 2, rows_of(RGB))[8:],
        "does not begin with a header",
    ),
    "png, no palette": (png(6, 8, 8, 3, rows_of(GREY)), "palette, which is missing"),
    "png, no pixels": (png(0, 0, 8, 2, b""), "damaged"),
    "jpeg, cut": (saved(NOISE, "JPEG")[:1500], "damaged or incomplete"),
    "jpeg, progressive, cut": (saved(NOISE, "JPEG", progressive=True)[:1500], "damaged"),
    "jpeg, no pixels": (b"\xff\xd8\xff\xd9", "damaged"),
    "jpeg, 12 bits": (
        saved(NOISE, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "12-bit",
    ),
    "gif, not really": (b"GIF89a but not really", "no picture in it"),
    "gif, cut": (saved(Image.fromarray(NOISE).quantize(), "GIF")[:1500], "damaged"),
    "gif, no frame": (b"GIF89a\x08\0\x06\0\0\0\0;", "no picture"),
    "bmp, cut": (saved(NOISE, "BMP")[:1500], "damaged"),
    "tiff, cut": (saved(NOISE, "TIFF")[:1500], "damaged"),
    "tiff, floats": (saved(FLOATS, "TIFF"), "no known value of white"),
    "tiff, 32 bits": (saved(FLOATS.astype(np.int32), "TIFF"), "no known value of white"),
    "tiff, directory outside": (b"II*\0\xff\xff\xff\x7f", "damaged"),
    "pfm": (b"Pf\n8 6\n-1.0\n" + bytes(192), "no known value of white"),
    "ppm, cut": (b"P6 64 64 255\n" + bytes(99), "damaged"),
    "ppm, no number": (b"P6 x y 255\n", "damaged"),
    "webp, cut": (saved(NOISE, "WEBP")[:500] if features.check("webp") else b"RIFF", ""),
}
