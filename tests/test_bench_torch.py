"""PyTorch, held beside tinymixer, does the same work: the same numbers come out."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from checks import assert_close

from tinymixer import cli, ops
from tinymixer.models import create_model, options_of
from tinymixer.nn import auxiliary
from tinymixer.train.bench import Bench

# PyTorch's compiler warns of PyTorch's own code, and of how much faster than fp32 a GPU could be.
pytestmark = pytest.mark.filterwarnings("ignore:::torch")

SCRIPT = Path(__file__).with_name("bench_torch.py")
SMALL = {  # no two alike
    "image_size": (8, 12),
    "hidden_dim": 16,
    "num_blocks": 2,
    "tokens_mlp_dim": 5,
    "channels_mlp_dim": 11,
    "num_classes": 7,
}
TINY = [
    *("--model", "mixer_pico", "--batch", "6", "--steps", "20", "--warmup", "2"),
    *(word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")),
]


@pytest.fixture
def bench_torch():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    return import_module("bench_torch")


def ours(infer=False, **options):
    """The losses that `tinymixer bench` tells of."""
    model = create_model("mixer_pico", **SMALL | options)
    with Bench(model, batch=6, micro_batch=4, workers=1, infer=infer) as bench:
        return bench.time(20, 2)["loss"]


def theirs(bench_torch, infer=False, device="cpu", precision="fp32", mode=None, **options):
    sizes = SMALL | options
    return bench_torch.TorchBench(
        create_model("mixer_pico", **sizes),
        options_of("mixer_pico", **sizes),
        batch=6,
        infer=infer,
        device=device,
        precision=precision,
        mode=mode,
    ).time(20, 2)["loss"]


SIBLINGS = [
    ("as_mlp_nano", {}),
    ("hire_mlp_nano", {"image_size": 24}),  # whose grids of 12, 6 and 3 do not fill their regions
    ("vip_nano", {}),
    ("sparse_mlp_nano", {"noisy_gates": False}),
    ("raft_mlp_nano", {}),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gelu", ["tanh", "erf"])
@pytest.mark.parametrize(("name", "changes"), [("mixer_pico", SMALL), *SIBLINGS])
def test_the_network_is_the_same_function(bench_torch, rng, name, changes, gelu, training):
    """Logits in evaluation; in training also the loss and every gradient, all in float64."""
    changes = changes | {"gelu": gelu, "eps": 0.1}
    model = create_model(name, **changes).astype(np.float64)
    for parameter in model.parameters():  # so large that the forms of GELU differ
        parameter.data += 0.5 / parameter.shape[0] ** 0.5 * rng.standard_normal(parameter.shape)
    net = bench_torch.network(model, options_of(name, **changes)).double().train(training)
    net.load_state_dict(bench_torch.state_dict(model))  # again: float32 rounded them
    images = rng.standard_normal((3, *model.image_size, 3))
    labels, torch = rng.integers(0, model.num_classes, 3), bench_torch.torch
    with auxiliary() as extra:
        logits = model(images, rng=rng if training else None)
    found = net(torch.from_numpy(images))
    assert_close(found.detach().numpy(), logits.data)
    if not training:
        return
    loss = sum(extra.losses, ops.SoftmaxCrossEntropy()(logits, labels))
    other = torch.nn.functional.cross_entropy(found, torch.from_numpy(labels))
    other = sum(net.auxiliary, other)
    loss.backward()
    other.backward()
    assert_close(other.detach().numpy(), loss.data)
    for parameter in model.parameters():
        parameter.data = parameter.grad
    expected = bench_torch.state_dict(model)
    largest = max(float(expected[path].abs().max()) for path, _ in net.named_parameters())
    for path, parameter in net.named_parameters():
        assert_close(parameter.grad.numpy(), expected[path].numpy(), 1e-10, least=largest)


compiled = pytest.param(False, "default", marks=pytest.mark.slow)


@pytest.mark.parametrize(("infer", "mode"), [(False, None), (True, None), compiled])
def test_losses_are_those_of_tinymixer(bench_torch, infer, mode):
    # Float32 rounds at 6e-8. AdamW divides by the size of a gradient, so that where one is nearly
    # nothing its rounding is a step of the usual length; twenty of them cost 6e-6 here. Without
    # weight decay it were 7e-5.
    found = theirs(bench_torch, infer, mode=mode, dropout=0.5)
    assert found == pytest.approx(ours(infer), rel=2e-5)


def test_fewer_bits_are_used_and_change_little(bench_torch):
    exact, found = ours(), theirs(bench_torch, precision="bf16")
    assert found != pytest.approx(exact, rel=1e-6)
    assert found == pytest.approx(exact, rel=1e-2)  # bfloat16 rounds at 4e-3


@pytest.mark.parametrize(("precision", "setting"), [("fp32", "highest"), ("tf32", "high")])
def test_float32_is_float32_unless_asked_otherwise(bench_torch, precision, setting, monkeypatch):
    asked = []
    monkeypatch.setattr(bench_torch.torch, "set_float32_matmul_precision", asked.append)
    theirs(bench_torch, infer=True, precision=precision)
    assert asked == [setting]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead"])
@pytest.mark.parametrize(("precision", "rel"), [("fp32", 1e-4), ("tf32", 2e-3), ("bf16", 1e-2)])
def test_a_gpu_computes_the_same(bench_torch, precision, rel, mode):
    if not bench_torch.torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    if mode and not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "cc", "clang")))):
        pytest.skip("there is no C compiler, which torch.compile asks for")
    found = theirs(bench_torch, device="gpu", precision=precision, mode=mode)
    assert found == pytest.approx(ours(), rel=rel)


def test_both_are_held_beside_each_other(bench_torch, capsys):
    other = shlex.join([sys.executable, str(SCRIPT), *TINY, "--threads", "1"])
    argv = ["bench", *TINY, "--workers", "1", "--against", other, "--rounds", "1", "--json"]
    assert cli.main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differing"] == {}
    assert found["ratio"] > 0
    (mine,), (line,) = found["this"], found["that"]
    assert line["loss"] == pytest.approx(mine["loss"], rel=1e-4)
    assert (line["timed_steps"], line["threads"], line["compile"]) == (18, 1, None)
    assert line["torch"] == bench_torch.torch.__version__


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--model", "vip_pico"], "invalid choice: 'vip_pico' (choose from"),
        (["--set", "gelu=relu"], "model mixer_nano"),
        (["--threads", "0"], "--threads 0: expected 1 or more"),
        (["--steps", "3", "--warmup", "3"], "--warmup 3: expected 0 to 2"),
        (["--precision", "bf16"], "a CPU computes in fp32 only"),
        (["--device", "gpu"], "PyTorch finds no GPU here"),
    ],
)
def test_mistakes_cost_one_line(bench_torch, argv, says, capfd, monkeypatch):
    monkeypatch.setattr(bench_torch.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        bench_torch.main(argv)
    said = stop.value.code if isinstance(stop.value.code, str) else capfd.readouterr().err.strip()
    assert said
    assert says in said
    assert "\n" not in said


def test_without_pytorch_one_line_says_so():
    absent = "import sys, runpy; sys.modules['torch'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", absent, str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "pip install torch" in done.stderr
    assert done.stderr.count("\n") == 1
