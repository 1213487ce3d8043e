"""Split attention: for each image and channel, a softmax decides the weight of each branch."""

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function


class SplitAttention(Function):
    """Weigh n branches by a softmax over them: α = softmax_b(z[b]),  y = Σ_b α[b] x_b.

    z (B, n*C), branches x_1 .. x_n, each (..., B, C)  ->  y (..., B, C)

    z lists all channels of the first branch, then all of the second: read as (B, n, C) it needs no
    copy, and has one weight for each image, branch and channel. All positions of an image share it.

    With dα[b] = Σ_positions dy x_b, the gradient with respect to α[b]:
        dx_b = α[b] dy,  dz[b] = α[b] (dα[b] - Σ_k α[k] dα[k])
    Summed over the branches, dz is 0: adding a constant to all z changes no weight.

    Raises ValueError where z or a branch does not fit the first branch. Source: Zhang et al. 2020,
    "ResNeSt: split-attention networks", arXiv 2004.08955, section 3.1.
    """

    shapes = "z (B, _), *branches (..., B, C)"

    def forward(self, z: Array, *branches: Array) -> Array:
        n, (B, C) = len(branches), branches[0].shape[-2:]
        shapes = [x.shape for x in branches]
        if z.shape != (B, n * C) or set(shapes) != {shapes[0]}:
            raise ValueError(
                f"SplitAttention: expected branches of one shape (..., B, C), and z (B, n*C) for n "
                f"of them, got z {z.shape} and branches {', '.join(map(str, shapes))}. Give z one "
                "number for each image, branch and channel"
            )
        z = z.reshape(B, n, C)
        e = array_module(z).exp(z - z.max(1, keepdims=True))  # exp cannot overflow
        alpha = e / e.sum(1, keepdims=True)
        self.saved = alpha, *branches
        return sum(alpha[:, b] * x for b, x in enumerate(branches))

    def backward(self, dy: Array) -> tuple:
        alpha, *branches = self.saved
        dz = None
        if self.needs[0]:
            positions = tuple(range(dy.ndim - 2))
            dalpha = array_module(dy).stack([(dy * x).sum(positions) for x in branches], 1)
            dz = alpha * (dalpha - (alpha * dalpha).sum(1, keepdims=True))  # (B, n, C)
            dz = dz.reshape(len(dz), -1)
        needed = [self.needs[1 + b] for b in range(len(branches))]
        return dz, *(alpha[:, b] * dy if needed[b] else None for b in range(len(branches)))
