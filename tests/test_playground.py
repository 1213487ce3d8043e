"""The playground's Mixer, in JavaScript, computes what NumPy does."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tinymixer import cli, create_model, data, no_grad
from tinymixer.models import options_of
from tinymixer.weights import save_state

ROOT = Path(__file__).parents[1]
SCRIPT = """
const { readWeights, forward } = require(process.argv[1]);
const fs = require("fs");
const read = (path) => { const x = fs.readFileSync(path); return x.buffer.slice(
    x.byteOffset, x.byteOffset + x.length); };
const weights = readWeights(read(process.argv[2]));
const pixels = new Uint8Array(read(process.argv[3])), size = 32 * 32 * 3;
const start = performance.now(), logits = [];
for (let i = 0; i < pixels.length; i += size)
    logits.push(Array.from(forward(weights, pixels.subarray(i, i + size)).logits));
console.log(JSON.stringify({ logits, ms: (performance.now() - start) / logits.length }));
"""

node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


@pytest.fixture
def model(rng):
    """A Mixer all of whose parameters matter: a new head is zero, a new norm changes nothing."""
    model = create_model("mixer_pico", eps=0.01, rng=rng)
    for _, parameter in model.named_parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape, dtype=np.float32)
    return model


def in_node(weights, images, tmp_path):
    (tmp_path / "pixels").write_bytes(images.tobytes())
    mixer = ROOT / "lessons" / "site" / "_static" / "mixer.js"
    command = ["node", "-e", SCRIPT, str(mixer), str(weights), str(tmp_path / "pixels")]
    return subprocess.run(command, capture_output=True, text=True)


@node
@pytest.mark.parametrize("size", [32, [32, 32]])  # as a run writes it, too
def test_its_logits_are_those_of_numpy(size, model, tmp_path):
    """From the file that `tinymixer convert` writes. Logits are near 1: float32 differs by 1e-6."""
    pictures = data.load("shapes", train_size=1, test_size=24)
    about = {"mean": list(pictures.mean), "std": list(pictures.std)}
    options = {"eps": 0.01, "image_size": size}
    record = {"model": "mixer_pico", "model_options": options, "layout": "tinymixer"} | about
    save_state(model, tmp_path / "own.npz", record=record)
    weights = tmp_path / "own.safetensors"
    assert cli.main(["convert", str(tmp_path / "own.npz"), str(weights)]) == 0
    done = in_node(weights, pictures.test_images, tmp_path)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    with no_grad():
        images = data.normalise(pictures.test_images, pictures.mean, pictures.std)
        expected = model(images).data
    assert np.std(expected) > 0.3
    assert np.abs(np.array(found["logits"]) - expected).max() < 1e-5
    print(f"{found['ms']:.0f} ms a picture")


@node
def test_other_weights_are_refused(tmp_path, rng):
    options = options_of("mixer_pico", gelu="erf")
    model = create_model("mixer_pico", **options, rng=rng)
    record = {"model": "mixer_pico", "layout": "tinymixer", "model_options": options}
    save_state(model, tmp_path / "own.safetensors", record=record)
    done = in_node(tmp_path / "own.safetensors", np.zeros((1, 32, 32, 3), np.uint8), tmp_path)
    assert "expected a Mixer for square colour images, with GELU in its tanh form" in done.stderr


@node
def test_another_file_is_called_that(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"GIF89a, for instance")
    done = in_node(tmp_path / "other.safetensors", np.zeros((1, 32, 32, 3), np.uint8), tmp_path)
    assert "it is not a .safetensors file" in done.stderr
