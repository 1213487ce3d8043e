"""Which weights read the images, and which map hidden activations to hidden activations.

Muon treats the latter differently, and whitening changes the former.
"""

from collections.abc import Iterator

from tinymixer.nn.mixture import MixtureOfExperts
from tinymixer.nn.module import Module, Parameter


def hidden_matrices(model: Module) -> dict[str, Parameter]:
    """The matrices between hidden activations, by name, in order of definition.

    They are all Parameters of two axes but these: what reads the images (the model's first
    embedding, with all its scales), what writes the logits (`model.head`), and the gates of a
    mixture of experts, whose outputs choose and are not activations.
    """
    embedding = embedding_of(model)
    head = getattr(model, "head", Module())
    gates = [vars(x).get("gate") for x in _modules(model) if isinstance(x, MixtureOfExperts)]
    outside = {*embedding.parameters(), *head.parameters(), *gates}
    return {
        name: x for name, x in model.named_parameters() if x.data.ndim == 2 and x not in outside
    }


def embedding_of(model: Module) -> Module:
    """What reads the images: the model's first embedding; an empty Module if it has none."""
    return next((x for x in _modules(model) if x.embeds), Module())


def _modules(module: Module) -> Iterator[Module]:
    """The module and all below it, in order of definition."""
    yield module
    for value in vars(module).values():
        for member in value if isinstance(value, list) else [value]:
            if isinstance(member, Module):
                yield from _modules(member)
