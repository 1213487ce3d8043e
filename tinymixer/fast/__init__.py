"""Floor 5. Faster twins of Functions, one file per kind of device. Importing this registers them.

A twin is a subclass of the Function it stands for, with the same contract and the same mathematics
in an order that suits the machine. `Function.__call__` finds it in a table, so no model knows.
"""

from tinymixer.fast import cpu, gpu
from tinymixer.fast.table import reference_ops, twin_of

__all__ = ["cpu", "gpu", "reference_ops", "twin_of"]
