"""A stand-in for CuPy, for machines without a GPU: NumPy behind a wall.

Renaming NumPy to CuPy would hide the commonest mistake in code for both: an operand that lives on
the other side. Here an array of the "device" wraps a NumPy array and refuses to meet one. Data
cross only through the two doors that CuPy has, `asarray(numpy_array)` and `array.get()`.

The names below are all that the tape, the operations, the models, the data and the training use of
CuPy, arrays' methods included; any other is an AttributeError. To use one more is a decision: check
that CuPy has it, then add it here.

Stricter than CuPy where CuPy copies without saying so (a NumPy index), and what `empty` makes is
NaN. What CuPy uploads unasked, a list of indices or a table of arrays to join, comes by `asarray`.
CUDA kernels run as `cuda_on_cpu` runs them; memory, streams and graphs are `cupy_memory`'s. It does
not imitate random numbers or rounding, except that of a product's operands to TF32 and of the
tiniest float32 to 0; those take a GPU: `pytest -m gpu`.
"""

from types import SimpleNamespace as _SimpleNamespace

import cuda_on_cpu as _cuda
import cupy_memory as _memory
import numpy as _np
from numpy.lib.mixins import NDArrayOperatorsMixin as _Operators


class ndarray(_Operators):
    """An array on the other side of the wall."""

    def __init__(self, host):
        self._host = _memory.placed(_np.asarray(host))

    def get(self):
        """The door out: a NumPy copy."""
        _memory.wait()
        return self._host.copy()

    def __array__(self, *_args, **_kwargs):
        raise TypeError("no implicit conversion to a NumPy array; use .get()")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            raise TypeError(f"no {ufunc.__name__}.{method} on device arrays")
        tf32 = ufunc is _np.matmul and _compute_types["float32"] == _TF32
        function = _flushing(_matmul_in_tf32 if tf32 else ufunc)
        return _wrap(_memory.compute(function, _unwrap(inputs), _unwrap(kwargs)))

    def __array_function__(self, function, _types, args, kwargs):
        if function.__name__ not in globals():
            raise TypeError(f"np.{function.__name__} knows no device arrays")
        return globals()[function.__name__](*args, **kwargs)

    def __getitem__(self, key):
        _wait_for_masks(key)
        _upload_lists(key)
        return _wrap(_memory.compute(_np.ndarray.__getitem__, (self._host, _unwrap(key)), {}))

    def __setitem__(self, key, value):
        _wait_for_masks(key)
        _upload_lists(key)
        _memory.compute(_np.ndarray.__setitem__, (self._host, _unwrap(key), _unwrap(value)), {})

    def __len__(self):
        return len(self._host)

    @property
    def data(self):
        """Where it begins."""
        return _SimpleNamespace(ptr=self._host.ctypes.data)

    def __repr__(self):
        return f"on the device: {self._host!r}"

    def _number(self):
        _memory.wait()
        return self._host

    # A single element may become a Python number: on a GPU, that waits for it.
    def __bool__(self):
        return bool(self._number())

    def __int__(self):
        return int(self._number())

    def __float__(self):
        return float(self._number())


def _flushing(ufunc):
    def compute(*args, **kwargs):
        y = ufunc(*map(_flushed, args), **kwargs)
        if "out" not in kwargs:
            return _flushed(y)
        y[...] = _flushed(y)
        return y

    compute.__name__ = ufunc.__name__
    return compute


def _flushed(x):
    """CuPy compiles its kernels for speed: there a float32 below all normal ones counts as 0."""
    if not isinstance(x, _np.ndarray | _np.generic) or x.dtype != _np.float32:
        return x
    tiny = (x != 0) & (abs(x) < _np.finfo(_np.float32).tiny)
    return _np.where(tiny, 0 * x, x) if tiny.any() else x


def _wait_for_masks(key):
    """CuPy has to know how many elements a mask takes: it waits for that number, as `int` does."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, ndarray) and part.dtype == bool:
            int(part.sum())


def _upload_lists(key):
    """A list that tells which elements to take is no array yet: it comes in by the door."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, list):
            asarray(part)


def _unwrap(x):
    """What NumPy may see of an argument; a NumPy array among them is refused."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, _np.ndarray):  # CuPy takes NumPy's scalars, but not even its 0-d arrays
        raise TypeError(f"a NumPy array of shape {x.shape} meets device arrays; use asarray")
    if isinstance(x, int) and type(x) not in (int, bool):
        raise TypeError(f"CuPy takes no {type(x).__name__} for a number; use int({x!r})")
    if isinstance(x, tuple | list):
        return type(x)(_unwrap(item) for item in x)
    if isinstance(x, dict):
        return {key: _unwrap(value) for key, value in x.items()}
    return x


def _wrap(y):
    """NumPy's answer, back behind the wall; reductions stay there too, as 0-d arrays."""
    if isinstance(y, tuple):  # nonzero
        return tuple(map(_wrap, y))
    return ndarray(y) if isinstance(y, _np.ndarray | _np.generic) else y


def _walled(function):
    def on_device(*args, **kwargs):
        return _wrap(_memory.compute(function, _unwrap(args), _unwrap(kwargs)))

    return on_device


def asarray(x, dtype=None):
    """The door in: a copy of a NumPy array; a device array as it is."""
    if isinstance(x, ndarray):
        return x if dtype is None else x.astype(dtype)
    _memory.wait()
    return ndarray(_np.array(x, dtype))


for _name in ("shape", "ndim", "size", "nbytes", "dtype", "flags", "real", "T"):
    setattr(ndarray, _name, property(lambda self, name=_name: _wrap(getattr(self._host, name))))

_METHODS = """
    all any argmax argsort astype copy cumsum max mean min ravel repeat reshape sum swapaxes
    transpose view
"""
for _name in _METHODS.split():
    setattr(ndarray, _name, _walled(getattr(_np.ndarray, _name)))

ndarray.item = lambda self: self._number().item()


def shape(x):
    return x.shape


def ndim(x):
    return x.ndim


# Of what CuPy offers under NumPy's names and with NumPy's meaning, what the systems ask for.
_FUNCTIONS = """
    arange argsort ascontiguousarray bincount broadcast_arrays broadcast_to concatenate cos
    cumsum exp expand_dims eye flip fmax full isfinite log matmul maximum minimum moveaxis
    nonzero ones ones_like pad roll searchsorted sqrt stack take take_along_axis tanh tensordot
    where zeros zeros_like
"""
for _name in _FUNCTIONS.split():
    globals()[_name] = _walled(getattr(_np, _name))

_nonzero, _concatenate, _stack = nonzero, concatenate, stack  # noqa: F821, some of the above


def nonzero(x):
    """How many there are decides the shape of the answer, so CuPy waits for it."""
    _wait_for_masks(x != 0)
    return _nonzero(x)


def concatenate(arrays, axis=0):
    _upload_a_table_of(arrays)
    return _concatenate(arrays, axis)


def stack(arrays, axis=0):
    _upload_a_table_of(arrays)
    return _stack(arrays, axis)


def _upload_a_table_of(arrays):
    """CuPy joins more than eight arrays in one launch, which looks up where they lie."""
    if len(arrays) > 8:
        asarray([array.data.ptr for array in arrays])


add = _SimpleNamespace(at=_walled(_np.add.at))
float32 = _np.float32
cuda = _memory.cuda
get_default_memory_pool = _memory.get_default_memory_pool


def empty(shape, dtype=float):
    """Memory as it comes: here NaN, so that what is never written is seen."""
    return ndarray(_np.full(shape, _np.nan if _np.dtype(dtype).kind in "fc" else 77, dtype))


def empty_like(x):
    return empty(x.shape, x.dtype)


class RawModule:
    """CUDA C++ source; as in CuPy, compiled when a kernel is first asked for."""

    def __init__(self, *, code, options=()):
        self._code, self._options = code, options

    def get_function(self, name):
        kernel = _cuda.kernel(self._code, name, self._options)
        return lambda grid, block, args: _memory.compute(kernel, (grid, block, _unwrap(args)), {})


_TF32 = 7  # COMPUTE_TYPE_TF32 of CuPy; 1 is its default
_compute_types = {"float32": 1}


def _set_compute_type(dtype, compute_type):
    _compute_types[_np.dtype(dtype).name] = compute_type


_core = _SimpleNamespace(
    get_compute_type=lambda dtype: _compute_types[_np.dtype(dtype).name],
    set_compute_type=_set_compute_type,
)


def _matmul_in_tf32(x, y, **kwargs):
    return _np.matmul(_rounded_to_tf32(x), _rounded_to_tf32(y), **kwargs)


_matmul_in_tf32.__name__ = "matmul"


def _rounded_to_tf32(x):
    """float32 with 10 of its 23 bits of mantissa left, rounded to nearest."""
    if x.dtype != _np.float32 or x.ndim != 2:
        return x
    bits = _np.ascontiguousarray(x).view(_np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).view(_np.float32)
