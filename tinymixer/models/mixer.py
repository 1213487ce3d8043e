"""MLP-Mixer: an image model of nothing but matrix products.

Source: Tolstikhin et al. 2021, "MLP-Mixer: an all-MLP architecture for vision", arXiv 2105.01601,
figure 1, equation 1 and table 1; initialisation as in the code released with it.
"""

from typing import Any

from tinymixer import nn
from tinymixer.engine import Tensor
from tinymixer.models.common import CIFAR, IMAGENET, another_size, linear_rates, tiled
from tinymixer.models.options import Channels, Depth, Epsilon, Gelu, ImageSize, Rate, Size, checked


class MixerBlock(nn.Module):
    """u = x + TokenMLP(LN(x)),  y = u + ChannelMLP(LN(u));  x, u, y (S, B, C)."""

    def __init__(
        self,
        S: int,
        C: int,
        tokens_mlp_dim: int,
        channels_mlp_dim: int,
        *,
        gelu: str,
        eps: float,
        dropout: float,
        drop_path_rates: tuple[float, float],
        rng: nn.Rng,
    ):
        self.token_norm = nn.LayerNorm(C, eps)
        self.token_mlp = nn.TokenMLP(S, tokens_mlp_dim, gelu=gelu, rng=rng)
        self.channel_norm = nn.LayerNorm(C, eps)
        self.channel_mlp = nn.ChannelMLP(C, channels_mlp_dim, gelu=gelu, rng=rng)
        self.dropout, self.drop_path_rates = dropout, drop_path_rates

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        token_rate, channel_rate = self.drop_path_rates
        y = self.token_mlp(self.token_norm(x))
        x = x + nn.drop_branch(y, self.dropout, token_rate, rng)
        y = self.channel_mlp(self.channel_norm(x))
        return x + nn.drop_branch(y, self.dropout, channel_rate, rng)


class Isotropic(nn.Classifier):
    """images (B, height, width, channels), normalised floats  ->  logits (B, K).

    patch embedding -> blocks on tokens (S, B, C) -> LayerNorm -> mean over tokens -> linear head,
    which starts at zero. "Isotropic": from the first block to the last, S and C stay the same.

    A subclass calls `start`, gives the model its `blocks`, and calls `finish`.
    """

    blocks: list[Any]

    def start(
        self,
        image_size: int | tuple[int, int],
        channels: int,
        patch_size: int,
        C: int,
        rng: nn.Rng,
    ) -> int:
        """Make the patch embedding, and return S, the number of tokens."""
        self.image_size, self.channels = nn.sides(image_size), channels
        H, W = tiled(type(self).__name__, self.image_size, patch_size)
        self.patch_embed = nn.PatchEmbed(patch_size, C, channels, rng=rng)
        return H * W

    def finish(self, C: int, num_classes: int, eps: float, rng: nn.Rng) -> None:
        self.num_classes = num_classes
        self.norm = nn.LayerNorm(C, eps)
        self.head = nn.ChannelLinear(C, num_classes, init=nn.zero, rng=rng)

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        if images.ndim == 4 and images.shape[1:] != (*self.image_size, self.channels):
            raise another_size(self, images, "Mixing tokens")
        x = self.patch_embed(images)  # (S, B, C)
        for block in self.blocks:
            x = block(x, rng)
        return self.classify(self.norm(x))  # (B, K)


class MLPMixer(Isotropic):
    """patch embedding -> L MixerBlocks -> LayerNorm -> mean over tokens -> linear head.

    images (B, height, width, channels), normalised floats  ->  logits (B, K)

    Stochastic depth, when on, grows linearly from 0 at the first MLP to `drop_path_rate` at the
    last. image_size and patch_size are in pixels; image_size is a side or (height, width). Raises
    ValueError when they do not fit, here or, for images of another size, when called.
    """

    @checked
    def __init__(
        self,
        *,
        image_size: ImageSize,
        patch_size: Size,
        hidden_dim: Size,
        num_blocks: Depth,
        tokens_mlp_dim: Size,
        channels_mlp_dim: Size,
        num_classes: Size,
        gelu: Gelu = "tanh",
        eps: Epsilon = 1e-6,
        dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        channels: Channels = 3,
        rng: nn.Rng,
    ):
        C, L = hidden_dim, num_blocks
        S = self.start(image_size, channels, patch_size, C, rng)
        rates = linear_rates(drop_path_rate, 2 * L)
        self.blocks = [
            MixerBlock(
                S,
                C,
                tokens_mlp_dim,
                channels_mlp_dim,
                gelu=gelu,
                eps=eps,
                dropout=dropout,
                drop_path_rates=(rates[2 * i], rates[2 * i + 1]),
                rng=rng,
            )
            for i in range(L)
        ]
        self.finish(C, num_classes, eps, rng)


def _published(patch_size: int, hidden_dim: int, num_blocks: int) -> dict[str, Any]:
    """A configuration of the paper's table 1, where D_S = C/2 and D_C = 4C throughout."""
    return IMAGENET | {
        "patch_size": patch_size,
        "hidden_dim": hidden_dim,
        "num_blocks": num_blocks,
        "tokens_mlp_dim": hidden_dim // 2,
        "channels_mlp_dim": 4 * hidden_dim,
    }


def _small(C: int, D_S: int, D_C: int, L: int) -> dict[str, Any]:
    """A configuration for 32x32 images."""
    return CIFAR | {
        "patch_size": 4,
        "hidden_dim": C,
        "num_blocks": L,
        "tokens_mlp_dim": D_S,
        "channels_mlp_dim": D_C,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "mixer_s32": _published(32, 512, 8),
    "mixer_s16": _published(16, 512, 8),
    "mixer_b32": _published(32, 768, 12),
    "mixer_b16": _published(16, 768, 12),
    "mixer_l32": _published(32, 1024, 24),
    "mixer_l16": _published(16, 1024, 24),
    "mixer_h14": _published(14, 1280, 32),
    "mixer_pico": _small(C=64, D_S=32, D_C=256, L=4),
    "mixer_nano": _small(C=128, D_S=64, D_C=512, L=8),
    "mixer_nano_slim": _small(C=128, D_S=512, D_C=64, L=8),
}
