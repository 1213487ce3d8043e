"""The forms in which CIFAR is handed around, made of records: members of an archive or a folder."""

import io
import zipfile
import zlib

import numpy as np
from fake_cifar import members_of
from PIL import Image


def matlab(layout, files, packed=True):
    """The MATLAB archive's files: arrays of uint8, and a text beside them."""

    def element(kind, content):
        return np.array([kind, len(content)], "<u4").tobytes() + content + bytes(-len(content) % 8)

    def array(name, x, flags=9):
        parts = element(6, np.array([flags, 0], "<u4").tobytes())
        parts += element(5, np.array(x.shape, "<i4").tobytes()) + element(1, name.encode())
        return element(14, parts + element(2, x.tobytes("F")))

    members = {}
    for file, name in zip(layout.files, layout.matlab_files, strict=True):
        records, labels = files[file], len(layout.label_keys)
        arrays = [array("data", records[:, labels:])]
        arrays += [array(key, records[:, [i]]) for i, key in enumerate(layout.label_keys)]
        arrays.append(array("batch_label", np.frombuffer(b"training batch", np.uint8)[None], 4))
        if packed:
            arrays = [zlib.compress(x) for x in arrays]
            arrays = [np.array([15, len(x)], "<u4").tobytes() + x for x in arrays]
        head = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\1IM"
        members[f"{layout.python_folder[:-2]}mat/{name}"] = head + b"".join(arrays)
    return members


def png(record, first=1, kind="PNG"):
    image = Image.fromarray(
        np.ascontiguousarray(record[first:].reshape(3, 32, 32).transpose(1, 2, 0))
    )
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pictures(layout, files):
    """A folder for each class."""
    *train, test = layout.files
    members = {}
    for part, names in (("train", train), ("test", [test])):
        for i, record in enumerate(np.concatenate([files[name] for name in names])):
            members[f"cifar10/{part}/{layout.class_names[record[0]]}/{i:04}.png"] = png(record)
    return members


def table(layout, files, tests=True):
    """Kaggle's folder: pictures with numbers, and their classes in a table."""
    *train, test = layout.files
    members = {"cifar-10/sampleSubmission.csv": b"id,label\n1,cat\n2,cat\n"}
    for part, names in (("train", train), ("test", [test])):
        lines = ["id,label"]
        for i, record in enumerate(np.concatenate([files[name] for name in names]), 1):
            members[f"cifar-10/{part}/{i}.png"] = png(record)
            lines.append(f"{i},{layout.class_names[record[0]]}")
        if tests or part == "train":
            members[f"cifar-10/{part}Labels.csv"] = "\n".join(lines).encode()
    return members


def parquet(layout, files):
    """Hugging Face's two files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    *train, test = layout.files
    members, labels = {}, len(layout.label_keys)
    for part, names in (("train", train), ("test", [test])):
        records = np.concatenate([files[name] for name in names])
        images = [{"bytes": png(record, labels), "path": None} for record in records]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"img": pa.array(images, kind)}
        for i, key in enumerate(layout.label_keys):
            columns[key.removesuffix("s")] = pa.array(records[:, i].tolist(), pa.int64())
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file)
        members[f"plain_text/{part}-00000-of-00001.parquet"] = file.getvalue()
    return members


def binary(layout, files):
    return members_of(layout, files, "binary")


def python(layout, files):
    return members_of(layout, files, "python")


def unpacked(folder, members):
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path
