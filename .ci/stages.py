"""Stages under time limits, and a report that has what is done whenever they end."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

GRACE = 10  # seconds that a program has to save what it has, before it is killed
SHOWN = 12  # last lines of a stage that failed

Lines = list[tuple[float, str]]  # what a program prints, and when


class Failed(Exception):
    """Why a stage failed, and what was printed before."""

    def __init__(self, why: str, lines: Lines):
        super().__init__(why)
        self.lines = [line for _, line in lines[-SHOWN:]]


@dataclass
class Stage:
    """`work(stage, end)` does it; what it finds it leaves here, in words and in figures.

    It takes `limit` seconds at most, and earlier stages leave it `least`.
    """

    name: str
    limit: float
    work: Callable[["Stage", float], None]
    least: float = 0
    outcome: str = "not begun, as the time was over"
    words: str = ""
    seconds: float = 0
    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # to be shown below the table

    def do(self, end: float) -> None:
        start = time.monotonic()
        if start >= end:
            return
        try:
            self.work(self, min(end, start + self.limit))
            self.outcome = "done"
        except Failed as error:
            self.outcome, self.lines = f"failed: {error}", self.lines or error.lines
        except Exception as error:  # whatever it is, the stages after this one are still to be done
            self.outcome = f"failed: {error!r}"
        self.seconds = round(time.monotonic() - start, 1)
        print(f"{self.name}: {self.outcome}, {self.seconds:.0f} s. {self.words}", flush=True)


def perform(plan: Sequence[Sequence[Stage]], end: float, report: Callable[[], None]) -> bool:
    """Do group after group, the stages of one side by side. Returns whether all are done."""
    report()
    for i, group in enumerate(plan):
        later = sum(max(stage.least for stage in others) for others in plan[i + 1 :])
        with ThreadPoolExecutor(len(group)) as pool:
            list(pool.map(partial(Stage.do, end=end - later), group))
        report()
    return all(stage.outcome == "done" for group in plan for stage in group)


def write_report(plan: Sequence[Sequence[Stage]], title: str, about: str, folder: Path) -> None:
    """report.md and report.json, of what is known by now."""
    stages = [stage for group in plan for stage in group]
    done = sum(stage.outcome == "done" for stage in stages)
    text = f"# {title}\n\n{about}. {done} of {len(stages)} stages are done.\n\n"
    text += "| stage | outcome | s | found |\n|---|---|---|---|\n"
    for stage in stages:
        cells = stage.name, stage.outcome, f"{stage.seconds:.0f}", stage.words
        text += f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |\n"
    for stage in stages:
        if stage.lines:
            text += "\n".join([f"\n## {stage.name}: {stage.outcome}", "```", *stage.lines, "```\n"])
    rows = [{k: v for k, v in vars(stage).items() if k != "work"} for stage in stages]
    found = json.dumps({"about": about, "stages": rows}, indent=1) + "\n"
    for name, content in (("report.md", text), ("report.json", found)):
        (folder / "new").write_text(content, "utf-8")
        (folder / "new").replace(folder / name)  # whole, or as it was


class Programs:
    """Python programs that run in `folder`; `path` comes first where they look for modules."""

    def __init__(self, folder: Path, path: Sequence[Path], log: Path):
        words = [*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = os.environ | {"PYTHONPATH": os.pathsep.join(words), "PYTHONUNBUFFERED": "1"}
        self.folder, self.log = folder, log
        self.over, self.running = False, set()

    def run(self, end: float, *argv: str) -> Lines:
        """What it prints. Raises Failed unless it ends well before `end`; then it is stopped."""
        limit, lines = end - time.monotonic(), []
        if self.over or limit <= 0:
            raise Failed("the time was over", lines)
        process = subprocess.Popen(
            [sys.executable, *argv],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.running.add(process)
        timer = Timer(limit, stop, [process])
        timer.start()
        with process, self.log.open("a", encoding="utf-8", buffering=1) as log:
            print(f"{process.pid} is {shlex.join(argv)}", file=log)
            for line in process.stdout:
                lines.append((time.monotonic(), line.rstrip()))
                print(f"{process.pid}: {line.rstrip()}", file=log)
        timer.cancel()
        send(process, signal.SIGKILL)  # to what it has left behind
        self.running.discard(process)
        if self.over or time.monotonic() >= end:
            raise Failed("stopped" if self.over else f"stopped after {limit:.0f} s", lines)
        if process.returncode:
            raise Failed(f"exit code {process.returncode}", lines)
        return lines

    def stop_all(self, *_: Any) -> None:
        """Stop those that run, and begin no others."""
        self.over = True
        for process in list(self.running):
            stop(process)


def stop(process: subprocess.Popen) -> None:
    """Ask it and all that it started to end, as Ctrl-C does, and end them after a while."""
    send(process, signal.SIGINT)
    killing = Timer(GRACE, send, [process, signal.SIGKILL])
    killing.daemon = True
    killing.start()


def send(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
