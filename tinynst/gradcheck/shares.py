"""Hypotheses about single entries of J and B (measure.py): whose share of dy is missing, doubled, or went elsewhere."""

import itertools

import numpy as np

from ..device import to_numpy
from .factors import factor_hint, told_factor

_OVERWRITE_HINT = "Where several shares meet write += and start from zeros"

BORDER_HINT = "Think of the pixels at the edge: padding, mirror images, and the last window that fits"


def ratios(f):
    """A factor for each element of the input, or of dy, that follows some axes: per channel, per sample, at borders."""
    return _ratio_rows(f) or _ratio_columns(f)


def _ratio_rows(f):
    if not f.fits or f.x.ndim == 0:
        return None
    if f.loss or f.own is None:
        big = np.abs(f.n) > 1e-3 * np.max(np.abs(f.n))
        r = np.where(big, f.a / np.where(big, f.n, 1), np.nan)
        if np.max(np.abs(f.a[~big]), initial=0) > 2e-2 * np.max(np.abs(f.a), initial=0):
            return None
    else:
        r = _proportion(f.own, f.jac, f.tol)
    if r is None or np.all(np.isnan(r)):
        return None
    axes = _follows(r, f.coords, f.x.ndim)
    return None if axes is None else _told_ratio(f, r, f.coords, axes, f.axes, rows=True)


def _ratio_columns(f):
    if f.loss or f.own is None:
        return None
    q = _proportion(f.own.T, f.jac.T, f.tol)
    if q is None or np.all(np.isnan(q)):
        return None
    axes = _follows(q, f.out_coords, f.y.ndim)
    if axes is None:
        axes = (
            tuple(range(f.y.ndim))
            if f.linear and set(np.unique(np.round(q[~np.isnan(q)], 6))) <= {0.0, 1.0}
            else None
        )
    return None if axes is None else _told_ratio(f, q, f.out_coords, axes, f.out_axes, rows=False)


def _proportion(b, j, tol):
    """The factor r with b = r * j in each row; nan where both are zero; None where a row has no such factor."""
    top = np.max(np.abs(j))
    norm = (j**2).sum(axis=1)
    empty = np.max(np.abs(j), axis=1) <= tol * top
    r = (b * j).sum(axis=1) / np.where(empty, 1, norm)
    off = np.max(np.abs(b - r[:, None] * j), axis=1)
    if np.any(off > 2 * tol * top * np.maximum(1, np.abs(r))):
        return None
    return np.where(empty, np.nan, r)


def _follows(values, coords, ndim):
    """The fewest axes whose indices tell the value; None where only all of them do."""
    known = ~np.isnan(values)
    v, c = values[known], coords[known]
    room = 1e-4 * max(np.max(np.abs(v)), 1e-300)
    for count in range(ndim):
        for axes in itertools.combinations(range(ndim), count):
            if count == 0:
                groups = np.zeros(len(v), int)
            else:
                groups = np.unique(c[:, axes], axis=0, return_inverse=True)[1].ravel()
            if groups.max() + 1 > len(v) / 1.5:
                continue
            low, high = np.full(groups.max() + 1, np.inf), np.full(groups.max() + 1, -np.inf)
            np.minimum.at(low, groups, v)
            np.maximum.at(high, groups, v)
            if np.all(high - low <= room):
                return axes
    return None


def _told_ratio(f, r, coords, axes, names, rows):
    known = ~np.isnan(r)
    r, coords = r[known], coords[known]
    ones, zeros = np.abs(r - 1) <= 1e-4, np.abs(r) <= 1e-6
    if np.all(ones):
        return None
    followed = " and ".join(names[k] for k in axes)
    if np.all(ones | zeros) and np.any(ones):
        return _lost(f, coords, ones, axes, names, rows)
    if np.any(zeros) and np.any(ones) is False:
        return None
    of = f"d{f.name}" if rows else "dy's share"
    if not axes:
        factor = float(np.median(r))
        return (
            "scaled",
            f"every element of {of} is {told_factor(f, factor)} times what it should be",
            factor_hint(factor),
        )
    if np.any(ones) and not rows:
        border = edge_words(coords, ~ones, f.y.shape, names)
        if border:
            return (
                "border",
                f"the shares of {border} of dy are off by a factor, the others exact",
                BORDER_HINT,
            )
    if np.any(ones) and rows:
        border = edge_words(coords, ~ones, f.x.shape, names)
        if border:
            return "border", f"{border} are off by a factor, the interior is exact", BORDER_HINT
    named = _named_factor(f, r, coords, axes, names)
    values = ", ".join(f"{v:.4g}" for v in list(dict.fromkeys(np.round(r, 9)))[:4])
    evidence = f"{of} is off by a factor that follows {followed} ({values}, ...)" + (
        f": it is {named}" if named else ""
    )
    return (
        "scaled",
        evidence,
        f"A factor of forward is missing here{': ' + named if named else ''}, or is there twice",
    )


def _named_factor(f, r, coords, axes, names):
    """Is the factor one of the inputs, or the std of one over the other axes?"""
    group = [np.unique(coords[:, k]) for k in axes]
    table = np.full([len(g) for g in group], np.nan)
    for value, place in zip(r, coords, strict=True):
        table[tuple(np.searchsorted(g, place[k]) for g, k in zip(group, axes, strict=True))] = value
    candidates = {}
    for name, x in zip(f.problem.names, f.problem.inputs, strict=True):
        if x is None:
            continue
        x = to_numpy(x)
        candidates[name] = x
        if x.ndim >= 2 and x.ndim > len(axes) and x.ndim == len(names):
            rest = tuple(k for k in range(x.ndim) if k not in axes)
            candidates |= {f"std of {name}": x.std(rest), f"variance of {name}": x.var(rest)}
    for name, value in candidates.items():
        if value.shape == table.shape:
            for word, guess in ((name, value), (f"1/({name})" if " " in name else f"1/{name}", 1 / value)):
                if np.allclose(table, guess, rtol=2e-4):
                    return word
    return None


def _lost(f, coords, kept, axes, names, rows):
    """Some shares are exact, the others are gone: which?"""
    shape = f.x.shape if rows else f.y.shape
    of = f"d{f.name}" if rows else "dy"
    size = [len(np.unique(coords[kept][:, k])) for k in range(coords.shape[1])]
    all_of = [len(np.unique(coords[:, k])) for k in range(coords.shape[1])]
    if names[0] == "N" and 0 in axes and size[0] < all_of[0]:
        there = ", ".join(str(n) for n in np.unique(coords[kept][:, 0]))
        per_sample = [k for k in axes if k != 0]
        alone = (
            not rows
            and per_sample
            and all(size[k] == 1 for k in range(1, len(size)) if names[k] in ("H", "W"))
        )
        last = all(np.max(coords[kept][:, k]) == shape[k] - 1 for k in axes)
        if alone and last:
            return "overwritten", "only the last pixel of the last sample counts", _OVERWRITE_HINT
        if alone:
            return (
                "missing-sum",
                "only one pixel of one sample counts",
                "Sum over N, H and W: every pixel adds its share",
            )
        if not rows:
            hint = "Add up over the batch: += in a loop over N, or N among the axes of the sum"
            return (
                "partial-batch",
                f"only sample {there} of {shape[0]} counts; with dy zero elsewhere it would be right",
                hint,
            )
        return (
            "partial-batch",
            f"only sample {there} of {shape[0]} has a gradient",
            "Does the loop run over the whole batch?",
        )
    space = [k for k in range(len(shape)) if names[k] in ("H", "W", "KH", "KW")]
    if not rows:
        found = _thinned(f, coords, kept, shape, space)
        if found:
            return found
    edge = edge_words(coords, ~kept, shape, names)
    frame = min(((shape[k] - f.x.shape[k]) // 2 for k in space), default=0) if f.x.ndim == len(shape) else 0
    padding = frame > 0 and np.all(_depth(coords[~kept], shape, space) < frame)
    if edge and (rows or padding or _bands(coords, ~kept, shape, names)):
        if rows:
            return "border", f"{edge} of {of} are zero, the interior is exact", BORDER_HINT
        return "border", f"what comes back from {edge} of {of} is lost, all else is exact", BORDER_HINT
    block = [k for k in axes if names[k] in ("H", "W") and size[k] < all_of[k]]
    there = np.unique(coords[kept][:, block[0]]) if block else ()
    if block and len(axes) == 1 and np.ptp(there) == len(there) - 1:
        evidence = f"only {names[block[0]]} = {there[0]} to {there[-1]} of {shape[block[0]]} counts"
        return "partial-batch", evidence, "Is a block's result kept when the next one comes? += it"
    if axes and all(names[k] in ("C", "O", "C'") for k in axes):
        there = ", ".join(str(v) for v in np.unique(coords[kept][:, axes[0]]))
        if rows:
            return (
                "zero",
                f"only channel {there} of d{f.name} is filled, the others are zero",
                "Does the loop run over all channels?",
            )
        return "missing-sum", f"only channel {there} of dy counts", "Sum over the output channels too"
    return None


def _thinned(f, coords, kept, shape, space):
    """One pixel left, or one pixel of each square."""
    pixels = np.unique(coords[kept][:, space], axis=0)
    if not len(space) or len(pixels) == len(np.unique(coords[:, space], axis=0)):
        return None
    sides = [shape[k] for k in space]
    if len(pixels) == 1:
        if all(p == s - 1 for p, s in zip(pixels[0], sides, strict=True)):
            return (
                "overwritten",
                "only the last pixel counts: each one took the place of the one before",
                _OVERWRITE_HINT,
            )
        place = ", ".join(map(str, pixels[0]))
        return (
            "missing-sum",
            f"only the pixel ({place}) counts",
            "Sum over the pixels too: every one adds its share",
        )
    values = [np.unique(pixels[:, k]) for k in range(len(space))]
    if len(pixels) != np.prod([len(v) for v in values]):
        return None
    steps = [set(np.diff(v)) for v in values if len(v) > 1]
    if steps and all(len(s) == 1 for s in steps) and max(map(min, steps)) > 1:
        down, across = (min(np.diff(v), default=1) for v in values)
        what = f"pixel of each {down}x{across} square of dy counts"
        if values[0][0] == down - 1 and values[1][0] == across - 1:
            return "overwritten", f"only the last {what}", _OVERWRITE_HINT
        return (
            "missing-sum",
            f"only one {what}",
            "All of a square's pixels are copies of one: sum over the square",
        )
    single = [k for k in range(len(space)) if len(values[k]) == 1]
    if single and len(values[single[0]]) < sides[single[0]]:
        axis, at = f.out_axes[space[single[0]]], int(values[single[0]][0])
        if at == sides[single[0]] - 1:
            return (
                "partial-batch",
                f"only the last index of {axis} ({at}) counts",
                "Is each block's share added to the last one's?",
            )
        return "missing-sum", f"only {axis} = {at} counts", f"Sum over {axis} too"
    return None


def _depth(coords, shape, axes):
    """How many pixels from the nearest edge."""
    return np.min([np.minimum(coords[:, k], shape[k] - 1 - coords[:, k]) for k in axes], axis=0)


def edge_words(coords, wrong, shape, names):
    """ "the outermost 2 pixels" when every wrong place is within so many of an edge in H or W, and none further in."""
    space = [k for k in range(len(shape)) if names[k] in ("H", "W", "KH", "KW") and shape[k] > 2]
    if not space or not np.any(wrong) or np.all(wrong):
        return None
    depth = _depth(coords, shape, space)
    width = int(depth[wrong].max()) + 1
    inside = depth >= width
    if not np.any(inside) or np.any(wrong & inside):
        return None
    sides = []
    for k in space:
        if np.any(wrong & (coords[:, k] < width)) and np.all(coords[wrong][:, k] < width):
            sides.append(f"the first of {names[k]}")
        if np.any(wrong & (coords[:, k] >= shape[k] - width)) and np.all(
            coords[wrong][:, k] >= shape[k] - width
        ):
            sides.append(f"the last of {names[k]}")
    where = f" ({' and '.join(sides)})" if sides else ""
    return f"the outermost {width} pixel{'s' * (width > 1)}{where}"


def _bands(coords, wrong, shape, names):
    """Is `wrong` made of whole bands along the edges?"""
    space = [k for k in range(len(shape)) if names[k] in ("H", "W", "KH", "KW")]
    inside = np.ones(len(coords), bool)
    for k in space:
        whole = [i for i in range(shape[k]) if not np.all(wrong[coords[:, k] == i])]
        inside &= np.isin(coords[:, k], np.arange(min(whole), max(whole) + 1)) if whole else False
    return bool(np.array_equal(~inside, wrong))


def one_sample(f):
    """Only one sample's place is filled, or only one sample's dy is used, whatever else is wrong with it."""
    if not f.fits or not f.whole or f.x.ndim != 4 or len(f.x) < 2:
        return None
    filled = np.flatnonzero(np.any(f.analytic, axis=(1, 2, 3)))
    if len(filled) == 1 and np.all(np.any(f.n.reshape(len(f.x), -1), axis=1)):
        evidence = f"only sample {filled[0]} of {len(f.x)} has a gradient"
        return "partial-batch", evidence, "Index the batch axis with the loop's own variable"
    if f.loss or f.own is None or f.out_axes[0] != "N":
        return None
    used = [
        np.unique(f.out_coords[np.any(np.abs(m) > f.tol * np.max(np.abs(m)), axis=0), 0])
        for m in (f.jac, f.own)
    ]
    if len(used[1]) == 1 < len(used[0]):
        evidence = f"only the dy of sample {used[1][0]} is used, for all samples"
        return "partial-batch", evidence, "Index the batch axis with the loop's own variable"
    return None


def overwritten(f):
    """Each entry of B is J's or missing, and the missing ones are those that meet others: the last one to come stays."""
    if f.own is None or f.jac is None:
        return None
    tol = (1e-4 if f.loss else f.tol) * np.max(np.abs(f.jac))
    there = np.abs(f.jac) > 10 * tol
    coords, columns = f.coords[f.matrix_rows], f.out_coords
    if f.loss:  # an element's feeling of itself is the sum of its terms: look at what it feels of the others
        there &= np.any(coords[:, None] != columns[None], axis=2)
    same, gone = np.abs(f.own - f.jac) <= 2 * tol, np.abs(f.own) <= 2 * tol
    if f.loss:
        same, gone = same | ~there, gone | ~there
    if not np.all(same | gone) or not np.any(there & gone) or not np.any(there & same):
        return None
    lost, kept = there & gone, there & same & ~gone
    rows = np.any(lost, axis=1)
    if not f.loss and f.y.ndim == 4 and np.all(_pixels(f, kept[rows]) == 1):
        return (
            "overwritten",
            f"where several of dy's pixels meet only one counts ({np.count_nonzero(rows)} elements)",
            _OVERWRITE_HINT,
        )
    if f.loss and border(f):
        return border(f)
    classes = _classes(coords, columns, there, f)
    whole = [c for c in classes if np.any(lost[c])]
    if all(not np.any(kept[c]) for c in whole):
        words = "; ".join(
            dict.fromkeys(
                classes_words for classes_words in [_class_words(f, coords, columns, c) for c in whole[:2]]
            )
        )
        kind = "missing-term" if f.loss else "missing-sum"
        return (
            kind,
            f"whole shares are missing, the others exact: {words}",
            "Every way by which it reaches the output adds its share",
        )
    if np.any(kept[rows]) and np.all(np.any(kept[rows], axis=1)):
        counts = f"{np.count_nonzero(lost)} of {np.count_nonzero(there)}"
        evidence = f"where {_shares(f)} meet only some stay: {counts} are lost, each beside one that stays"
        return "overwritten", evidence, _OVERWRITE_HINT
    return None


def _pixels(f, entries):
    """How many output pixels each row of `entries` has a share from."""
    return np.any(entries.reshape(len(entries), -1, f.y.shape[-1]), axis=2).sum(axis=1)


def _shares(f):
    return "several terms" if f.loss else "several of dy's shares"


def _classes(coords, columns, there, f):
    """Entries of J by the way from the output's pixel to the input's: one mask a way."""
    if f.x.ndim != 4 or f.column_axes[:1] != ("N",) or f.axes[0] != "N" or len(columns[0]) != 4:
        return []
    down = coords[:, None, 1] - columns[None, :, 1] * _stride(f, 1)
    across = coords[:, None, 2] - columns[None, :, 2] * _stride(f, 2)
    ways = {(int(a), int(b)) for a, b in zip(down[there], across[there], strict=True)}
    return [there & (down == a) & (across == b) for a, b in sorted(ways)]


def _stride(f, k):
    return 1 if f.loss else max(1, round(f.x.shape[k] / f.y.shape[k]))


def ways(f):
    """Each way from dy to the input has a factor of its own: a sign that is wrong for one neighbour, a doubled direction."""
    if f.own is None or f.jac is None:
        return None
    coords, columns = f.coords[f.matrix_rows], f.out_coords
    tol = (1e-4 if f.loss else f.tol) * np.max(np.abs(f.jac))
    others = np.any(coords[:, None] != columns[None], axis=2) if f.loss else np.ones(f.jac.shape, bool)
    there = others & (np.abs(f.jac) > 10 * tol)
    if np.any(np.abs(f.own[others & ~there]) > 20 * tol):
        return None
    off = []
    for c in _classes(coords, columns, there, f):
        r = f.own[c] / f.jac[c]
        if np.ptp(r) > 1e-3 * np.max(np.abs(r)):
            return None
        if abs(r[0] - 1) > 1e-3:
            factor = told_factor(f, round(float(np.median(r)), 4))
            off.append(f"{_class_words(f, coords, columns, c)} are {factor} times what they should be")
    if not off or not any(np.any(f.own[c]) for c in _classes(coords, columns, there, f)):
        return None
    return "scaled", f"of the shares that meet {'; '.join(off[:2])}", "A sign or a factor of one term alone"


def _class_words(f, coords, columns, mask):
    i, j = np.argwhere(mask)[0]
    down, across = (int(coords[i, k] - columns[j, k] * _stride(f, k)) for k in (1, 2))
    return f"those from {-down:+d} along H and {-across:+d} along W"


def mask(f):
    """Of a ReLU or a maximum: dy gets through where it should not, or the wrong element gets it."""
    if f.loss or f.own is None or f.linear:
        return None
    top = np.max(np.abs(f.jac))
    shut, shut_b = (np.max(np.abs(m), axis=0) <= f.tol * top for m in (f.jac, f.own))
    off = np.max(np.abs(f.own - f.jac), axis=0) > 2 * f.tol * top
    extra, dropped = off & shut & ~shut_b, off & ~shut & shut_b
    hint = "Let dy through where the forward pass let x through: x > 0, or the largest of the window"
    if np.array_equal(off, extra | dropped) and np.any(off):
        evidence = f"dy gets through at {np.count_nonzero(extra)} of {np.count_nonzero(shut)} places where forward is flat"
        if np.any(dropped):
            evidence += f", and is stopped at {np.count_nonzero(dropped)} of {np.count_nonzero(~shut)} where it is not"
        return "wrong-mask", evidence, hint
    differs = np.abs(f.own - f.jac) > 2 * f.tol * top
    nothing, nothing_b = np.abs(f.jac) <= f.tol * top, np.abs(f.own) <= f.tol * top
    if not f.curved and np.all(nothing[differs] ^ nothing_b[differs]) and np.any(differs & nothing):
        evidence = f"dy gets through by {np.count_nonzero(differs & nothing)} ways that are shut in forward"
        stopped = np.count_nonzero(differs & nothing_b)
        evidence += f", and is stopped on {stopped} that are open" if stopped else "; all else is exact"
        return "wrong-mask", evidence, hint
    elsewhere = None if f.curved else f.again(f.replaced(f.name, lambda x: x[::-1] * 3))
    if elsewhere is not None and f.same(elsewhere, f.analytic):
        return (
            "wrong-mask",
            f"forward bends in {f.name}, but backward is the same wherever {f.name} is: no mask is in it",
            hint,
        )
    ones = np.unique(np.round(f.jac[np.abs(f.jac) > f.tol * top] / top, 5))
    if len(ones) == 1:  # forward picks: each output is one of the inputs
        went = np.count_nonzero(off)
        many = np.count_nonzero(np.count_nonzero(np.abs(f.own) > f.tol * top, axis=0) > 1)
        how = f"in {many} of them to more than one" if many else "to another one"
        return (
            "wrong-mask",
            f"forward picks one element for each output; dy goes wrong at {went} outputs, {how}",
            hint,
        )
    q = _proportion(f.own.T, f.jac.T, f.tol)
    if q is not None and f.x.shape == f.y.shape:
        side = f.x.ravel() > 0
        for s, word in ((side, "positive"), (~side, "negative")):
            here = q[s & ~np.isnan(q)]
            rest = q[~s & ~np.isnan(q)]
            if (
                len(here)
                and len(rest)
                and np.ptp(here) < 1e-5
                and np.allclose(rest, 1, atol=1e-5)
                and abs(here[0] - 1) > 1e-5
            ):
                return (
                    "wrong-mask",
                    f"where x is {word}, the slope is {here[0]:.4g} times what it should be",
                    hint,
                )
    return None


def border(f):
    """The interior is exact."""
    if not f.fits or f.x.ndim < 2:
        return None
    wrong = np.abs(f.a - f.n) > 2 * f.tol * np.max(np.abs(f.n))
    edge = edge_words(f.coords, wrong, f.x.shape, f.axes)
    inside = np.any(np.abs(f.n[~wrong]) > 1e-3 * np.max(np.abs(f.n)))
    if edge and inside:
        return "border", f"the error is in {edge}, the interior is exact", BORDER_HINT
    if not f.loss and f.own is not None:
        top = np.max(np.abs(f.jac))
        edge = edge_words(
            f.out_coords, np.max(np.abs(f.own - f.jac), axis=0) > 2 * f.tol * top, f.y.shape, f.out_axes
        )
        if edge:
            return "border", f"what comes back from {edge} of dy is wrong, all else is exact", BORDER_HINT
    return None


def reordered(f):
    """dy's elements in another order (a reshape with the wrong axes), whatever it is."""
    if f.loss or f.own is None or not f.whole or f.own.shape[1] > 2000:
        return None
    top = np.max(np.abs(f.jac))
    keys = [sorted(map(tuple, np.round(m.T / top, 4) + 0.0)) for m in (f.jac, f.own)]
    if keys[0] == keys[1]:
        evidence = "every element of dy has the right effect, but in another's place"
        return "transposed", evidence, "A reshape or transpose with the axes in the wrong order"
    return None
