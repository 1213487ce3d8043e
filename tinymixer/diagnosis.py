"""Floor 4. The diagnosis of a loss that is not finite: where on its tape the trouble starts."""

from tinymixer.backend import Array, array_module
from tinymixer.engine import Tensor, tensors_below
from tinymixer.nn import Module, layer_names, layer_of


def first_non_finite(model: Module, loss: Tensor) -> str | None:
    """The first place with a NaN or Inf on the way to `loss`, whose backward has not run yet.

    The path of a Parameter, if one is not finite: `blocks.3.token_mlp.W1`. Otherwise the first
    layer, in order of computation, whose output is not: `blocks.3.token_mlp`, or, for a Function
    without parameters, `Add after blocks.3.token_mlp`. None if all is finite.
    """
    for path, parameter in model.named_parameters():
        if not _finite(parameter.data):
            return path
    names, last = layer_names(model), ""
    for y in tensors_below(loss):
        layer = layer_of(y.creator, names)
        if not _finite(y.data):
            return layer or f"{type(y.creator).__name__} after {last or 'the images'}"
        last = layer or last
    return None


def _finite(x: Array) -> bool:
    return bool(array_module(x).isfinite(x).all())
