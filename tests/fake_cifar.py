"""Small fakes of the published CIFAR files, in all four forms."""

import io
import tarfile
from dataclasses import replace

import numpy as np

from tinymixer.data import cifar

SMALL = {
    "cifar10": replace(cifar.CIFAR10, train_records=20, test_records=10),
    "cifar100": replace(cifar.CIFAR100, train_records=200, test_records=100),
}


def fake_files(layout):
    """Random records in which every label occurs equally often."""
    rng = np.random.default_rng(0)
    *train, test = layout.files
    files = {}
    for group in (train, [test]):
        count = sum(layout.records(file) for file in group)
        columns = [rng.permutation(count) % classes for classes in layout.label_counts]
        pixels = rng.integers(0, 256, (count, cifar.PIXELS))
        records = np.column_stack([*columns, pixels]).astype(np.uint8)
        files.update(zip(group, np.split(records, len(group)), strict=True))
    return files


def python2_pickle(layout, records):
    """What cPickle of Python 2 wrote: byte strings for text, and an array inside."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
        b"(K\x01M" + len(records).to_bytes(2, "little") + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    )
    pixels = records[:, len(layout.label_keys) :].tobytes()
    array += b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    pickled = b"\x80\x02}" + text("data") + array + b"s"
    for column, key in enumerate(layout.label_keys):
        labels = b"".join(b"K" + bytes([label]) for label in records[:, column].tolist())
        pickled += text(key) + b"](" + labels + b"es"
    return pickled + text("batch_label") + text("training batch 1 of 5") + b"s."


def members_of(layout, files, form):
    """Archive members (path, bytes) of one of the two forms."""
    if form == "binary":
        members = {f"{layout.folder}/{name}": r.tobytes() for name, r in files.items()}
        return {f"{layout.folder}/readme.html": b"<html>", **members}
    return {
        f"{layout.python_folder}/{name}": python2_pickle(layout, files[file])
        for name, file in zip(layout.python_files, layout.files, strict=True)
    }


def tar_gz(path, members):
    """Write an archive; a value is the content, or a TarInfo for an odd member."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path
