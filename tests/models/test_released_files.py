"""Weights of all six systems in files as the authors' programs write them: the published logits.

The arrays of test_released_layouts.py, in float64, wrapped as checkpoints are and written by hand
as PyTorch of both kinds, safetensors, NumPy and Flax do. PyTorch itself writes where it is there.
"""

import json

import numpy as np
import published
import pytest
import test_sparse_mlp
from checks import assert_close
from test_released_layouts import PRINTED, RELEASED, laid_out, mixer_official, of_mixer
from torch_files import legacy_file, msgpack_file, zip_file

from tinymixer.models import MLPMixer
from tinymixer.weights import find_layout, load_state, read_weights, state_in


def sparse_mlp():
    """Never released: its weights come in our own layout only."""
    model = test_sparse_mlp.tiny_model()
    arrays = {name: array.copy() for name, array in model.state().items()}
    logits = [
        [-0.0642549522, -0.0086092859, 0.0122827823, 0.0190060760, 0.0188380910],
        [-0.0260688808, -0.2861182720, -0.0430984663, -0.6285910087, 0.1603763904],
    ]
    return model, arrays, "tinymixer", logits


def of_system(names, layout, system, options, logits):
    model = system(**options, rng=np.random.default_rng(0)).astype(np.float64)
    return model, laid_out(names(), model, layout), layout, logits


def official_mixer():
    system, options, logits = of_mixer("tanh, eps 1e-6")
    model, arrays, _, _ = of_system(RELEASED["Mixer, timm"][0], "timm", system, options, logits)
    load_state(model, arrays, "timm")
    arrays = {name: array.copy() for name, array in state_in(model, "official").items()}
    assert list(arrays) == mixer_official()
    return model, arrays, "official", logits


SYSTEMS = {
    **{name: lambda name=name: of_system(*RELEASED[name]) for name in RELEASED},
    "Mixer, official": official_mixer,
    "Sparse-MLP": sparse_mlp,
}


def safetensors(arrays):
    heads, data = {"__metadata__": {"format": "pt"}}, b""
    for name, x in arrays.items():
        kind = f"{x.dtype.kind.upper()}{8 * x.dtype.itemsize}"
        places = [len(data), len(data) + x.nbytes]
        heads[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": places}
        data += np.ascontiguousarray(x).tobytes()
    text = json.dumps(heads).encode()
    return len(text).to_bytes(8, "little") + text + data


def npz(path, arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def tree(arrays):
    """Nested dictionaries of names with "/" between them."""
    root = {}
    for name, x in arrays.items():
        *places, last = name.split("/")
        inner = root
        for place in places:
            inner = inner.setdefault(place, {})
        inner[last] = x
    return root


FORMS = {  # how a checkpoint is written: (path, arrays) -> None
    "PyTorch": lambda path, x: path.write_bytes(zip_file({"model": x, "epoch": 299})),
    "PyTorch, big-endian": lambda path, x: path.write_bytes(zip_file(x, "big")),
    "PyTorch, legacy": lambda path, x: path.write_bytes(legacy_file({"state_dict": x})),
    "PyTorch, distributed": lambda path, x: path.write_bytes(
        legacy_file({f"module.{name}": array for name, array in x.items()})
    ),
    "safetensors": lambda path, x: path.write_bytes(safetensors(x)),
    "NumPy": npz,
    "NumPy, trained": lambda path, x: npz(path, {f"opt/target/{name}": a for name, a in x.items()}),
    "Flax": lambda path, x: path.write_bytes(msgpack_file({"params": tree(x), "step": 7})),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_files_of_all_forms_give_the_published_logits(system, tmp_path):
    model, arrays, layout, logits = SYSTEMS[system]()
    images = published.images(len(logits), *model.image_size, 3)
    blank = {name: np.zeros_like(array) for name, array in model.state().items()}
    for form, write in FORMS.items():
        path = tmp_path / "weights.bin"  # a file is what its content says
        write(path, arrays)
        model.load_state(blank)
        with read_weights(path) as weights:
            assert weights.keys() == {n for n in arrays if not n.endswith("batches_tracked")}, form
            assert find_layout(model, weights) == layout
            load_state(model, weights)
        assert_close(model(images).data, np.array(logits), within=PRINTED)


@pytest.mark.parametrize("system", SYSTEMS)
def test_pytorchs_own_files_give_the_published_logits(system, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model, arrays, _, logits = SYSTEMS[system]()
    images = published.images(len(logits), *model.image_size, 3)
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
    path = tmp_path / "weights.pth"
    for newer in (True, False):
        for protocol in (2, 4):
            torch.save(
                {"model": tensors, "epoch": 3},
                path,
                _use_new_zipfile_serialization=newer,
                pickle_protocol=protocol,
            )
            load_state(model, path)
            assert_close(model(images).data, np.array(logits), within=PRINTED)


def test_the_systems_are_all_six():
    systems = {type(make()[0]) for make in SYSTEMS.values()}
    assert len(systems) == 6
    assert MLPMixer in systems
