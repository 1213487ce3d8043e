"""tinymixer bench --against: this benchmark and another program in turn, and their ratio."""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from typing import Any

from tinymixer.errors import TinymixerError, counted

SAME_WORK = ("what", "batch", "threads", "gelu", "precision", "params")
SAME_LOSS = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 1e-2}  # relative, before and after an update


def compare(args: argparse.Namespace) -> int:
    """Run both programs in turn, each in its own process, and print the ratio of their medians."""
    words = {"this": _own_command(args), "that": _words(args.against)}
    runs: dict[str, list[dict[str, Any]]] = {"this": [], "that": []}
    for _ in range(args.rounds):
        for side in runs:
            runs[side].append(_result(words[side]))
    last = {side: lines[-1] for side, lines in runs.items()}
    differing = _differing(last["this"], last["that"])
    speeds = {side: [line["images_s"] for line in lines] for side, lines in runs.items()}
    medians = {side: statistics.median(speed) for side, speed in speeds.items()}
    ratio = medians["this"] / medians["that"]
    if args.json:
        print(json.dumps({"ratio": round(ratio, 4), "differing": differing, **runs}))
        return 0
    for side, speed in speeds.items():
        command = args.against if side == "that" else "tinymixer bench"
        print(
            f"{medians[side]:10,.1f} images/s ({min(speed):,.1f} to {max(speed):,.1f}), "
            f"{_median(runs[side], 'cpu_s_per_step')} s of processor time a step, "
            f"{_median(runs[side], 'peak_rss_mib')} MiB: {command}"
        )
    for name, (mine, other) in differing.items():
        print(f"      note: not the same work: {name} is {mine} here and {other} there")
    rounds = (
        f"median of {counted(args.rounds, 'round')} of "
        f"{counted(last['this']['timed_steps'], 'step')}"
    )
    print(f"{ratio:10.3f} times as many images/s, {rounds}, in turn")
    return 0


def _differing(this: dict[str, Any], that: dict[str, Any]) -> dict[str, list[Any]]:
    """Signs that the two did not do the same work, as far as that program reports it."""
    found = {
        name: [this[name], that[name]]
        for name in SAME_WORK
        if name in that and this[name] != that[name]
    }
    losses = that.get("loss")
    for step, loss in list(this["loss"].items())[:2]:
        other = losses.get(step) if isinstance(losses, dict) else None
        if isinstance(other, float) and abs(other - loss) > SAME_LOSS[this["precision"]] * loss:
            found[f"loss in step {int(step) + 1}"] = [round(loss, 6), round(other, 6)]
    return found


def _own_command(args: argparse.Namespace) -> list[str]:
    """The command line of one run of this benchmark with `args`, which prints JSON."""
    words = [sys.executable, "-m", "tinymixer", "bench", "--json", "--no-products"]
    for name in (
        "model",
        "device",
        "precision",
        "batch",
        "micro_batch",
        "workers",
        "steps",
        "warmup",
    ):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    words += [f"--{flag}" for flag in ("infer", "reference", "graph") if getattr(args, flag)]
    for name, value in args.set:
        words += ["--set", f"{name}={value}"]
    return words


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise TinymixerError(f"--against {command!r}: {error}; quote it as in a shell") from error
    if not words:
        raise TinymixerError(f"--against {command!r}: expected a program and its arguments")
    return words


def _result(command: list[str]) -> dict[str, Any]:
    """The JSON that `command` prints in its last line. Raises TinymixerError if it does not."""
    shown = shlex.join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TinymixerError(f"cannot run {shown}: {error.strerror}") from error
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [""]
    if done.returncode:
        raise TinymixerError(f"{shown} ended with exit code {done.returncode}: {said[-1]}")
    try:
        result = json.loads(said[-1])
        if not result["images_s"] > 0:
            raise ValueError("images_s is not above 0")
    except (ValueError, TypeError, KeyError) as error:
        raise TinymixerError(
            f"{shown}: expected a last line of JSON with images_s above 0, got {said[-1][:80]!r}"
        ) from error
    return result


def _median(lines: list[dict[str, Any]], name: str) -> str:
    values = [line[name] for line in lines if isinstance(line.get(name), int | float)]
    return f"{statistics.median(values):,.4g}" if values else "?"
