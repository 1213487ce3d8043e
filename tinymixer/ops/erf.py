"""The error function, for arrays: NumPy has none.

erf(z) = 2/√π ∫₀ᶻ exp(-t²) dt, odd in z. For z ≥ 0, split at z₀ = 3/2:

    z ≤ z₀:  erf(z) = z P(z²)                        P smooth in z² on [0, z₀²]
    z > z₀:  erf(z) = 1 - exp(-z²) Q(t) / (z + z₀)   Q smooth in t = 2 z₀ / (z + z₀) on (0, 1]

P and Q are Chebyshev series, written out by evaluating erf and erfc to 60 digits at 80 Chebyshev
points. Each coefficient is smaller than the one before by a factor of about 10, so a series cut
where its terms pass below the rounding error is as good as a whole one: float32 takes 9 or 10.
"""

import math

from tinymixer.backend import Array, array_module

SPLIT = 1.5
P = (
    0.851089471310623,
    -0.2378512126782037,
    0.03469122300310841,
    -0.004264102804485269,
    0.0004409197933299432,
    -3.901387128623381e-05,
    3.005756784960929e-06,
    -2.0467950137813437e-07,
    1.247436826254426e-08,
    -6.875751819093192e-10,
    3.45768610393445e-11,
    -1.598235818776436e-12,
    6.833570402307017e-14,
    -2.7176425140092373e-15,
    1.0100781017991405e-16,
    -3.52341093596377e-18,
)
Q = (
    0.7498643019866885,
    0.2006308601238002,
    0.01477928943759862,
    -0.0003464435988137714,
    -0.00017337347355660544,
    -1.0996111945993222e-06,
    2.754597690433086e-06,
    1.463266711765526e-08,
    -5.743246322470873e-08,
    1.4729994119848234e-09,
    1.3703930600834932e-09,
    -1.1771706356159093e-10,
    -3.147811316202535e-11,
    6.103348350283446e-12,
    4.722840855625401e-13,
    -2.5457181026703435e-13,
    1.0812857860101862e-14,
    8.192061228458592e-15,
    -1.4489004711116843e-15,
    -1.34472509309502e-16,
    7.918580582476812e-17,
    -6.0457904804844986e-18,
)


def erf(x: Array) -> Array:
    """erf(x), element by element, of x's shape and dtype; within two units of the last place.

    Both branches are analytic in x, so a complex x with a tiny imaginary part works too: the
    complex step differentiates through it.
    """
    xp = array_module(x)
    inner_terms, outer_terms = (9, 10) if x.dtype == xp.float32 else (len(P), len(Q))
    sign = xp.where(x.real < 0, -1.0, 1.0).astype(x.real.dtype)
    z = sign * x  # |x|, but analytic
    inside = z.real <= SPLIT
    near = xp.where(inside, z, 0)
    far = xp.where(inside, SPLIT, z)
    inner = near * _chebyshev(P[:inner_terms], near * near * (2 / SPLIT**2) - 1)
    t = 2 * SPLIT / (far + SPLIT)
    outer = 1 - xp.exp(-far * far) * _chebyshev(Q[:outer_terms], 2 * t - 1) / (far + SPLIT)
    return sign * xp.where(inside, inner, outer)


def normal_density(x: Array) -> Array:
    """φ(x) = exp(-x²/2) / √(2π)."""
    return array_module(x).exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def normal_cdf(x: Array) -> Array:
    """Φ(x) = (1 + erf(x/√2)) / 2: the share of a standard normal variable below x."""
    return 0.5 * (1 + erf(x * math.sqrt(0.5)))


def _chebyshev(coefficients: tuple[float, ...], u: Array) -> Array:
    """Σ_k c_k T_k(u) for u in [-1, 1], by Clenshaw's recurrence."""
    above = above_that = 0.0 * u
    for c in reversed(coefficients[1:]):
        above, above_that = 2 * u * above - above_that + c, above
    return u * above - above_that + coefficients[0]
