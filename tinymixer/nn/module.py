"""Parameter, Buffer and Module: what a model is made of, and the names of its parts."""

from collections.abc import Iterator, Mapping
from typing import Any

from tinymixer.backend import Array, array_module, to_device
from tinymixer.engine import Function, Tensor
from tinymixer.options import Whole, require

# In place of a generator: every weight is zero, and takes up no memory until it is written.
BLANK: Any = object()


class Parameter(Tensor):
    """A learnable Tensor of a Module. Raises ValueError for an empty one."""

    __slots__ = ()

    def __init__(self, data: Array):
        super().__init__(data)
        if not self.size:
            raise ValueError(
                f"Parameter: {self.shape} holds no numbers; make the sizes and ratios of the model "
                "large enough for every width to be 1 or more"
            )


class Buffer:
    """An array that a Module keeps but does not learn, such as a running mean."""

    def __init__(self, data: Array):
        self.data = data


def require_sizes(layer: "Module", rng: Any = BLANK, **sizes: Any) -> None:
    """Raise ValueError unless the sizes are whole numbers and rng is a generator, or BLANK.

    0 is left to Parameter to refuse.
    """
    for name, size in sizes.items():
        require(f"{type(layer).__name__}: {name}", size, Whole(0, 2**31 - 1))
    if rng is not BLANK and not (hasattr(rng, "standard_normal") or hasattr(rng, "weights")):
        raise ValueError(
            f"{type(layer).__name__}: expected rng as a generator of random numbers, got {rng!r}. "
            "Make one: np.random.default_rng(0)"
        )


class Module:
    """Parameters, Buffers and Modules, as plain attributes and in lists, in order of definition.

    A subclass defines `forward`; `layer(x)` is `layer.forward(x)`. `embeds` says that a module
    turns patches or windows of a grid into tokens: the first that does reads the images.
    """

    embeds = False

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    __call__ = forward

    def __init_subclass__(cls) -> None:
        if "forward" in vars(cls):
            cls.__call__ = cls.forward  # type: ignore[method-assign]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter below, with its path: `blocks.0.token_mlp.W1`."""
        yield from ((path, x) for path, x in self._walk() if isinstance(x, Parameter))

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """This Module, whose path is "", and every one below: `blocks.0.token_mlp`."""
        yield "", self
        yield from ((path, x) for path, x in self._walk() if isinstance(x, Module))

    def _arrays(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        yield from ((path, x) for path, x in self._walk() if isinstance(x, Parameter | Buffer))

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """All that is below, in order of definition."""
        for name, value in vars(self).items():
            members = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, member in members:
                path = f"{prefix}{name}" if i is None else f"{prefix}{name}.{i}"
                yield path, member
                if isinstance(member, Module):
                    yield from member._walk(path + ".")

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def learned_parameters(self) -> dict[str, Parameter]:
        """The Parameters that training changes, by path: all of them, unless a part is frozen."""
        return dict(self.named_parameters())

    def num_parameters(self) -> int:
        return sum(parameter.size for parameter in self.parameters())

    def state(self) -> dict[str, Array]:
        """The arrays of parameters and buffers by name: the arrays themselves, not copies."""
        return {path: x.data for path, x in self._arrays()}

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Copy `arrays` into the parameters and buffers of the same names, in their precision.

        Raises ValueError, and changes nothing, unless names and shapes are exactly the model's.
        """
        own = self.state()
        wrong = [f"missing {name}" for name in own if name not in arrays]
        wrong += [f"left over {name}" for name in arrays if name not in own]
        wrong += [
            f"{name} is {arrays[name].shape}, expected {own[name].shape}"
            for name in own
            if name in arrays and arrays[name].shape != own[name].shape
        ]
        if wrong:
            more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise ValueError(
                f"these weights do not fit {type(self).__name__}: {'; '.join(wrong[:4])}{more}. "
                "Build the model with the options that the weights were trained with"
            )
        for name, array in own.items():
            array[...] = array_module(array).asarray(arrays[name])

    def astype(self, dtype: Any) -> "Module":
        """This model with its parameters and buffers in another precision, in place."""
        for _, x in self._arrays():
            x.data = x.data.astype(dtype)
        return self

    def to(self, device: str) -> "Module":
        """This model with its parameters and buffers on `device`, "cpu" or "gpu", in place."""
        for _, x in self._arrays():
            x.data = to_device(x.data, device)
        return self


def layer_names(model: Module) -> dict[Tensor, str]:
    """For each Parameter the path of the layer that holds it: `blocks.0.token_mlp`."""
    return {x: path.rpartition(".")[0] for path, x in model.named_parameters()}


def layer_of(node: Function, names: dict[Tensor, str]) -> str:
    """The layer whose Parameters `node` uses, by `layer_names`; empty if it uses none."""
    return next((names[x] for x in node.inputs if x in names), "")
