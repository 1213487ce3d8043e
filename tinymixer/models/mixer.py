"""MLP-Mixer: an image model of nothing but matrix products.

Source: Tolstikhin et al. 2021, "MLP-Mixer: an all-MLP architecture for vision", arXiv 2105.01601,
figure 1, equation 1 and table 1; initialisation as in the code released with it.
"""

from typing import Any

from tinymixer import nn
from tinymixer.engine import Tensor


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
        y = nn.dropout(self.token_mlp(self.token_norm(x)), self.dropout, rng)
        x = x + nn.drop_path(y, token_rate, rng)
        y = nn.dropout(self.channel_mlp(self.channel_norm(x)), self.dropout, rng)
        return x + nn.drop_path(y, channel_rate, rng)


class MLPMixer(nn.Module):
    """images (B, height, width, 3), normalised floats  ->  logits (B, K).

    patch embedding -> L MixerBlocks -> LayerNorm -> mean over tokens -> linear head, which starts
    at zero. Stochastic depth, when on, grows linearly from 0 at the first MLP to `drop_path_rate`
    at the last.

    image_size and patch_size are in pixels; image_size is a side or (height, width). Raises
    ValueError when they do not fit, here or, for images of another size, when called.
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch_size: int,
        hidden_dim: int,
        num_blocks: int,
        tokens_mlp_dim: int,
        channels_mlp_dim: int,
        num_classes: int,
        gelu: str = "tanh",
        eps: float = 1e-6,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        rng: nn.Rng,
    ):
        height, width = nn.sides(image_size)
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"MLPMixer: patches of {patch_size}x{patch_size} do not tile images of "
                f"{height}x{width}; choose a patch_size that divides both sides"
            )
        S, C, L = height // patch_size * (width // patch_size), hidden_dim, num_blocks
        rates = [drop_path_rate * i / max(1, 2 * L - 1) for i in range(2 * L)]
        self.image_size, self.num_classes = (height, width), num_classes
        self.patch_embed = nn.PatchEmbed(patch_size, C, rng=rng)
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
        self.norm = nn.LayerNorm(C, eps)
        self.head = nn.ChannelLinear(C, num_classes, rng=rng)
        self.head.W.data[...] = 0

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        if images.ndim == 4 and images.shape[1:-1] != self.image_size:
            height, width = self.image_size
            raise ValueError(
                f"MLPMixer: expected images (B, {height}, {width}, 3), got {images.shape}. Mixing "
                "tokens ties a model to one image size: resize the images, or build the model with "
                "their image_size"
            )
        x = self.patch_embed(images)  # (S, B, C)
        for block in self.blocks:
            x = block(x, rng)
        return self.head(self.norm(x).mean(axis=0))  # (B, C) -> (B, K)


def _published(patch_size: int, hidden_dim: int, num_blocks: int) -> dict[str, Any]:
    """A configuration of the paper's table 1, where D_S = C/2 and D_C = 4C throughout."""
    return {
        "image_size": 224,
        "patch_size": patch_size,
        "hidden_dim": hidden_dim,
        "num_blocks": num_blocks,
        "tokens_mlp_dim": hidden_dim // 2,
        "channels_mlp_dim": 4 * hidden_dim,
        "num_classes": 1000,
    }


def _small(C: int, D_S: int, D_C: int, L: int) -> dict[str, Any]:
    """A configuration for 32x32 images."""
    return {
        "image_size": 32,
        "patch_size": 4,
        "hidden_dim": C,
        "num_blocks": L,
        "tokens_mlp_dim": D_S,
        "channels_mlp_dim": D_C,
        "num_classes": 10,
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
