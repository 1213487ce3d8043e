"""Hostile files: checkpoints and weights, damaged or forged in every way that is known here.

A case is a file and what it holds: the arrays that a reader may answer, or none if it must refuse
the file. A forged file is otherwise in order: its CRCs are right, and so is its digest.
"""

import copy
import io
import json
import os
import socket
import warnings
import zipfile
from dataclasses import dataclass
from functools import cache

import numpy as np

from tinymixer import nn
from tinymixer.data import Source
from tinymixer.models import create_model
from tinymixer.train import checkpoint
from tinymixer.train.config import Config
from tinymixer.train.records import DatasetRecord, EpochFigures, Header, Progress

OPTIONS = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_dim": 5,
    "num_blocks": 2,
    "tokens_mlp_dim": 3,
    "channels_mlp_dim": 7,
}
CLASSES = ("cat", "dog", "car")
HEADER = Header(
    Config(model="mixer_pico", model_options=OPTIONS, ema=0.9, batch_size=8),
    DatasetRecord(
        "shapes",
        Source("shapes", train_size=20, test_size=4),
        "0123456789abcdef" * 4,
        CLASSES,
        (120.0, 110.0, 100.0),
        (5.0, 6.0, 7.0),
        (8, 8),
        3,
        20,
        4,
    ),
    2,
    Progress(30.5, 7.0, 16, 1.5),
    (EpochFigures(1.0, 2.0, 0.25, 1e-3, 3.0, 100.0, test_loss=2.5, test_accuracy=0.125),),
    ((1.0, 1.0),),
)


@dataclass(frozen=True)
class Case:
    """A file: its content, or a function that makes it at a path. holds: None if to be refused."""

    kind: str
    form: str  # checkpoint, npz or safetensors
    content: object
    holds: dict | None
    header: Header | None = HEADER


def state(rng):
    model = create_model("mixer_pico", num_classes=len(CLASSES), rng=nn.BLANK, **OPTIONS)
    for array in model.state().values():
        array += rng.standard_normal(array.shape, dtype=np.float32)
    return model.state()


WEIGHTS, AVERAGE = (state(np.random.default_rng(seed)) for seed in (1, 2))
FLAT = np.arange(sum(x.size for x in WEIGHTS.values()), dtype=np.float32)
MOMENTS = {"m": FLAT, "v": FLAT / 7}
TRAINED = (
    {f"weights/{name}": x for name, x in WEIGHTS.items()}
    | {f"ema/{name}": x for name, x in AVERAGE.items()}
    | {f"optimizer/{name}": x for name, x in MOMENTS.items()}
)
HOLDS = {"checkpoint": TRAINED, "npz": WEIGHTS, "safetensors": WEIGHTS}


# Files, taken apart and put together again


def npy(x, **changes):
    """The bytes of a .npy file; `changes` to what its head says."""
    head = {"descr": x.dtype.str, "fortran_order": False, "shape": x.shape} | changes
    text = f"{head!r}".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + x.tobytes()


def zipped(members, method=zipfile.ZIP_STORED):
    """The bytes of a zip archive of (name, content) pairs: also of a name that is there twice."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def sign(said, arrays):
    """What a header says, as the member of an archive, with a digest that is right."""
    rest = {key: value for key, value in said.items() if key not in ("format", "digest")}
    try:
        digest = checkpoint._digest(rest, arrays)
    except (ValueError, RecursionError):
        digest = "0" * 64
    return with_text(json.dumps({"format": checkpoint.FORMAT, "digest": digest} | said))


def with_text(text):
    return ("header.npy", npy(np.frombuffer(text.encode(), np.uint8)))


def archive(form, arrays, members=None, said=None):
    """An archive of arrays, or of `members` in their place, signed if it is a checkpoint's."""
    members = (
        [(f"{name}.npy", npy(x)) for name, x in arrays.items()] if members is None else members
    )
    head = [sign(HEADER.to_json() if said is None else said, arrays)]
    return zipped(members + (head if form == "checkpoint" else []))


def safetensors(arrays, change=lambda heads: None, data=None):
    heads, end = {}, 0
    for name, x in arrays.items():
        kind = f"{x.dtype.kind.upper()}{8 * x.dtype.itemsize}"
        heads[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    change(heads)
    text = json.dumps(heads).encode()
    data = b"".join(x.tobytes() for x in arrays.values()) if data is None else data
    return len(text).to_bytes(8, "little") + text + data


GOOD = {form: archive(form, HOLDS[form]) for form in ("checkpoint", "npz")}
GOOD["safetensors"] = safetensors(WEIGHTS)


# Kinds of cases: (rng, form) -> Case


def damaged(rng, form):
    """Bytes changed by chance: what is read must be right all the same."""
    content = bytearray(GOOD[form])
    kind = rng.choice(["bit flips", "cut short", "bytes lost", "bytes doubled", "zeros", "noise"])
    i = int(rng.integers(len(content)))
    if rng.random() < 0.3:  # in the table of contents, or among the heads
        i = len(content) - 1 - i % 2000 if form != "safetensors" else i % 2000
    n = int(rng.integers(1, 40))
    if kind == "bit flips":
        for _ in range(rng.integers(1, 4)):
            content[i] ^= 1 << rng.integers(8)
            i = int(rng.integers(len(content)))
    elif kind == "cut short":
        del content[i:]
    elif kind == "bytes lost":
        del content[i : i + n]
    elif kind == "bytes doubled":
        content[i:i] = content[i : i + n]
    else:
        n = min(n, len(content) - i)
        content[i : i + n] = bytes(n) if kind == "zeros" else rng.bytes(n)
    # Floating-point numbers of a .safetensors file have no checksum: whatever they say is right.
    numbers_may_differ = form == "safetensors" and len(content) == len(GOOD[form])
    return Case(str(kind), form, bytes(content), ... if numbers_may_differ else HOLDS[form])


def forged_members(rng, form):
    """An archive whose members are not those of the file it was."""
    arrays = HOLDS[form]
    members = [(f"{name}.npy", npy(x)) for name, x in arrays.items()]
    i, j = (int(x) for x in rng.choice(len(members), 2, replace=False))
    kind = rng.choice(["doubled", "swapped", "renamed", "missing", "left over", "odd name"])
    if kind == "doubled":
        members.insert(j, members[i])
    elif kind == "swapped":
        (one, x), (other, y) = members[i], members[j]
        members[i], members[j] = (one, y), (other, x)
    elif kind == "missing":
        del members[i]
    else:
        odd = [
            "/etc/passwd.npy",
            "../../x.npy",
            "a\nb.npy",
            "x" * 5000 + ".npy",
            "folder/",
            "a.txt",
        ]
        name = str(rng.choice(odd)) if kind == "odd name" else "ghost.npy"
        members[i if kind == "renamed" else slice(i, i)] = (
            (name, members[i][1]) if kind == "renamed" else [(name, members[j][1])]
        )
    holds = None
    a, b = list(arrays)[i], list(arrays)[j]
    if kind == "swapped" and form == "npz" and arrays[a].shape == arrays[b].shape:
        holds = arrays | {a: arrays[b], b: arrays[a]}  # another file, and a whole one
    return Case(kind, form, archive(form, arrays, members), holds)


def forged_array(rng, form):
    """One array whose numbers, or what is said of them, is another."""
    arrays = HOLDS[form]
    name = str(rng.choice(list(arrays)))
    x, holds = arrays[name], None
    members = {f"{key}.npy": npy(y) for key, y in arrays.items()}
    kind = rng.choice(
        ["other type", "narrower", "NaN or inf", "objects", "absurd shape", "head", "bytes left"]
    )
    if kind == "other type":
        types = ["<f8", ">f4", "<i4", "<U3", "<M8[s]", "<m8[D]", "<c8", "|S4", "|V4", "|b1", "<f2"]
        dtype = np.dtype(str(rng.choice(types)))
        y = np.zeros(x.shape, dtype) if dtype.kind in "USVMmb" else x.astype(dtype)
        content = npy(y)
        if form == "npz" and y.dtype.str in ("<f8", "<f2"):
            holds = arrays | {name: y.astype(np.float32)}
    elif kind == "narrower":  # fewer bytes than the member has
        content = npy(x, descr=str(rng.choice(["<f2", "|u1", "|i1", "<u2"])))
    elif kind == "NaN or inf":
        y = x.copy()
        y.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
        content, arrays = npy(y), arrays | {name: y}
        if rng.random() < 0.5:
            y = y.astype(np.float64)
            y.flat[0] = 1e300  # infinite where it is to be read
            content = npy(y)
    elif kind == "objects":
        descr = ["|O", [("a", "<f4")], ("<f4", (1,)), "O", "object", None, 4, "<f4" * 3000]
        content = npy(x, descr=descr[rng.integers(len(descr))])
    elif kind == "absurd shape":
        shapes = [
            (10**12,),
            (10**30,),
            (-1,),
            (0, 10**18),
            x.size,
            (x.size, True),
            (1.0,),
            [x.size],
        ]
        shapes += [(2,) * 70, (0,) * 33, (*x.shape[::-1], 1), (x.size + 1,), "3", (10**5000 > 0,)]
        content = npy(x, shape=shapes[rng.integers(len(shapes))])
    elif kind == "head":
        heads = [
            b"(" * 4000,
            b"-" * 4000 + b"1",
            b"{" * 900,
            b"print(1)",
            b"{'descr': '<f4'}",
            b"\0",
        ]
        text = heads[rng.integers(len(heads))]
        version = [b"\1\0", b"\2\0", b"\3\0", b"\1\1"][rng.integers(4)]
        length = int(rng.choice([len(text), 2**31, 0, 65535]))
        width = 2 if version[0] == 1 else 4
        content = b"\x93NUMPY" + version + (length % 256**width).to_bytes(width, "little") + text
    else:
        content = npy(x) + bytes(int(rng.integers(1, 9)))
    members[f"{name}.npy"] = content
    return Case(str(kind), form, archive(form, arrays, list(members.items())), holds)


ABSURD = [
    *(None, True, -1, 0.5, 10**12, 10**30, 10**400, 1e300, float("nan"), float("inf"), "x", "a\nb"),
    *([], [1], [[[1]]], {}, {"a": 1}, [0] * 10_000, "x" * 10_000, [10**30], [-1, 2, 3], 0),
]


def forged_header(rng, form):
    """A header with one value that no run writes, or none at all; often with the right digest."""
    said = HEADER.to_json()
    place, key = said, str(rng.choice(list(said)))
    while isinstance(place[key], dict | list | tuple) and rng.random() < 0.85 and place[key]:
        place[key] = dict(place[key]) if isinstance(place[key], dict) else list(place[key])
        place = place[key]
        key = (
            str(rng.choice(list(place)))
            if isinstance(place, dict)
            else int(rng.integers(len(place)))
        )
    if rng.random() < 0.15:
        del place[key]
    else:
        place[key] = copy.deepcopy(ABSURD[rng.integers(len(ABSURD))])
        if rng.random() < 0.1 and isinstance(place, dict):
            place[str(rng.choice(["ghost", "format", "digest", "a\nb"]))] = place[key]
    try:  # some of these values are those of another run
        header = Header.from_json(json.loads(json.dumps(said)))
    except (ValueError, TypeError, RecursionError):
        header = None
    return Case(
        "a value of the header",
        "checkpoint",
        archive("checkpoint", TRAINED, said=said),
        TRAINED if header else None,
        header,
    )


def forged_text(rng, form):
    """A header that is no header."""
    texts = ["", "null", "[]", "3", '"x"', "{", "[" * 100_000, '{"a":' * 50_000, "1" * 10_000]
    texts += ["{}", '{"format": 2}', '{"format": 1}', '{"format": [2]}', '{"format": NaN}', "\0"]
    nested = HEADER.to_json() | {"history": json.loads("[" * 400 + "]" * 400)}
    texts += [json.dumps({"format": 2, "digest": "0" * 64} | nested)]
    members = [(f"{name}.npy", npy(x)) for name, x in TRAINED.items()]
    text = texts[rng.integers(len(texts))]
    return Case("text of the header", "checkpoint", zipped([*members, with_text(text)]), None)


def forged_options(rng, form):
    """A configuration of a model that is larger than the file."""
    options = dict(OPTIONS)
    name = str(rng.choice([*OPTIONS, "eps", "dropout", "gelu", "rng", "num_classes", "ghost"]))
    sizes = [10**30, 10**12, 10**9, 10**6, 5000, 100, 0, -5, 2.5, "5", None, [5, 5], True]
    options[name] = sizes[rng.integers(len(sizes))]
    if rng.random() < 0.3:
        options[str(rng.choice(list(OPTIONS)))] = int(rng.choice([300, 1200, 10**6]))
    said = HEADER.to_json()
    said["config"] = said["config"] | {"model_options": options}
    if rng.random() < 0.3:
        systems = ["mixer_h14", "as_mlp_nano", "hire_mlp_nano", "vip_nano", "sparse_mlp_nano"]
        said["config"] |= {"model": str(rng.choice(systems)), "model_options": {}}
        if rng.random() < 0.5:
            deep = {"dims": [10**9] * 3, "depths": [10**9] * 3}
            said["config"]["model_options"] = deep
    same = options == OPTIONS and said["config"]["model"] == "mixer_pico"
    if name in ("eps", "dropout") or same:  # weights do not depend on these
        try:
            header = Header.from_json(json.loads(json.dumps(said)))
            holds = TRAINED if said["config"]["model"] == "mixer_pico" else None
        except (ValueError, TypeError):
            header = holds = None
    else:
        header = holds = None
    content = archive("checkpoint", TRAINED, said=said)
    return Case("absurd sizes", "checkpoint", content, holds, header)


@cache
def many(name):
    return zipped((name.format(i), b"") for i in range(100_000))


def bombs(rng, form):
    """Files that grow when they are read."""
    kind = rng.choice(["compressed bomb", "100,000 empty members", "lying sizes", "compressed"])
    zeros = npy(np.zeros(2 * 10**7, np.float32))
    if kind == "compressed bomb":
        members = [(f"{name}.npy", zeros) for name in list(HOLDS[form])[:2]]
        return Case(kind, form, zipped(members, zipfile.ZIP_DEFLATED), None)
    if kind == "100,000 empty members":
        name = "x{}.npy" if rng.random() < 0.5 else "x.npy"
        return Case(kind, form, many(name), None)
    if kind == "compressed":
        members = [(f"{name}.npy", npy(x)) for name, x in HOLDS[form].items()]
        method = int(rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        holds = WEIGHTS if form == "npz" and method == zipfile.ZIP_DEFLATED else None
        members += [] if form == "npz" else [sign(HEADER.to_json(), TRAINED)]
        return Case(kind, form, zipped(members, method), holds)
    content = bytearray(GOOD[form])
    entry = content.find(b"PK\1\2")
    for _ in range(rng.integers(1, 5)):
        entry = content.find(b"PK\1\2", entry + 1)
    field = int(rng.choice([8, 10, 20, 24, 28, 30, 42]))  # flags, method, sizes, lengths, place
    size = int(rng.choice([0, 1, 40, 10**6, 2**31, 2**32 - 1]))
    content[entry + field : entry + field + 4] = size.to_bytes(4, "little")
    return Case(kind, form, bytes(content), HOLDS[form])


def special(rng, form):
    """What is no regular file of this kind at all."""

    def listening(path):
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))

    def sparse(path):
        path.write_bytes(GOOD[form][:100])
        os.truncate(path, 10**11)

    makers = {
        "pipe": os.mkfifo,
        "socket": listening,
        "folder": os.mkdir,
        "device": lambda path: path.symlink_to(str(rng.choice(["/dev/zero", "/dev/null"]))),
        "link to itself": lambda path: path.symlink_to(path),
        "missing": lambda path: None,
        "sparse": sparse,
        "empty": lambda path: path.touch(),
        "HTML": lambda path: path.write_text("<!doctype html><title>404</title>"),
    }
    kind = str(rng.choice(list(makers)))
    return Case(kind, form, makers[kind], None)


def forged_safetensors(rng, form):
    """A .safetensors file whose heads lie."""
    name, other = (str(x) for x in rng.choice(list(WEIGHTS), 2, replace=False))
    lies = {
        "dtype": ["BF16", "F8_E4M3", "BOOL", "C64", "F16", "F64", "I32", "U8", "x\ny", 3, None],
        "shape": [[10**12], [10**30], [-1], [], [1.5], "3", None, [0], [True], [2] * 70, {}],
        "data_offsets": [
            [0, 0],
            [0, 10**12],
            [-8, 8],
            [8, 0],
            [0.0, 8.0],
            [1],
            "x",
            None,
            [10**30] * 2,
        ],
    }
    kind = str(rng.choice([*lies, "overlap", "gap", "length", "text", "names", "NaN or inf"]))
    holds = None
    if kind in lies:
        lie = lies[kind][rng.integers(len(lies[kind]))]
        content = safetensors(WEIGHTS, lambda heads: heads[name].update({kind: lie}))
    elif kind == "overlap":
        content = safetensors(
            WEIGHTS, lambda heads: heads[name].update(data_offsets=heads[other]["data_offsets"])
        )
    elif kind == "gap":
        content = GOOD["safetensors"] + bytes(int(rng.integers(1, 9)))
    elif kind == "length":
        length = int(rng.choice([0, 1, 2**31, 2**62, len(GOOD[form]), 7]))
        content = length.to_bytes(8, "little") + GOOD[form][8:]
    elif kind == "text":
        texts = [
            "[" * 10**5,
            '{"a":' * 10**4,
            "null",
            "[1]",
            '{"a": 1}',
            '{"a": {}, "a": {}}',
            "\0",
        ]
        text = texts[rng.integers(len(texts))].encode()
        content = len(text).to_bytes(8, "little") + text
    elif kind == "names":
        odd = str(rng.choice(["a\nb", "", "ghost", other, "x" * 3000, "__metadata__"]))
        content = safetensors({odd if key == name else key: x for key, x in WEIGHTS.items()})
    else:
        x = WEIGHTS[name].copy()
        x.flat[0] = rng.choice([np.nan, np.inf])
        content = safetensors(WEIGHTS | {name: x})
    return Case(f"safetensors: {kind}", "safetensors", content, holds)


MIX = [  # (maker, forms, share)
    (damaged, ["checkpoint", "npz", "safetensors"], 0.3),
    (forged_members, ["checkpoint", "npz"], 0.12),
    (forged_array, ["checkpoint", "npz"], 0.15),
    (forged_header, ["checkpoint"], 0.15),
    (forged_text, ["checkpoint"], 0.03),
    (forged_options, ["checkpoint"], 0.08),
    (bombs, ["checkpoint", "npz"], 0.02),
    (special, ["checkpoint", "npz", "safetensors"], 0.05),
    (forged_safetensors, ["safetensors"], 0.1),
]


def cases(n, seed):
    """n cases, the same for a seed; each kind at least a few times."""
    rng = np.random.default_rng(seed)
    for maker, forms, share in MIX:
        for _ in range(round(n * share)):
            yield maker(rng, str(rng.choice(forms)))
