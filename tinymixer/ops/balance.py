"""Load balancing of experts: two measures of how busy each is, and one of how unequal they are.

A gate that prefers an expert trains it more, which improves it, so the gate prefers it even more:
without a loss against it, a few experts end up with all the rows. That loss measures

    importance[e] = Σ_n p[n, e]                        the total weight of expert e
    load[e]       = Σ_n Φ((z[n, e] - t[n]) / σ)        a smooth count of the rows of expert e

Importance alone would not notice one expert with few rows of large p and another with many rows of
small p.

Source: Shazeer et al. 2017, arXiv 1701.06538, section 4 and appendix A; in the form of Riquelme et
al. 2021, arXiv 2106.05974, appendix A.
"""

from dataclasses import dataclass

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function
from tinymixer.ops.erf import normal_cdf, normal_density
from tinymixer.ops.experts import require_numbers_below
from tinymixer.options import Number


@dataclass(eq=False)
class Load(Function):
    """A smooth count of the rows that an expert gets: load[e] = Σ_n Φ((z[n, e] - t[n]) / σ).

    z (N, E) logits, noisy (N, E) the same with noise, by which experts were chosen, last (N,) the
    K-th choice of each row  ->  load (E,)

    t[n] = noisy[n, last[n]] is the threshold for being chosen. Φ is the probability that expert e
    would pass it if its noise, of standard deviation σ, were drawn again. A count of rows has no
    derivative; this has one, with φ the density of Φ:
        dz[n, e] = dload[e] φ(a[n, e]) / σ,  a = (z - t) / σ,
    and noisy[n, last[n]], the threshold, gets minus their sum over e.
    """

    shapes = "z (N, E), noisy (N, E), last (N) integers"

    sigma: float

    allowed = (("sigma", Number(0, above=True)),)

    def forward(self, z: Array, noisy: Array, last: Array) -> Array:
        require_numbers_below("Load: last", last, z.shape[1])
        is_last = last[:, None] == array_module(z).arange(z.shape[1])  # (N, E)
        t = (noisy * is_last).sum(1, keepdims=True)  # (N, 1)
        a = (z - t) / self.sigma
        self.saved = a, is_last
        return normal_cdf(a).sum(0)

    def backward(self, dload: Array) -> tuple:
        a, is_last = self.saved
        dz = dload * normal_density(a) / self.sigma  # (N, E)
        dnoisy = -dz.sum(1, keepdims=True) * is_last if self.needs[1] else None
        return dz if self.needs[0] else None, dnoisy, None


class Imbalance(Function):
    """How unequal the numbers v are: L = (s / m)², m their mean and s their standard deviation.

    v (E,)  ->  L ();  0 if all are equal, E - 1 if all but one are 0. A common factor of v does not
    change it.

    s² is the mean of (v - m)². dv[e] = (2 / E) ((v[e] - m) / m² - s² / m³) dL:  the second term is
    the derivative of the 1 / m².
    """

    shapes = "v (E)"

    def forward(self, v: Array) -> Array:
        m = v.mean()
        centred = v - m
        variance = (centred * centred).mean()
        self.saved = centred, variance, m
        return variance / (m * m)

    def backward(self, dL: Array) -> Array:
        centred, variance, m = self.saved
        return dL * (2 / centred.size) * (centred - variance / m) / (m * m)
