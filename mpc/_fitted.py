"""The fits of `mpc.functions`, made once by `mpc._fits.fit_function`: every party must use the very same numbers."""

from __future__ import annotations

from mpc._fits import Fit

RECIPROCAL = Fit(
    lo=1,
    hi=4,
    period=9.0,
    step=1,
    cosines=(3909342364093, -3334939962117, -1774902470820, 40510943250, 54464384362),
    sines=(-7893696109917, -3655062137980, 754014864173, 471312160412, 11923517956),
    constant=5749026021619,
    slope=0,
    basis_bits=20,
    coef_bits=19,
    error=0.00011132498210498751,
)
"""1 / x, relative error."""
SQRT = Fit(
    lo=1,
    hi=4,
    period=18.0,
    step=1,
    cosines=(2927914923298, 1782068598543, -500203807465),
    sines=(7959529571537, -2557408083414, 2072978400),
    constant=-3847088133444,
    slope=0,
    basis_bits=21,
    coef_bits=19,
    error=3.2436133219743e-05,
)
"""sqrt(x), relative error."""
INVERSE_SQRT = Fit(
    lo=1,
    hi=4,
    period=12.0,
    step=1,
    cosines=(-208461284204, -4789267066070, 336012690272, 171324960122),
    sines=(-9875904714895, 570180273818, 1357321912751, -69624825059),
    constant=6907434486312,
    slope=0,
    basis_bits=21,
    coef_bits=19,
    error=6.0920437934221086e-05,
)
"""1 / sqrt(x), relative error."""
LOG = Fit(
    lo=1,
    hi=4,
    period=12.0,
    step=1,
    cosines=(-661064083792, 5581474554941, -331270205901, -192847814508),
    sines=(11879550960219, -365152630043, -1553221358739, 75686184354),
    constant=-6450501915288,
    slope=0,
    basis_bits=21,
    coef_bits=19,
    error=3.923066748960191e-05,
)
"""ln(x), absolute error."""
EXP = Fit(
    lo=0,
    hi=1.39,
    period=8.34,
    step=1,
    cosines=(-12374206217664, 3584782588446, -437033935230),
    sines=(1849581749462, 33529965595, -152709449373),
    constant=10325977761457,
    slope=0,
    basis_bits=19,
    coef_bits=17,
    error=4.5132615683859256e-05,
)
"""e^x, relative error, on a little more than [0, 2 ln 2]."""
SIGMOID = Fit(
    lo=-16,
    hi=16,
    period=44.8,
    step=2,
    cosines=(0, 0, 0, 0, 0, 0, 0),
    sines=(678176366949, 177232874618, 68544594484, 28293547272, 12221943377, 4590960874, 2119613484),
    constant=549755813888,
    slope=0,
    basis_bits=12,
    coef_bits=14,
    error=0.0015749239803436344,
)
"""1 / (1 + e^-x), absolute error."""
SIGMOID_32 = Fit(
    lo=-32,
    hi=32,
    period=76.8,
    step=2,
    cosines=(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    sines=(
        692446770102,
        211952531270,
        107892855743,
        61085167913,
        35716300723,
        21223241609,
        12845933041,
        7903153643,
        4777396936,
        2631335317,
        1247198091,
        1460327120,
    ),
    constant=549755813888,
    slope=0,
    basis_bits=11,
    coef_bits=15,
    error=0.0016336395157373032,
)
"""1 / (1 + e^-x), absolute error."""
TANH = Fit(
    lo=-8,
    hi=8,
    period=23.2,
    step=2,
    cosines=(0, 0, 0, 0, 0, 0, 0, 0),
    sines=(1358684676422, 360451248101, 143984284104, 60868260107, 25810797496, 11100497735, 4766946009, 2389608690),
    constant=0,
    slope=0,
    basis_bits=12,
    coef_bits=14,
    error=0.001648223189254846,
)
"""tanh(x), absolute error."""
ERF = Fit(
    lo=-4,
    hi=4,
    period=12.8,
    step=2,
    cosines=(0, 0, 0, 0),
    sines=(1318103220096, 271349916872, 62101507605, 10533627109),
    constant=0,
    slope=0,
    basis_bits=12,
    coef_bits=14,
    error=0.0015217787759798157,
)
"""erf(x), absolute error."""
GELU = Fit(
    lo=-8,
    hi=8,
    period=23.2,
    step=2,
    cosines=(-2674233155079, -342725688915, -117116013359, -40173375395, -11358388023, -2541882440),
    sines=(0, 0, 0, 0, 0, 0),
    constant=3188574608972,
    slope=549755813888,
    basis_bits=12,
    coef_bits=14,
    error=0.0011552586688739765,
)
"""x (1 + erf(x / sqrt 2)) / 2, absolute error."""
