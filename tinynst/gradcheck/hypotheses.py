"""What may have happened to a wrong gradient: small hypotheses, the surest and most particular first.

Each looks at the Facts (measure.py) and returns (cause, evidence, hint), or None. A hypothesis holds when it predicts the
*wrong* gradient to rounding: with a random dy and random inputs that does not happen by chance.
"""

from . import shares, terms, whole

HYPOTHESES = (
    whole.zero,
    whole.nonlinear,
    whole.swapped,
    whole.scaled,
    whole.noise,
    whole.rearranged,
    whole.rearranged_dy,
    whole.running_statistics,
    shares.ratios,
    shares.one_sample,
    terms.norm_terms,
    whole.rearranged_input,
    terms.elementwise,
    shares.overwritten,
    shares.ways,
    whole.shifted,
    terms.other_terms,
    shares.mask,
    shares.border,
    shares.reordered,
    whole.unknown,
)
