"""A factor by which a gradient is off, in words."""

from .measure import name_factor, sizes


def told_factor(f, c):
    """A factor with what it may be made of: "0.25 (1/N with N = 4)"."""
    known = sizes(f.problem)
    name = name_factor(c, known)
    if name is None or c == 0:
        return f"{c:.6g}" + (f" (1 / {1 / c:.6g})" if 0 < abs(c) < 1 else "")
    inside = max((size for size in known if size in name), key=len, default=None)
    used = [f"{inside} = {known[inside]}"] if inside else []
    same = (
        [f"also {size}" for size in known if abs(abs(c) - known[size]) < 1e-6]
        if name in ("2", "3", "4")
        else []
    )
    same += (
        [f"also 1/{size}" for size in known if abs(abs(c) * known[size] - 1) < 1e-6]
        if name in ("1/2", "1/3", "1/4")
        else []
    )
    if name in (f"{c:g}", "-1"):
        return f"{c:g}" + (f" ({', '.join(same)})" if same else "")
    return f"{c:.6g} = {name}" + (f" ({', '.join(used or same)})" if used or same else "")


def factor_hint(c, loss=False):
    """What to look for when a gradient (of a loss) is c times what it should be."""
    if abs(c + 1) < 1e-4:
        return "The sign is wrong: which way round is the difference that is differentiated?"
    if abs(c - 0.5) < 1e-6 and loss:
        return "A square's derivative has a 2"
    if abs(c) < 1:
        return "A mean where a sum belongs? Every use of the input adds its share"
    return "A sum where a mean belongs, or a factor of forward that was not carried over?"
