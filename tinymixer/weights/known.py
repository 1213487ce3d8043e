"""The form of GELU, and the mean and std, that released weights of each layout were trained with.

A file of weights does not contain these, and without them its predictions are wrong by a little
(GELU) or by much (mean and std). Sources, read in the released code:

* official Mixer: google-research/vision_transformer, models_mixer.py (Flax's nn.gelu is the tanh
  form) and input_pipeline.py (pixels to -1..1).
* timm's Mixer: pytorch-image-models, mlp_mixer.py (nn.GELU is the erf form; mean and std 0.5 for
  Google's weights, 0 and 1 for MIIL's. Those of MIIL are known by their 11,221 classes; fine-tuned
  to the 1,000 of ImageNet, they cannot be told from Google's.)
* AS-MLP, Hire-MLP, ViP: nn.GELU; the mean and std of timm's IMAGENET_DEFAULT_MEAN and _STD.
* RaftMLP: nn.GELU; the same mean and std, in libs/datasets.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """The form of GELU, and the mean and std of each colour, in pixel units, 0..255."""

    gelu: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


HALF = (127.5, 127.5, 127.5)
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # 255 * (0.485, 0.456, 0.406)
IMAGENET_STD = (58.395, 57.12, 57.375)  # 255 * (0.229, 0.224, 0.225)
KNOWN = {  # by system and layout
    ("MLPMixer", "official"): Known("tanh", HALF, HALF),
    ("MLPMixer", "timm"): Known("erf", HALF, HALF),
    **{
        (system, "official"): Known("erf", IMAGENET_MEAN, IMAGENET_STD)
        for system in ("ASMLP", "HireMLP", "VisionPermutator", "RaftMLP")
    },
}


MIIL, MIIL_CLASSES = Known("erf", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)), 11_221


def known(system: str, layout: str, num_classes: int | None = None) -> Known | None:
    """What is known of weights of a system ("MLPMixer") in `layout`; None of those of our own."""
    if (system, layout, num_classes) == ("MLPMixer", "timm", MIIL_CLASSES):
        return MIIL
    return KNOWN.get((system, layout))
