"""AS-MLP, Hire-MLP, Vision Permutator and RaftMLP for PyTorch: x (B, H, W, C)."""

import torch
from torch import nn
from torch.nn import functional as F
from torch_layers import GELU, BatchNorm, Classifier, Conv, GroupNorm, SplitAttention, mlp


def axial_shift(x, axis, k):
    """Zeros come in where a group of channels moves along `axis`, 1 for rows, 2 for columns."""
    along = (0, 0) * (3 - axis)
    groups = enumerate(x.chunk(k, dim=3), start=-(k // 2))
    return torch.cat([F.pad(g, (*along, d, -d)) if d else g for d, g in groups], dim=3)


class ASMLPBlock(nn.Module):
    def __init__(self, C, shift_size, mlp_dim, gelu, eps):
        super().__init__()
        for name in ("linear_in", "horizontal", "vertical", "linear_out"):
            setattr(self, name, nn.Linear(C, C))
        for name in ("norm", "norm_in", "norm_out", "mlp_norm"):
            setattr(self, name, GroupNorm(C, eps))
        self.mlp, self.gelu, self.k = mlp(C, mlp_dim, gelu), GELU(gelu), shift_size

    def forward(self, x):
        a = self.gelu(self.norm_in(self.linear_in(self.norm(x))))
        h = self.gelu(self.horizontal(axial_shift(a, 2, self.k)))
        v = self.gelu(self.vertical(axial_shift(a, 1, self.k)))
        x = x + self.linear_out(self.norm_out(h + v))
        return x + self.mlp(self.mlp_norm(x))


class PatchMerge(nn.Module):
    """x (B, H, W, C)  ->  y (B, H/2, W/2, 2C)."""

    def __init__(self, C, eps):
        super().__init__()
        self.norm, self.linear = GroupNorm(4 * C, eps), nn.Linear(4 * C, 2 * C, bias=False)

    def forward(self, x):
        windows = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)
        return self.linear(self.norm(windows.flatten(3)))


class Stage(nn.Module):
    """What comes before the blocks has another name in each system; None: nothing does."""

    def __init__(self, first, module, blocks):
        super().__init__()
        self.first, self.blocks = first, nn.Sequential(*blocks)
        setattr(self, first, module)

    def forward(self, x):
        module = getattr(self, self.first)
        return self.blocks(x if module is None else module(x))


class Staged(Classifier):
    def features(self, images):
        return self.stages(images)


class ASMLP(Classifier):
    def __init__(
        self,
        *,
        patch_size,
        hidden_dim,
        depths,
        num_classes,
        shift_size=5,
        mlp_ratio=4,
        gelu="erf",
        eps=1e-5,
        **_,
    ):
        super().__init__()
        self.patch_embed = Conv(3, hidden_dim, patch_size, patch_size)
        self.patch_norm = GroupNorm(hidden_dim, eps)
        self.stages = nn.Sequential()
        for i, L in enumerate(depths):
            C = hidden_dim * 2**i
            blocks = [ASMLPBlock(C, shift_size, int(mlp_ratio * C), gelu, eps) for _ in range(L)]
            self.stages.append(Stage("merge", PatchMerge(C // 2, eps) if i else None, blocks))
        self.norm, self.head = GroupNorm(C, eps), nn.Linear(C, num_classes)

    def features(self, images):
        return self.stages(self.patch_norm(self.patch_embed(images)))


class RegionMLP(nn.Module):
    """x (B, H, W, C)  ->  y (B, H, W, C), along rows (axis 1) or columns (axis 2)."""

    def __init__(self, C, hidden_dim, p, axis, step, eps, momentum):
        super().__init__()
        self.linear_1 = nn.Linear(p * C, hidden_dim, bias=False)
        self.norm = BatchNorm(hidden_dim, eps, momentum)
        self.linear_2 = nn.Linear(hidden_dim, p * C)
        self.p, self.axis, self.step = p, axis, step

    def forward(self, x):
        p, axis, n = self.p, self.axis, x.shape[self.axis]
        if self.step:
            x = x.roll(self.step, axis)
        if n % p:  # the first rows again
            x = torch.cat([x, x.narrow(axis, 0, -n % p)], axis)
        x = x.unflatten(axis, (-1, p)).movedim(axis + 1, -2).flatten(-2)
        x = self.linear_2(self.norm(self.linear_1(x)).relu())
        x = x.unflatten(-1, (p, -1)).movedim(-2, axis + 1).flatten(axis, axis + 1)
        x = x.narrow(axis, 0, n)
        return x.roll(-self.step, axis) if self.step else x


class HireBlock(nn.Module):
    def __init__(self, C, ratios, p, step, gelu, eps, momentum):
        super().__init__()
        region_dim, attention_dim, mlp_dim = (int(ratio * C) for ratio in ratios)
        self.norm = BatchNorm(C, eps, momentum)
        self.rows = RegionMLP(C, region_dim, p, 1, step, eps, momentum)
        self.columns = RegionMLP(C, region_dim, p, 2, step, eps, momentum)
        self.channels, self.projection = nn.Linear(C, C), nn.Linear(C, C)
        self.attention = SplitAttention(C, 3, attention_dim, gelu)
        self.mlp_norm, self.mlp = BatchNorm(C, eps, momentum), mlp(C, mlp_dim, gelu)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.projection(self.attention(self.rows(y), self.columns(y), self.channels(y)))
        return x + self.mlp(self.mlp_norm(x))


class Reduction(nn.Module):
    def __init__(self, C, D, window, eps, momentum):
        super().__init__()
        self.convolution, self.norm = Conv(C, D, *window), BatchNorm(D, eps, momentum)

    def forward(self, x):
        return self.norm(self.convolution(x)).relu()


class HireMLP(Staged):
    def __init__(
        self,
        *,
        dims,
        depths,
        pixels,
        strides,
        dilations,
        num_classes,
        stem=(7, 4, 2),
        reduction=(3, 2, 1),
        mlp_ratio=4,
        region_ratio=0.5,
        attention_ratio=0.25,
        gelu="erf",
        eps=1e-5,
        momentum=0.1,
        **_,
    ):
        super().__init__()
        ratios, C_in, self.stages = (region_ratio, attention_ratio, mlp_ratio), 3, nn.Sequential()
        for i, C in enumerate(dims):
            reduce = Reduction(C_in, C, reduction if i else stem, eps, momentum)
            steps = [j % strides[i] * dilations[i] for j in range(depths[i])]
            blocks = [HireBlock(C, ratios, pixels[i], step, gelu, eps, momentum) for step in steps]
            self.stages.append(Stage("reduction", reduce, blocks))
            C_in = C
        self.norm, self.head = BatchNorm(C, eps, momentum), nn.Linear(C, num_classes)


def swap_segments(x, axis):
    """As many segments of the channels as places along `axis` change places with these."""
    return x.unflatten(3, (x.shape[axis], -1)).transpose(axis, 3).flatten(3)


class PermuteMLP(nn.Module):
    def __init__(self, C, attention_ratio, gelu):
        super().__init__()
        for name in ("channel", "vertical", "horizontal"):
            setattr(self, name, nn.Linear(C, C, bias=False))
        self.attention = SplitAttention(C, 3, C // attention_ratio, gelu)
        self.output = nn.Linear(C, C)

    def forward(self, x):
        columns = swap_segments(self.vertical(swap_segments(x, 1)), 1)
        rows = swap_segments(self.horizontal(swap_segments(x, 2)), 2)
        return self.output(self.attention(columns, rows, self.channel(x)))


class PermutatorBlock(nn.Module):
    def __init__(self, C, attention_ratio, mlp_ratio, gelu, eps):
        super().__init__()
        self.permute_norm = nn.LayerNorm(C, eps)
        self.permute_mlp = PermuteMLP(C, attention_ratio, gelu)
        self.channel_norm = nn.LayerNorm(C, eps)
        self.channel_mlp = mlp(C, mlp_ratio * C, gelu)

    def forward(self, x):
        x = x + self.permute_mlp(self.permute_norm(x))
        return x + self.channel_mlp(self.channel_norm(x))


class VisionPermutator(Staged):
    def __init__(
        self,
        *,
        dims,
        depths,
        patch_sizes,
        num_classes,
        attention_ratio=4,
        mlp_ratio=3,
        gelu="erf",
        eps=1e-5,
        **_,
    ):
        super().__init__()
        C_in, self.stages = 3, nn.Sequential()
        for C, L, P in zip(dims, depths, patch_sizes, strict=True):
            embed = Conv(C_in, C, P, P) if P > 1 or C_in != C else None
            blocks = [PermutatorBlock(C, attention_ratio, mlp_ratio, gelu, eps) for _ in range(L)]
            self.stages.append(Stage("embed", embed, blocks))
            C_in = C
        self.norm, self.head = nn.LayerNorm(C, eps), nn.Linear(C, num_classes)


class MultiScaleEmbed(nn.Module):
    """Σ_k of convolutions with kernel k, whose windows are centred on the patches."""

    def __init__(self, C_in, C, P, kernels):
        super().__init__()
        self.scales = nn.ModuleList(
            Conv(C_in, C, k, P, (k - P) // 2, bias=not i) for i, k in enumerate(kernels)
        )

    def forward(self, x):
        first, *others = (scale(x) for scale in self.scales)
        return sum(others, first)


class RaftBlock(nn.Module):
    def __init__(self, grid, C, r, tokens_mlp_ratio, channels_mlp_ratio, gelu, eps):
        super().__init__()
        S_v, S_h = (r * side for side in grid)
        for name in ("vertical_norm", "horizontal_norm", "channel_norm"):
            setattr(self, name, nn.LayerNorm(C, eps))
        self.vertical_mlp = mlp(S_v, tokens_mlp_ratio * S_v, gelu)
        self.horizontal_mlp = mlp(S_h, tokens_mlp_ratio * S_h, gelu)
        self.channel_mlp = mlp(C, channels_mlp_ratio * C, gelu)
        self.r = r

    def forward(self, x):
        members = self.vertical_norm(x).unflatten(3, (self.r, -1))  # (B, H, W, r, m)
        rafts = members.permute(0, 2, 4, 3, 1)  # (B, W, m, r, H)
        y = self.vertical_mlp(rafts.flatten(3)).view(rafts.shape)
        x = x + y.permute(0, 4, 1, 3, 2).flatten(3)
        members = self.horizontal_norm(x).unflatten(3, (self.r, -1))
        rafts = members.permute(0, 1, 4, 3, 2)  # (B, H, m, r, W)
        y = self.horizontal_mlp(rafts.flatten(3)).view(rafts.shape)
        x = x + y.permute(0, 1, 4, 3, 2).flatten(3)
        return x + self.channel_mlp(self.channel_norm(x))


class RaftMLP(Classifier):
    def __init__(
        self,
        *,
        image_size,
        dims,
        depths,
        patch_sizes,
        raft_sizes,
        num_classes,
        kernels=None,
        tokens_mlp_ratio=2,
        channels_mlp_ratio=4,
        gelu="erf",
        eps=1e-5,
        **_,
    ):
        super().__init__()
        ratios = tokens_mlp_ratio, channels_mlp_ratio
        kernels = kernels or [(P,) for P in patch_sizes]
        grid, C_in, self.levels = image_size, 3, nn.Sequential()
        for C, L, P, r, windows in zip(dims, depths, patch_sizes, raft_sizes, kernels, strict=True):
            embed, grid = MultiScaleEmbed(C_in, C, P, windows), [side // P for side in grid]
            blocks = [RaftBlock(grid, C, r, *ratios, gelu, eps) for _ in range(L)]
            self.levels.append(Stage("embed", embed, blocks))
            C_in = C
        self.norm, self.head = nn.LayerNorm(C, eps), nn.Linear(C, num_classes)

    def features(self, images):
        return self.levels(images)
