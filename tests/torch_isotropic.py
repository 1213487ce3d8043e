"""The Mixer and the Sparse-MLP for PyTorch: x (B, S, C)."""

import torch
from torch import nn
from torch_layers import GELU, Classifier, mlp


class PatchEmbed(nn.Module):
    """images (B, height, width, 3)  ->  x (B, S, C)."""

    def __init__(self, P, C):
        super().__init__()
        self.P, self.linear = P, nn.Linear(3 * P * P, C)

    def forward(self, images):
        x = images.unflatten(2, (-1, self.P)).unflatten(1, (-1, self.P))  # (B, H, P, W, P, 3)
        return self.linear(x.transpose(2, 3).flatten(3).flatten(1, 2))


class MixerBlock(nn.Module):
    def __init__(self, S, C, tokens_mlp_dim, channels_mlp_dim, gelu, eps):
        super().__init__()
        self.token_norm = nn.LayerNorm(C, eps)
        self.token_mlp = mlp(S, tokens_mlp_dim, gelu)
        self.channel_norm = nn.LayerNorm(C, eps)
        self.channel_mlp = mlp(C, channels_mlp_dim, gelu)

    def forward(self, x):
        x = x + self.token_mlp(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.channel_norm(x))


class ReRepresent(nn.Module):
    """x (B, S, C)  ->  y (B, S1, C1)."""

    def __init__(self, tokens, channels, channels_first, gelu, eps):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels[0], eps)
        self.norm2 = nn.LayerNorm(channels[channels_first], eps)
        steps = nn.Linear(*tokens), nn.Linear(*channels)
        self.linear1, self.linear2 = steps[:: -1 if channels_first else 1]
        self.channels_first, self.gelu = channels_first, GELU(gelu)

    def forward(self, x):
        for norm, linear, channels in (
            (self.norm1, self.linear1, self.channels_first),
            (self.norm2, self.linear2, not self.channels_first),
        ):
            x = norm(x)
            x = linear(x) if channels else linear(x.transpose(1, 2)).transpose(1, 2)
            x = self.gelu(x)
        return x


class MixtureOfExperts(nn.Module):
    """rows (N, D)  ->  (N, D): each row through the K experts with the largest p."""

    def __init__(self, D, E, K, hidden_dim, gelu, noisy, loss_weight):
        super().__init__()
        self.gate = nn.Linear(D, E, bias=False)
        self.experts = nn.ModuleList(mlp(D, hidden_dim, gelu) for _ in range(E))
        self.K, self.noisy, self.loss_weight = K, noisy, loss_weight

    def forward(self, X):
        E, z = len(self.experts), self.gate(X)
        noisy = z + torch.randn_like(z) / E if self.training and self.noisy else z
        p = noisy.softmax(1)
        best, choice = p.topk(self.K)
        if self.training:
            t = noisy.gather(1, choice[:, -1:])
            load = torch.special.ndtr((z - t) * E).sum(0)
            self.loss = self.loss_weight * (imbalance(z.softmax(1).sum(0)) + imbalance(load)) / 2
        y = torch.zeros_like(X)
        for e, expert in enumerate(self.experts):
            rows, place = (choice == e).nonzero(as_tuple=True)
            y = y.index_add(0, rows, best[rows, place, None] * expert(X[rows]))
        return y


def imbalance(v):
    return v.var(correction=0) / v.mean() ** 2


class SparseBlock(nn.Module):
    """x (B, S, C)  ->  y (B, S, C)."""

    def __init__(self, S, S1, C, C1, token_experts, channel_experts, routing, gelu, eps):
        super().__init__()
        self.enter = ReRepresent((S, S1), (C, C1), False, gelu, eps)
        self.token_norm = nn.LayerNorm(C1, eps)
        self.token_moe = MixtureOfExperts(S1, *token_experts, gelu, *routing)
        self.channel_norm = nn.LayerNorm(C1, eps)
        self.channel_moe = MixtureOfExperts(C1, *channel_experts, gelu, *routing)
        self.leave = ReRepresent((S1, S), (C1, C), True, gelu, eps)

    def forward(self, x):
        x = self.enter(x)  # (B, S1, C1)
        columns = self.token_norm(x).transpose(1, 2)  # (B, C1, S1)
        x = x + self.token_moe(columns.flatten(0, 1)).view(columns.shape).transpose(1, 2)
        x = x + self.channel_moe(self.channel_norm(x).flatten(0, 1)).view(x.shape)
        return self.leave(x)


class Isotropic(Classifier):
    def __init__(
        self,
        *,
        image_size,
        patch_size,
        hidden_dim,
        num_blocks,
        tokens_mlp_dim,
        channels_mlp_dim,
        num_classes,
        gelu="tanh",
        eps=1e-6,
        **options,
    ):
        super().__init__()
        S, C = image_size[0] // patch_size * (image_size[1] // patch_size), hidden_dim
        self.patch_embed = PatchEmbed(patch_size, C)
        dense = num_blocks - options.get("sparse_blocks", 0)
        self.blocks = nn.Sequential(
            *(
                MixerBlock(S, C, tokens_mlp_dim, channels_mlp_dim, gelu, eps)
                if i < dense
                else self.sparse_block(S, C, gelu, eps, **options)
                for i in range(num_blocks)
            )
        )
        self.norm = nn.LayerNorm(C, eps)
        self.head = nn.Linear(C, num_classes)

    def sparse_block(
        self,
        S,
        C,
        gelu,
        eps,
        *,
        sparse_tokens,
        sparse_dim,
        token_experts,
        token_expert_dim,
        channel_experts,
        channel_expert_dim,
        token_top_k=1,
        channel_top_k=2,
        noisy_gates=True,
        loss_weight=0.01,
        **_,
    ):
        tokens = token_experts, token_top_k, token_expert_dim
        channels = channel_experts, channel_top_k, channel_expert_dim
        routing = noisy_gates, loss_weight
        return SparseBlock(S, sparse_tokens, C, sparse_dim, tokens, channels, routing, gelu, eps)

    @property
    def auxiliary(self):
        return [m.loss for m in self.modules() if isinstance(m, MixtureOfExperts)]

    def features(self, images):
        return self.blocks(self.patch_embed(images))
