"""Files that are no weights, or weights that are not read: what each is, and what must be said.

A case is a content, or a function that makes the file at a path, and a pattern of the message.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from functools import cache

import numpy as np
from torch_files import Pickler, Steps, Strided, legacy_file, msgpack_file, zip_file

RNG = np.random.default_rng(8)
W = RNG.standard_normal((5, 7)).astype(np.float32)
GOOD = {f"layers.{i}.weight": W + i for i in range(12)} | {"head.bias": W[0]}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 238921\n"
DRIVE = "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
DENIED = '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>'
CANARY = "canary"  # a file that code in a pickle would make where the test runs


def zipped(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, kind=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def safetensors(heads, data=b""):
    text = json.dumps(heads).encode()
    return len(text).to_bytes(8, "little") + text + data


def head(kind, n):
    return {"w": {"dtype": kind, "shape": [n], "data_offsets": [0, n]}}


def index(places, **files):
    """An index of other files, and these beside it."""

    def make(path):
        path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
        for name, content in files.items():
            path.with_name(f"{name}.bin").write_bytes(content)

    return make


class Evil:
    def __reduce__(self):
        return (open, (CANARY, "w"))


PROGRAM = b"c__builtin__\nopen\n(X\x06\0\0\0canaryX\1\0\0\0wtR"  # steps that would write a file
OFTEN = b"".join(b"h\0" for _ in range(40))
TENSOR = Pickler().steps(W)


def tensor(function, *arguments):
    """Steps that would call a function of torch._utils."""
    steps = b"".join(map(Pickler().steps, arguments))
    return Steps(f"ctorch._utils\n{function}\n(".encode() + steps + b"tR")


def shared():
    """Lists of lists of lists: 40 steps each, 40**20 entries."""
    steps = b"]q\0" + b"".join(b"](" + OFTEN + b"eq\0" for _ in range(20))
    return b"\x80\2" + steps + b"}X\1\0\0\0ah\0s."


TEXTS = {
    "empty": (b"", "is empty, as after a download that failed"),
    "web page": (b"<!doctype html><title>404</title>", r"is a web page \(HTML\)"),
    "web page of Google Drive": (DRIVE.encode(), r"is a web page \(HTML\)"),
    "web page after a comment": (b"\xef\xbb\xbf<!-- x -->\n<html>", r"is a web page \(HTML\)"),
    "pointer of Git LFS": (LFS.encode(), "is a pointer of Git LFS.*git lfs pull"),
    "XML": (DENIED.encode(), "is XML, such as a server's message"),
    "JSON error": (b'{"error": "Repository not found"}', "is JSON, such as a server's message"),
    "configuration": (b'{\n  "architecture": "mixer_b16_224"\n}', "is JSON"),
    "text": (b"# Weights\nSee the release page.\n", 'is a text that begins with "# Weights"'),
    "text with control characters": (b"\x1b[31mred\x1b[0m and more than that", "is a text"),
    "UTF-16": ("Weights".encode("utf-16"), 'is a text that begins with "Weights"'),
    "script": (b"#!/bin/sh\nrm -rf x\n", "is a script"),
    "YAML": (b"model: mixer_b16\nepochs: 300\n", "is a text"),
    "one byte": (b"\7", "has no more than 1 byte\\.|begins like no file"),
    "zeros": (bytes(5000), "holds nothing but zeros, as after a download"),
}
ARCHIVES = {
    "gzip": (gzip.compress(npz(w=W)), "is compressed by gzip. Unpack it"),
    "bzip2": (bz2.compress(npz(w=W)), "is compressed by bzip2. Unpack it"),
    "xz": (lzma.compress(npz(w=W)), "is compressed by xz. Unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(50), "is compressed by zstd. Unpack it"),
    "zlib": (zlib.compress(pickle.dumps(W)), "is compressed by zlib, as joblib does"),
    "tar": (tarred({"weights.npz": npz(w=W)}), "is a tar archive. Unpack it"),
    "old tar of PyTorch": (tarred({"storages": b"", "pickle": b""}), "is a tar archive"),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c" + bytes(50), "is a 7-Zip archive"),
    "RAR": (b"Rar!\x1a\7\0" + bytes(50), "is a RAR archive"),
    "zip of other files": (zipped({"a/weights.npz": npz(w=W)}), "a zip archive of other files"),
    "zip of nothing": (zipped({}), "is an empty zip archive"),
    "Office": (zipped({"[Content_Types].xml": b"<x/>"}), "is an Office document"),
    "Java": (zipped({"META-INF/MANIFEST.MF": b"x"}), "is a program"),
    "Keras, zip": (zipped({"config.json": b"{}", "model.weights.h5": b""}), "a model of Keras"),
    "TorchScript": (
        zipped(
            {"net/data.pkl": b"\x80\2}.", "net/constants.pkl": b"\x80\2).", "net/code/x.py": b""}
        ),
        "is a program of TorchScript",
    ),
}
OTHERS = {
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(90), r"is an HDF5 file, as Keras writes"),
    "npy": (npy(W), r"is one array of NumPy \(.npy\) without a name"),
    "Matlab": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(200), "is a Matlab file"),
    "ONNX": (b"\x08\7\x12\7pytorch\x1a\x042.13" + bytes(99), "is an ONNX model"),
    "SavedModel": (b"\x08\1\x12\xfb\x85\1\n" + bytes(99), "is a SavedModel of TensorFlow"),
    "TensorFlow's index": (
        RNG.bytes(99).replace(b"\0", b"x") + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
        "is the index of a TensorFlow checkpoint",
    ),
    "raw numbers": (b"\xc7\xd1" + RNG.bytes(999), "begins like no file of weights that tinymixer"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(90), "is a model of TensorFlow Lite"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(90), "is a GGUF file"),
    "Parquet": (b"PAR1" + bytes(90), "is a table"),
    "SQLite": (b"SQLite format 3\0" + bytes(90), "is a database"),
    "program": (b"\x7fELF\2\1\1" + bytes(90), "is a program"),
    "program for Windows": (b"MZ\x90\0" + bytes(90), "is a program for Windows"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3" + bytes(90), "is a PDF document"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a PostScript document"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(90), r"is a picture \(PNG\)"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(90), r"is a picture \(JPEG\)"),
    "GIF": (b"GIF89a" + bytes(90), r"is a picture \(GIF\)"),
    "TIFF": (b"II*\0\x08\0\0\0" + bytes(90), r"is a picture \(TIFF\)"),
    "WebP": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(90), r"is a picture \(WebP\)"),
    "BMP": (b"BM" + struct.pack("<III", 100, 0, 54) + bytes(90), r"is a picture \(BMP\)"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(90), "is a picture or a film"),
}
PICKLES = {
    "pickle of protocol 0": (pickle.dumps({"w": 1.5}, 0), "is a Python pickle, but none of PyTo"),
    "pickle of protocol 2": (pickle.dumps({"w": W}, 2), "is a Python pickle, but none of PyTorch"),
    "pickle of protocol 5": (pickle.dumps({"w": W}, 5), "is a Python pickle, but none of PyTorch"),
    "pickle that is a program": (pickle.dumps(Evil(), 2), "is a Python pickle, but none of PyTo"),
    "text pickle that is a program": (b"cos\nsystem\n(S'touch canary'\ntR.", "a Python pickle"),
    "program in a PyTorch file": (
        zip_file(b"\x80\2" + PROGRAM + b"."),
        r"holds no arrays but an object of '__builtin__.open', which is not made here",
    ),
    "program in a legacy file": (
        legacy_file(b"\x80\2" + PROGRAM + b"."),
        r"holds no arrays but an object of '__builtin__.open', which is not made here",
    ),
    "whole module": (
        zip_file(b"\x80\2cmodels.as_mlp\nAS_MLP\n)\x81}b."),
        "holds no arrays but an object of 'models.as_mlp.AS_MLP'.*state_dict",
    ),
    "numbers only": (zip_file({"epoch": 3, "loss": [1.5, 2.5]}), "PyTorch file, and holds no arr"),
    "arrays of NumPy in PyTorch's": (
        zip_file(b"\x80\2}X\1\0\0\0wcnumpy.core.multiarray\n_reconstruct\n)Rs."),
        "'w' is an array of NumPy in a pickle",
    ),
}
KINDS = {
    "quantised": (zip_file({"w": tensor("_rebuild_qtensor", 1)}), "'w' is a quantised tensor"),
    "sparse": (zip_file({"w": tensor("_rebuild_sparse_tensor", 1)}), "'w' is a sparse tensor"),
    "8 bits, PyTorch": (
        zip_file({"w": W.astype("i1")}),
        "'w' is an array of int8, as quantised wei",
    ),
    "8 bits, safetensors": (
        safetensors(head("I8", 3), bytes(3)),
        "an array of int8, as quantised weights",
    ),
    "8 bits, NumPy": (npz(w=W.astype("u1")), "'w' is an array of uint8, as quantised w"),
    "float of 8 bits": (safetensors(head("F8_E4M3", 3), bytes(3)), "array of type 'F8_E4M3'"),
    "complex": (zip_file({"w": W.astype("c8")}), "'w' is an array of complex64, which tinymix"),
    "true or false": (legacy_file({"w": W > 0}), "'w' is an array of bool, which tinymixer"),
    "objects": (npz(w=np.array([{}, 1], object)), "'w' is an array of type '.O', which"),
    "texts": (npz(w=np.array(["a"])), "'w' is an array of type '<U1', whic"),
    "complex, NumPy": (npz(w=W.astype("c8")), "'w' is an array of type '<c8'"),
    "the other order of bytes": (npz(w=W.astype(">f4")), "'w' is an array of type '>f4'"),
}
PARTS = {
    "half of a PyTorch file": (zip_file(GOOD)[:-500], "not a whole .npz or PyTorch.*end is missi"),
    "half of a legacy file": (legacy_file(GOOD)[:-500], "is not a whole PyTorch file"),
    "half of the pickle of one": (legacy_file(GOOD)[:900], "is not a whole PyTorch file"),
    "half of an .npz file": (npz(**GOOD)[:-500], "not a whole .npz or PyTorch.*end is missing"),
    "half of a .safetensors file": (
        safetensors(head("F32", 3) | {}, bytes(3))[:60],
        "is not a whole .safetensors file",
    ),
    "half of a Flax file": (msgpack_file({"params": GOOD})[:-9], "is not a whole Flax file"),
    "index without its parts": (
        index({"w": "model-00001-of-00002.safetensors"}),
        "is an index, and its part model-00001-of-00002.safetensors is not beside it",
    ),
    "index that leaves the folder": (
        index({"w": "../secret.safetensors"}),
        "'../secret.safetensors' is not the name of a file beside it",
    ),
    "index with a path": (index({"w": "/etc/passwd"}), "is not the name of a file beside it"),
    "index of itself": (
        lambda path: path.write_text(json.dumps({"weight_map": {"w": path.name}})),
        "an index is in the place of a file of weights",
    ),
    "index of what is not there": (
        index({"v": "part.bin"}, part=npz(w=W)),
        "'v' is not in part.bin, where it should be",
    ),
    "index of a web page": (
        index({"v": "part.bin"}, part=DRIVE.encode()),
        r"part.bin is a web page",
    ),
}


@cache
def bombs():
    """Files made to take time and memory."""
    strided = Strided(W.ravel(), (10**6, 10**6), (0, 0))
    outside = Strided(W.ravel(), (5, 7), (7, 1), offset=1)
    hidden = {"a": {"b": W}, "a/b": W}
    wide = b"\xde\xff\xff" + b"".join(b"\xa3%03d\x93\1\2\3" % (i % 1000) for i in range(65535))
    zeros = zipped({"w/data.pkl": bytes(10**9)}, zipfile.ZIP_DEFLATED)
    record = np.frombuffer(
        json.dumps(
            {"model": "mixer_pico", "model_options": {"num_blocks": 10**6, "image_size": 8}}
        ).encode(),
        np.uint8,
    )
    return {
        "memo of 4 billion": (b"\x80\2}r\xff\xff\xff\xffX\1\0\0\0aK\1s.", "holds no arrays"),
        "tuple in itself": (b"\x80\2]q\0h\0\x85a.", "nested more than 16 deep"),
        "dictionary in itself": (b"\x80\2}q\0X\1\0\0\0ah\0s.", "nested more than 16 deep"),
        "deep lists": (
            b"\x80\2" + b"]" * 3 * 10**4 + b"a" * (3 * 10**4 - 1) + b".",
            "nested more than 16 deep",
        ),
        "deep tuples": (
            b"\x80\2N" + b"\x85" * 3 * 10**4 + b".",
            "nested more than 16 deep",
        ),
        "deep tuple as a key": (
            b"\x80\2}N" + b"\x85" * 3 * 10**4 + b"K\1s.",
            "holds no arrays",
        ),
        "lists of the same lists": (shared(), "nested more than 16 deep|entries"),
        "endless steps": (
            b"\x80\2" + b"N0" * 3 * 10**5 + b".",
            "takes more than 524,288 steps",
        ),
        "colliding numbers": (
            b"\x80\2}("
            + b"".join(
                b"\x8a\x08" + (k * (2**61 - 1)).to_bytes(8, "little") + b"N" for k in (1, 2, 3)
            )
            + b"u.",
            "holds no arrays",
        ),
        "a text of 4 billion bytes": (b"\x80\2X\xff\xff\xff\xffa.", "more than 16,777,216 bytes"),
        "a number of a million digits": (b"\x80\2I" + b"9" * 10**6 + b"\n.", "not a whole PyT"),
        "a byte that is no step": (b"\x80\2\xff.", "is not a whole PyTorch file"),
        "nothing on the stack": (b"\x80\2R.", "is not a whole PyTorch file"),
        "no end": (b"\x80\2}", "is not a whole PyTorch file"),
        "names that become one": (hidden, "'a/b' is there twice"),
        "one number, 10**12 times": ({"w": strided}, "'w' is a tensor that repeats the numbers"),
        "outside of its storage": ({"w": outside}, "a tensor is larger than its storage"),
        "a pickle of a gigabyte": (zeros, "members are compressed"),
        "a tree of 4 billion": (
            b"\x81\xa1a\xdd\xff\xff\xff\xff" + b"\1" * 3 * 10**4,
            "not a whole Flax",
        ),
        "a deep tree": (b"\x81\xa1a" * 3 * 10**4 + b"\1", "its tree is more than 16 deep"),
        "a wide tree": (wide * 9, "is not a whole Flax file"),
        "an array that lies": (
            msgpack_file({"w": W}).replace(
                b"\x92\xd3" + bytes(7) + b"\5", b"\x92\xd3\0\0\1" + bytes(5)
            ),
            "is not a whole Flax file",
        ),
        "heads of 16 MB": (
            (2**22 - 8).to_bytes(8, "little") + b"{" + b"[" * 2**22,
            "not a whole .s",
        ),
        "heads of empty objects": (
            (2**21).to_bytes(8, "little") + b'{"a":[' + b"{}," * (2**21 // 3),
            "is not a whole .safetensors file",
        ),
        "an index of 5 MB": (b'{"weight_map": {' + b" " * (5 * 2**20), "not a whole index"),
        "a record of a model of a million blocks": (
            npz(record=record, w=W),
            "has a damaged record of its model .it describes a larger model than the file holds",
        ),
    }


def written(content):
    """The bytes of a case: a pickle's steps go into a file of PyTorch."""
    if isinstance(content, dict):
        return zip_file(content)
    if content.startswith(b"\x80\2"):
        return zip_file(content)
    return content


FOREIGN = TEXTS | ARCHIVES | OTHERS | PICKLES | KINDS | PARTS
