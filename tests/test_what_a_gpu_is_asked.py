"""`.ci/gpu` is run when a GPU is at hand, once: here on the stand-in, and against the clock."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from threading import Timer

import pytest

from tinymixer import cli
from tinymixer.fast.gpu.products import PRECISIONS
from tinymixer.models import create_model
from tinymixer.train import checkpoint

CI = Path(__file__).parents[1] / ".ci"


def loaded(name):
    loader = SourceFileLoader(name, str(CI / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module  # as its dataclasses ask for it
    loader.exec_module(module)
    return module


@pytest.fixture
def gpu(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(str(CI))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return loaded("gpu")


def test_every_stage_is_done_on_the_stand_in(tmp_path):
    command = [sys.executable, CI / "gpu", "--stand-in", "--minutes", "60", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()
    found = json.loads((tmp_path / "report.json").read_text())
    assert {stage["outcome"] for stage in found["stages"]} == {"done"}
    assert "the built-in shapes" in found["about"]
    text = (tmp_path / "report.md").read_text()
    assert all(f"| {stage['name']} | done | " in text for stage in found["stages"])
    runs = {stage["name"]: stage for stage in found["stages"] if "epochs" in stage["figures"]}
    epochs = {name: len(run["figures"]["epochs"]) for name, run in runs.items()}
    assert epochs == {"fast": 2, "nano": 2, "raft": 3}
    assert "85% of the validation images" in runs["fast"]["words"]
    for name, run in runs.items():
        kept = checkpoint.load(tmp_path / f"{name}.npz")
        assert kept.header.config.optimizer == "muon"
        assert kept.header.config.model == run["figures"]["config"]["model"]
        assert kept.ema


# --- what is asked of a real GPU, as far as that can be told without one ---


class Asked:
    """In place of the programs: notes down the calls, and prints what a program might."""

    def __init__(self, prints):
        self.prints, self.calls = prints, []

    def run(self, end, *argv):
        self.calls.append(list(argv))
        return [(float(i), line) for i, line in enumerate(self.prints(argv))]


PRINTED = {
    "doctor": ["GPU ready: use it", "cifar10 a folder"],
    "pytest": ["12 passed in 3 s"],
    "bench": [json.dumps({"this": [{"images_s": 3}], "that": [{"images_s": 2}], "ratio": 1.5})],
    "train": ["epoch 1", "epoch 2", "epoch 3"],
}


def all_asked(gpu, tmp_path, seconds=1000):
    asked = gpu.Asked(tmp_path, "a folder", tiny=False, runs=tmp_path)
    asked.programs = Asked(lambda argv: PRINTED[argv[1 if argv[1] == "pytest" else 2]])
    stages = [stage for group in asked.plan() for stage in group]
    for stage in stages:
        stage.do(time.monotonic() + seconds)
    assert {stage.outcome for stage in stages} == {"done"}
    return [argv[2:] for argv in asked.programs.calls if argv[1] == "tinymixer"]


def rivals(gpu, tmp_path, monkeypatch):
    """The words of PyTorch's side, after the name of Python."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    found = []
    for words in all_asked(gpu, tmp_path):
        args = cli.build_parser().parse_args(words)
        found += [shlex.split(args.against)[1:]] if getattr(args, "against", None) else []
    return found


def test_the_commands_know_all_options_that_they_are_given(gpu, tmp_path, monkeypatch):
    found = rivals(gpu, tmp_path, monkeypatch)
    assert {words[0] for words in found} == {"tests/bench_torch.py"}
    asked = {(words[words.index("--precision") + 1], "--compile" in words) for words in found}
    assert asked == {(p, compiled) for p in PRECISIONS for compiled in (False, True)}


def test_pytorch_knows_those_that_it_is_given(gpu, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    bench_torch = importlib.import_module("bench_torch")
    for _, *words in rivals(gpu, tmp_path, monkeypatch):
        assert bench_torch.parse(words).device == "gpu"


def test_without_pytorch_the_speeds_are_told_alone(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    benches = [words for words in all_asked(gpu, tmp_path) if words[0] == "bench"]
    assert len(benches) == 13
    assert not any("--against" in words for words in benches)


def test_a_run_gets_the_epochs_that_fit(gpu, tmp_path):
    """Of one second each, as printed: 85 % of what is left after ten seconds more."""
    runs = [words for words in all_asked(gpu, tmp_path, 60) if words[0] == "train"]
    begun, resumed = runs[::2], runs[1::2]
    assert [words[words.index("--epochs") + 1] for words in begun] == ["3", "2", "2", "2"]
    assert [words[words.index("--warmup-epochs") + 1] for words in begun] == ["3", "2", "2", "2"]
    epochs = [int(words[words.index("--epochs") + 1]) for words in resumed]
    assert all(40 <= n <= 45 for n in epochs)


def test_the_raft_has_the_parameters_that_it_is_to_have(gpu, tmp_path):
    """Channels of 12 2x2 and 48 4x4 patches to 96, eight blocks, a norm and a head of ten."""
    model, sizes = gpu.RUNS["raft"]
    words = [f"--set={word}" for word in sizes.split()]
    args = cli.build_parser().parse_args(["train", *words])
    assert create_model(model, 10, **dict(args.set)).num_parameters() == 672362


def test_without_cifar_10_or_a_gpu_it_says_so(gpu, tmp_path):
    asked = gpu.Asked(tmp_path, "a folder", tiny=False, runs=tmp_path)
    doctor, outcomes = gpu.Stage("doctor", 30, asked.doctor), []
    for ready in ("ready", "CuPy is not installed"):
        asked.programs = Asked(lambda argv, x=ready: [f"GPU {x}", "cifar10 not found", "warn("])
        doctor.do(time.monotonic() + 30)
        outcomes.append(doctor.outcome)
    assert outcomes == ["failed: no CIFAR-10 in a folder", "failed: no GPU"]
    assert asked.dataset == ["--dataset", "shapes"]
    assert asked.about == "Data: the built-in shapes, as there is no CIFAR-10 in a folder"


def test_a_run_that_is_stopped_leaves_its_weights(gpu, tmp_path):
    def stopped(argv):
        run = Path(argv[argv.index("--out") + 1])
        run.mkdir()
        (run / "last.npz").write_bytes(b"weights")
        (run / "config.json").write_text('{"epochs": 3, "val_size": 9}')
        (run / "metrics.jsonl").write_text('{"seconds": 7.2, "val_accuracy": 0.9}\n')
        raise gpu.Failed("stopped after 9 s", [(0.0, "a line")])

    asked = gpu.Asked(tmp_path, None, tiny=False, runs=tmp_path / "runs")
    asked.programs, asked.runs = Asked(stopped), tmp_path
    (stage,) = next(group for group in asked.plan() if group[0].name == "fast")
    stage.do(time.monotonic() + 30)
    assert (tmp_path / "fast.npz").read_bytes() == b"weights"
    assert (stage.outcome, stage.lines) == ("failed: stopped after 9 s", ["a line"])
    assert stage.words == ("1 of 3 epochs, 7 s of training, 85% of the validation images after 7 s")


# --- stages ---


@pytest.fixture
def stages(gpu, monkeypatch):
    """The module of stages, that wait for nothing for long."""
    module = sys.modules["stages"]
    monkeypatch.setattr(module, "GRACE", 1)
    return module


@pytest.fixture
def programs(stages, tmp_path):
    return stages.Programs(tmp_path, [], tmp_path / "log.txt")


def python(stages, programs, name, code, limit=60.0, **settings):
    return stages.Stage(name, limit, lambda _, end: programs.run(end, "-c", code), **settings)


def test_one_that_fails_is_told_and_the_others_are_done(stages, programs, tmp_path):
    printing = "import sys; print(*range(99), sep='\\n'); sys.exit(3)"
    plan = [
        [python(stages, programs, "wrong", printing)],
        [stages.Stage("no JSON", 60, lambda stage, end: json.loads("no"))],
        [python(stages, programs, "right", "print(1)")],
    ]
    seen = []

    def report():
        stages.write_report(plan, "A report", "Data: none", tmp_path)
        seen.append((tmp_path / "report.md").read_text().count("not begun"))

    assert not stages.perform(plan, time.monotonic() + 60, report)
    assert seen == [3, 2, 1, 0]  # what is done is told before the next begins
    text = (tmp_path / "report.md").read_text()
    assert "| wrong | failed: exit code 3 |" in text
    assert re.search(r"## wrong: failed.*\n```\n87\n(.*\n){10}98\n```", text)
    assert "| no JSON | failed: JSONDecodeError" in text
    assert "| right | done |" in text
    rows = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert [row["outcome"] == "done" for row in rows] == [False, False, True]


LASTING = """
import signal, subprocess, sys, time
print("begun", flush=True)
{}
time.sleep(60)
"""
DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
PARENT = f"{DEAF}\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
SAVING = "try: time.sleep(60)\nexcept KeyboardInterrupt: print('saved'); sys.exit()"


@pytest.mark.parametrize("kind", [DEAF, PARENT, SAVING], ids=["deaf", "a parent", "saving"])
def test_one_that_lasts_is_stopped_with_all_that_it_started(stages, programs, kind):
    stage = python(stages, programs, "long", LASTING.format(kind), 3)
    start = time.monotonic()
    assert not stages.perform([[stage]], start + 60, lambda: None)
    assert time.monotonic() - start < 30
    assert stage.outcome == "failed: stopped after 3 s"
    assert stage.lines == ["begun", *["saved"] * (kind is SAVING)]


def test_earlier_ones_leave_the_last_its_time(stages, programs):
    ends = []
    noting = [stages.Stage("a", 60, lambda _, end: ends.append(end)) for _ in range(2)]
    last = stages.Stage("b", 60, lambda _, end: ends.append(end), least=7)
    end = time.monotonic() + 10
    assert stages.perform([[noting[0]], [noting[1], last]], end, lambda: None)
    assert sorted(end - found for found in ends) == pytest.approx([0, 0, 7])
    late = stages.Stage("c", 60, lambda _, end: ends.append(end))
    assert not stages.perform([[late], [last]], end - 10, lambda: None)
    assert late.outcome == "not begun, as the time was over"
    assert len(ends) == 3


def test_asked_to_end_it_stops_what_runs_and_reports(stages, programs):
    plan = [[python(stages, programs, str(i), LASTING.format(""))] for i in range(2)]
    Timer(0.5, programs.stop_all).start()
    assert not stages.perform(plan, time.monotonic() + 60, lambda: None)
    assert [group[0].outcome for group in plan] == ["failed: stopped", "failed: the time was over"]
