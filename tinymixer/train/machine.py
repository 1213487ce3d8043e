"""What decides the bits of a result beside the code and its inputs: how this machine computes.

A sum of floats depends on its order, and the order on the width of the vector instructions. So a
matrix product has other last bits with another kernel of the BLAS, and exp or tanh with another of
NumPy. Where two machines have one record here, a run ends in the same bits on both, as far as it
was tried; where they differ, it may not.
"""

import platform
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from tinymixer.errors import printable
from tinymixer.fast.gpu.doctor import gpu_parts

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Machine:
    """The arithmetic of a machine, each part in words; "unknown" where a library does not say."""

    processor: str  # its kind: x86_64
    numpy: str  # its version
    vectors: str  # the instructions that NumPy's loops use here: X86_V2 X86_V3
    blas: str  # library, version, and the processor whose kernels it uses: openblas 0.3.31 Haswell
    gpu: str = ""  # card, CuPy and its CUDA; empty for a run on the processor

    @classmethod
    def here(cls, device: str = "cpu") -> "Machine":
        return _gpu_here() if device == "gpu" else _cpu_here()

    def differences(self, other: "Machine") -> list[str]:
        """Where they differ, in words: "numpy 2.4.6, not 2.3.1"."""
        return [
            f"{field.name} {mine or 'none'}, not {theirs or 'none'}"
            for field in fields(self)
            if (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        ]

    def compared(self, before: "Machine | None") -> str:
        """What a run that was begun on another one (None: not known) has to say, or nothing."""
        if before is None or self == before:
            return ""
        differences = "; ".join(self.differences(before))
        return f"goes on with other arithmetic ({differences}): from here on its bits may differ"

    def __str__(self) -> str:
        on_gpu = f", {self.gpu}" if self.gpu else ""
        return f"{self.processor} ({self.vectors}), numpy {self.numpy}, {self.blas}{on_gpu}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any, what: str = "the machine") -> "Machine":
        """Raises ValueError for anything but the names and lines of text of a Machine."""
        names = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or found.keys() != names:
            raise ValueError(f"{what} is not {', '.join(sorted(names))}")
        for name, text in found.items():
            if not isinstance(text, str) or text != printable(text, 200):
                raise ValueError(f"{what}'s {name} is not a short line of text")
        return cls(**found)


@cache
def _cpu_here() -> Machine:
    return Machine(_line(platform.machine()), np.__version__, _line(_vectors()), _line(_blas()))


@cache
def _gpu_here() -> Machine:
    parts = dict(gpu_parts())
    known = [f"{name} {parts[name]}" for name in ("card", "CuPy", "driver") if name in parts]
    return Machine(**_cpu_here().to_json() | {"gpu": _line(", ".join(known))})


def _line(text: str) -> str:
    return printable(text, 200) or UNKNOWN


def _vectors() -> str:
    """The groups of vector instructions that NumPy was built for and has found here."""
    try:
        found = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[call-overload]
        return " ".join((*found["baseline"], *found["found"]))
    except (KeyError, TypeError):  # another NumPy may word it otherwise
        return UNKNOWN


def _blas() -> str:
    """NumPy's BLAS: other libraries may have brought one of their own into this process."""
    libraries = [x for x in threadpool_info() if x["user_api"] == "blas"]
    own = [x for x in libraries if "numpy" in x["filepath"]] or libraries
    for x in own[:1]:
        return f"{x['internal_api']} {x['version']} {x.get('architecture') or ''}".strip()
    try:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[call-overload]
        return f"{built['name']} {built['version']}"
    except (KeyError, TypeError):
        return UNKNOWN
