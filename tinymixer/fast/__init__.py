"""Floor 5. Faster implementations, a room for each kind of device; importing registers them.

A twin has the same contract as what it stands for, and the same mathematics in an order that suits
the machine. One table, `engine.twins`, says what runs where: `chosen` reads it, for Functions in
`Function.__call__`, for all else where it is called: `chosen(optim.AdamW, device)(...)`.
"""

from tinymixer.engine import chosen
from tinymixer.fast import cpu, gpu
from tinymixer.fast.table import reference_ops, twin_of

__all__ = ["chosen", "cpu", "gpu", "reference_ops", "twin_of"]
