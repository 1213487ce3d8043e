"""Vision MLPs from scratch, on NumPy and CuPy: clear, proven, fast."""

__version__ = "0.1.0"
