"""What a file is that does not hold weights, by its first bytes, and what to do about it."""

import json
import os
import re
from typing import IO

# First bytes -> what a file that begins with them is, and what helps.
UNPACK = "Unpack it, and give the file of weights that is in it"
PICTURE = "Give the file of weights; pictures are for `tinymixer predict`"
OTHER = "Give the file of weights itself"
CONVERT = "Save its arrays, under the names of the system's authors, by numpy.savez or safetensors"
STARTS: list[tuple[bytes, str, str]] = [
    (b"\x1f\x8b", "is compressed by gzip", UNPACK),
    (b"BZh", "is compressed by bzip2", UNPACK),
    (b"\xfd7zXZ\0", "is compressed by xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", UNPACK),
    (b"Rar!", "is a RAR archive", UNPACK),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes (.h5)", CONVERT),
    (b"\x93NUMPY", "is one array of NumPy (.npy) without a name", CONVERT),
    (b"GGUF", "is a GGUF file of a language model", OTHER),
    (b"MATLAB 5.0", "is a Matlab file", CONVERT),
    (b"%PDF-", "is a PDF document", OTHER),
    (b"%!PS", "is a PostScript document", OTHER),
    (b"\x89PNG\r\n", "is a picture (PNG)", PICTURE),
    (b"\xff\xd8\xff", "is a picture (JPEG)", PICTURE),
    (b"GIF8", "is a picture (GIF)", PICTURE),
    (b"II*\0", "is a picture (TIFF)", PICTURE),
    (b"MM\0*", "is a picture (TIFF)", PICTURE),
    (b"PAR1", "is a table (Parquet)", OTHER),
    (b"ARROW1", "is a table (Arrow)", OTHER),
    (b"SQLite format 3\0", "is a database (SQLite)", OTHER),
    (b"\x7fELF", "is a program", OTHER),
    (b"MZ", "is a program for Windows", OTHER),
    (b"#!", "is a script", OTHER),
    (b"\xd0\xcf\x11\xe0", "is an Office document", OTHER),
    (b"{\\rtf", "is a document (RTF)", OTHER),
]
LATER: list[tuple[int, bytes, str, str]] = [  # as STARTS, from a byte on
    (257, b"ustar", "is a tar archive", UNPACK),
    (4, b"ftyp", "is a picture or a film (HEIC, AVIF or MP4)", PICTURE),
    (8, b"WEBP", "is a picture (WebP)", PICTURE),
    (8, b"WAVE", "is a sound", OTHER),
    (4, b"TFL3", "is a model of TensorFlow Lite", CONVERT),
    (4, b"ET12", "is a program of ExecuTorch", CONVERT),
]
PICKLE = (
    "is a Python pickle, but none of PyTorch: a pickle can run any program when it is opened, so "
    "tinymixer opens none. In the program that made it, save the arrays by numpy.savez or "
    "safetensors"
)
DOWNLOAD = "Download it again, by the link to the file itself"


def foreign(file: IO[bytes]) -> str | None:
    """What `file` is and what to do, to follow its name; None if its first bytes say nothing."""
    file.seek(0)
    head, size = file.read(4096), os.fstat(file.fileno()).st_size
    if not size:
        return "is empty, as after a download that failed. " + DOWNLOAD
    for start, what, cure in STARTS:
        if head.startswith(start):
            return f"{what}. {cure}"
    for place, start, what, cure in LATER:
        if head[place:].startswith(start):
            return f"{what}. {cure}"
    if re.match(rb"BM.{4}\0{4}", head, re.DOTALL):
        return f"is a picture (BMP). {PICTURE}"
    if re.match(rb"\x80[\2-\5]", head) or re.match(rb"(\(|c[\w.]+\n\w+\n|\]q|\}q)", head):
        return PICKLE
    if re.match(rb"\x08[\3-\x14][\x12\x1a\x3a\x42]", head):
        return f"is an ONNX model. {CONVERT}"
    if head.startswith(b"\x08\x01\x12"):
        return f"is a SavedModel of TensorFlow. {CONVERT}"
    if head[:1] == b"\x78" and int.from_bytes(head[:2]) % 31 == 0:
        return f"is compressed by zlib, as joblib does. {CONVERT}"
    file.seek(max(0, size - 8))
    if file.read() == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return f"is the index of a TensorFlow checkpoint. {CONVERT}"
    if not any(head):
        return "holds nothing but zeros, as after a download that was interrupted. " + DOWNLOAD
    return _text(head)


def _text(head: bytes) -> str | None:
    """What a text is; None if it is not a text."""
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if utf16 else "utf-8-sig", "replace")
    printable = sum(x != "\ufffd" and (x.isprintable() or x.isspace()) for x in text)
    if "\0" in text or printable < 0.9 * len(text):
        return None
    text = text.strip()
    start = text[:300].lower()
    if start.startswith("version https://git-lfs"):
        return (
            "is a pointer of Git LFS, and not the file that it points to. Fetch that with `git lfs "
            "pull` in its repository, or download it from the repository's web page"
        )
    if re.match(r"(<!--.*?-->\s*)?<(!doctype html|html|head|body|title|script)", start):
        return f"is a web page (HTML), and not the file that it offers. {DOWNLOAD}"
    if start.startswith("<"):
        return f"is XML, such as a server's message of an error. {DOWNLOAD}"
    if start.startswith(("{", "[")):
        return (
            "is JSON, such as a server's message of an error, a configuration, or an index of "
            f"other files. {DOWNLOAD}"
        )
    first = json.dumps(text.splitlines()[0][:40]) if text else "blanks"
    return f"is a text that begins with {first}, and no file of weights. {OTHER}"


def archive(names: list[str]) -> str | None:
    """What a zip archive of such members is that holds no weights to read; None if that is open."""
    every = set(names)
    if "[Content_Types].xml" in every:
        return f"is an Office document. {OTHER}"
    if "model.weights.h5" in every:
        return f"is a model of Keras. {CONVERT}"
    if "META-INF/MANIFEST.MF" in every or "AndroidManifest.xml" in every:
        return f"is a program (Java). {OTHER}"
    if any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names):
        return (
            "is a program of TorchScript, and not only its weights. Save its state_dict() in the "
            "program that made it"
        )
    if not names:
        return f"is an empty zip archive. {DOWNLOAD}"
    if not any(name.endswith((".npy", "data.pkl")) for name in names):
        return f"is a zip archive of other files. {UNPACK}"
    return None
