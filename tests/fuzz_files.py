"""What comes of hostile files when they are read.

python tests/fuzz_files.py 3000      prints a table by kind of case
"""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hostile_files import CLASSES, OPTIONS, cases

from tinymixer.errors import CheckpointError
from tinymixer.models import create_model
from tinymixer.train import checkpoint
from tinymixer.weights import load_state, read_file


@dataclass(frozen=True)
class Outcome:
    refused: str  # the message; empty if the file was read, and what was read was right
    seconds: float
    megabytes: float  # by which memory grew, at its highest


def judge(case, folder):
    """What came of reading a case. AssertionError for a wrong answer, or a wrong kind of error."""
    path = folder / f"x{'.safetensors' if case.form == 'safetensors' else '.npz'}"
    path.write_bytes(case.content) if isinstance(case.content, bytes) else case.content(path)
    before, start = _memory(reset=True), time.perf_counter()
    try:
        refused = ""
        answer = _answer(case, path)
    except CheckpointError as error:
        refused = str(error)
    seconds, megabytes = time.perf_counter() - start, _memory() - before
    if refused:
        assert len(refused.splitlines()) == 1, refused
        assert len(refused) < 3000, refused
        assert str(path) in refused, refused
    else:
        assert case.holds is not None, f"{case.kind}: accepted"
        if case.holds is not ...:
            assert answer.keys() == case.holds.keys()
            for name, x in answer.items():
                assert x.tobytes() == case.holds[name].tobytes(), name
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    return Outcome(refused, seconds, megabytes)


def _answer(case, path):
    if case.form == "checkpoint":
        model, saved = checkpoint.load_model(path)
        assert saved.header == case.header
        for name, x in model.state().items():
            np.testing.assert_array_equal(x, saved.ema[name])
        groups = {group: getattr(saved, group) for group in checkpoint.GROUPS}
        return {f"{g}/{name}": x for g, arrays in groups.items() for name, x in arrays.items()}
    with suppress(CheckpointError):
        read_file(path)  # which knows no model, and so takes more; nothing else may come of it
    model = create_model("mixer_pico", num_classes=len(CLASSES), **OPTIONS)
    load_state(model, path)
    return model.state()


def _memory(reset=False):
    """The most memory that this process has held, in megabytes; `reset` to what it holds now."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0  # not Linux
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def table(outcomes):
    """By kind: cases, refused, read correctly, the longest time and the most memory."""
    lines = [f"{'kind':28}  cases  refused  right  worst s  worst MB"]
    for kind in sorted(outcomes):
        found = outcomes[kind]
        refused = sum(bool(x.refused) for x in found)
        seconds, megabytes = max(x.seconds for x in found), max(x.megabytes for x in found)
        lines.append(
            f"{kind:28}  {len(found):5}  {refused:7}  {len(found) - refused:5}  {seconds:7.2f}  "
            f"{megabytes:8.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    import tempfile

    by_kind: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as place:
        for i, case in enumerate(cases(int(sys.argv[1]), seed=0)):
            try:
                by_kind.setdefault(case.kind, []).append(judge(case, Path(place)))
            except Exception as error:
                print(
                    f"case {i}, {case.kind} of {case.form}: {type(error).__name__}: {error}"[:500]
                )
                bad = Path(place) / ("x.safetensors" if case.form == "safetensors" else "x.npz")
                bad.rmdir() if bad.is_dir() else bad.unlink(missing_ok=True)
    print(table(by_kind))
