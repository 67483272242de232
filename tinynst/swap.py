"""Your own functions in place of the library's: `tinynst.use("lessons/exercises")`, `tinynst train --ops`.

Each exercise file that passes its check replaces the library's functions of the same names in every module
that uses them: VGG, the networks, the losses and training run on your code. `use(None)` undoes it.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import linecache
import re
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from . import exercises, layers, losses, ops, optim
from .data.files import written_whole
from .device import array_module, to_numpy
from .errors import UserError
from .gradcheck.cases import LOSSES, OPERATIONS, draw
from .gradcheck.grade import NAMES, check, grades, load

SLOW = 10  # a function that takes so many times as long as the library's on a small image is named
FUSED = ("conv2d", "batch_norm", "instance_norm", "conditional_instance_norm")  # with a ReLU in the same call

_replaced = []  # (the library's object, yours)
_graded = {}  # {(file, texts of its folder): (functions, grades)}, because a check takes seconds


def use(folder, xp=np):
    """Use what passes its check in `folder` (None: the library again); print what was taken, and what was not
    and why. xp: the array module that the check runs on.

    Returns the names that run on your code now. Raises UserError where there is no such folder.
    """
    _take_out()
    return list(_use(folder, xp)) if folder is not None else []


@contextlib.contextmanager
def using(folder, xp=np):
    """`use(folder)` for a with block; afterwards everything is as before. Yields {name: digest of its file}.
    Raises UserError as `use` does, and for what your code raises in the block, with its line."""
    before = _take_out()
    try:
        yield _use(folder, xp)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [f for f in frames if Path(f.filename).resolve().parent == Path(folder).resolve()]
        if not mine:
            raise
        where = f"{mine[-1].filename}, line {mine[-1].lineno}: {mine[-1].line}"
        raise UserError(f"--ops: {type(error).__name__}: {error} ({where})") from error
    finally:
        _take_out()
        for pair in before:
            _replace(*pair)


def _take_out():
    """Bring the library's functions back; return the pairs that were replaced."""
    before = _replaced.copy()
    while _replaced:
        original, mine = _replaced.pop()
        _exchange(mine, original)
    return before


def _use(folder, xp):
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is not a folder: name the one that holds your exercises")
    found, digests, notes, known = {}, {}, [], set()
    texts = {path.resolve(): path.read_bytes() for path in sorted(Path(folder).glob("*.py"))}
    for path, text in texts.items():
        key = xp, path, *texts.values()
        try:
            if key not in _graded:
                _graded[key] = load(path), list(grades(path, xp=xp))
            pairs, results = _graded[key]
        except UserError as error:
            if "has nothing to check" not in str(error):
                print(f"not used: {error}")
            continue
        for grade in results:
            name, reason, slow = grade.name, _reason(grade), 1
            known.add(name)
            if reason is None:
                reason, slow = _tried(name, pairs[name][0], xp)
            if reason:
                print(f"{name} stays the library's: {reason} ({path.name})")
                continue
            found[name], digests[name] = pairs[name], hashlib.sha256(text).hexdigest()
            note = f" ({slow:.0f} times slower than the library's on a small image)" if slow > SLOW else ""
            notes.append(name + note)
    for name, pair in found.items():  # after all are graded, because grading uses the library's
        _put_in(name, *pair)
    if "instance_norm" in found and "conditional_instance_norm" not in found:
        _put_in("conditional_instance_norm", *_conditional(*found["instance_norm"]))
        known.add("conditional_instance_norm")
    if "relu" in found:  # also where the library has it in the same call as another operation
        for name in [name for name in FUSED if getattr(ops, name) not in [mine for _, mine in _replaced]]:
            _put_in(name, getattr(ops, name), getattr(ops, f"{name}_backward"))
    if missing := [name for name in NAMES if name not in known]:
        print(f"the library's, because {Path(folder).name} does not have them: {', '.join(missing)}")
    print(f"on your code: {', '.join(notes) or 'nothing yet'}")
    return digests


def _reason(grade):
    """Why a function is not used, in one line; None if it is right."""
    if grade.passed:
        return None
    if grade.passed is None:
        return "not yet written"
    if grade.report and grade.report.diagnoses:
        first = grade.report.diagnoses[0]
        return f"wrong, {first.cause} ({first.gradient})"
    said = grade.text.splitlines()[0].rpartition("FAIL: ")[2]
    return f"it raises {said}" if re.match(r"\w+: ", said) else f"wrong, {said}"


def _tried(name, forward, xp):
    """Try a forward that passes its check in float32, on a larger image with numbers far from zero. Returns
    (why it is not used, or None; how many times as long as the library's it takes)."""
    rows = {**OPERATIONS, **LOSSES}
    if name not in rows:  # Residual and Adam do not compute much themselves
        return None, 1
    shapes, options = rows[name][0]
    shapes = {k: (1, 16, 16, v[3]) if len(v) == 4 and k != "w" else v for k, v in shapes.items()}
    arrays = {k: a.astype(np.float32) for k, a in draw(shapes, np.random.default_rng(0), xp).items()}
    arrays[next(iter(arrays))] += 1000
    results, seconds, library = [], [], getattr(losses if name in LOSSES else ops, name)
    for function in (library, library, forward):  # the first call prepares
        begin = time.process_time()  # other programs do not count
        try:
            results.append(np.asarray(to_numpy(function(**arrays, **options)[0])))
        except Exception as error:
            return f"it raises {type(error).__name__} on a larger image: {error}", 1
        seconds.append(time.process_time() - begin)
    *_, right, mine = results
    if mine.shape != right.shape:
        return f"wrong on a larger image: its shape is {mine.shape}, it should be {right.shape}", 1
    if not abs(mine - right).max() <= 1e-2 * abs(right).max():
        what = "it loses its digits in float32 where numbers are far from zero"
        return f"{what} (here 1000): it gives {mine.flat[0]:g}, the right one {right.flat[0]:g}", 1
    return None, seconds[2] / max(seconds[1], 1e-6)


def save(name, *functions, folder=exercises.STUBS):
    """Write what you solved in a notebook to its exercise's file, if it passes; return the file's Grade.

        save("conv2d", conv2d, conv2d_backward)     # lessons/exercises/conv.py

    The file gets `import numpy as np` and the text of the functions, or of the class, with the functions of
    the same notebook that they call. Other imports belong inside them. What does not pass is not written.
    """
    grade = check(name, *functions)
    if not grade.passed:
        print(f"not saved, because it does not pass yet: {name}")
        return grade
    wanted = (name, f"{name}_backward")[: len(functions)]
    renamed = [
        f"{wish} = {function.__name__}\n"
        for wish, function in zip(wanted, functions, strict=True)
        if wish != function.__name__
    ]
    parts = ["import numpy as np  # noqa: F401\n", *map(_source, _with_helpers(functions)), *renamed]
    stub = re.compile(rf"^(def|class) {name}\b|^{name} = ", re.MULTILINE)
    files = sorted(Path(folder).glob("*.py"))
    path = next((each for each in files if stub.search(each.read_text(encoding="utf-8"))), None)
    path = path or Path(folder) / f"{name}.py"
    with written_whole(path) as temporary:
        temporary.write_text(
            f'"""{name}, saved from a notebook."""\n\n' + "\n\n".join(parts), encoding="utf-8"
        )
        (grade,) = (each for each in grades(temporary) if each.name == name)
        if not grade.passed:
            raise UserError(
                f"{name} passes here and not in a file of its own, so it is not saved: {grade.text}"
            )
    print(f"saved: {path}")
    return grade


def _with_helpers(functions):
    """`functions`, and before them the functions of the same module that they call."""
    found = []
    for function in functions:
        methods = [m for m in vars(function).values() if inspect.isfunction(m)] or [function]
        names = {name for method in methods for name in method.__code__.co_names}
        known = methods[0].__globals__
        called = [known[name] for name in sorted(names) if inspect.isfunction(known.get(name))]
        called = [each for each in called if each.__module__ == function.__module__]
        fresh = [each for each in called if each not in (*functions, *found)]
        found += [each for each in _with_helpers(fresh) if each not in found]
    return [*found, *functions]


def _source(function):
    """The text of a function or class, whether a file or a notebook's cell defines it."""
    methods = [each for each in vars(function).values() if inspect.isfunction(each)]
    code = (methods[0] if inspect.isclass(function) else function).__code__
    text = "".join(linecache.getlines(code.co_filename))
    kinds = ast.FunctionDef | ast.ClassDef
    found = [n for n in ast.walk(ast.parse(text)) if isinstance(n, kinds) and n.name == function.__name__]
    if not found:
        raise UserError(
            f"{function.__name__} has no source text: define it with def or class, and run that cell again"
        )
    lines = text.splitlines()[found[-1].lineno - 1 : found[-1].end_lineno]
    return inspect.cleandoc("\n" + "\n".join(lines)) + "\n"


def _put_in(name, forward, backward):
    if name == "Residual":
        pairs = [(layers.Residual, _residual(forward))]
    elif name == "Adam":
        pairs = [(optim.Adam, _adam(forward))]
    elif backward is None:
        pairs = [(getattr(losses, name), _loss(forward))]
    else:
        library = getattr(ops, name), getattr(ops, f"{name}_backward")
        pairs = list(zip(library, _operation(name, forward, backward), strict=True))
    for original, mine in pairs:
        _replace(original, mine)


def _replace(original, mine):
    _exchange(original, mine)
    _replaced.append((original, mine))


def _exchange(old, new):
    """Put `new` where a module holds `old`; not in ops/ and gradcheck, which compare with it."""
    for name, module in list(sys.modules.items()):
        inside = name == "tinynst" or name.startswith("tinynst.")
        if inside and not name.startswith(("tinynst.ops.", "tinynst.gradcheck", "tinynst.swap")):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def _operation(name, forward, backward):
    """The pair with the keywords that an exercise does not have: `relu`, a ReLU in the same call; `memo`,
    which is not needed; `need`, which gradients are used."""
    known, selective = inspect.signature(forward).parameters, "need" in inspect.signature(backward).parameters

    @functools.wraps(forward)
    def mine(*arrays, relu=False, **options):
        y, cache = forward(*arrays, **{key: value for key, value in options.items() if key in known})
        _check_dtype(f"y of your {name}", y, [*arrays, *options.values()][0])
        y, mask = ops.relu(y) if relu else (y, None)
        return y, (cache, relu, mask)

    @functools.wraps(backward)
    def mine_backward(dy, cache, need=("x", "w")):
        cache, relu, mask = cache
        if relu:
            (dy,) = _as_tuple(ops.relu_backward(dy, mask))
        gradients = _as_tuple(backward(dy, cache, **({"need": need} if selective else {})))
        for gradient in gradients:
            _check_dtype(f"a gradient of your {name}", gradient, dy)
        return gradients

    return mine, mine_backward


def _check_dtype(what, array, like):
    """The check of a file sees one case in float32; a net may use another."""
    if array is not None and array.dtype != like.dtype:
        advice = "make new arrays in x's dtype: np.zeros(shape, x.dtype), np.zeros_like(x)"
        raise UserError(f"{what} is {array.dtype} where the net is {like.dtype}: {advice}")


def _as_tuple(gradients):
    return tuple(gradients) if isinstance(gradients, tuple | list) else (gradients,)


def _conditional(forward, backward):
    """Conditional instance norm: your instance norm of each image, with the gamma and beta of its mixture."""

    def mine(x, gamma, beta, mix, eps=1e-5):
        each = [forward(x[n : n + 1], mix[n] @ gamma, mix[n] @ beta, eps) for n in range(len(x))]
        y = array_module(x).concatenate([y for y, _ in each])
        return y, ([cache for _, cache in each], gamma, beta, mix)

    def mine_backward(dy, cache):
        caches, gamma, beta, mix = cache
        each = [backward(dy[n : n + 1], cache) for n, cache in enumerate(caches)]
        dx, dgamma, dbeta = (array_module(dy).stack(gradients) for gradients in zip(*each, strict=True))
        return dx[:, 0], mix.T @ dgamma, mix.T @ dbeta, dgamma @ gamma.T + dbeta @ beta.T

    return mine, mine_backward


def _loss(function):
    """A loss with the `weight` that the library multiplies value and gradient by."""

    @functools.wraps(function)
    def mine(*arrays, weight=1.0):
        *arrays, weight = (
            arrays if len(arrays) > len(inspect.signature(function).parameters) else (*arrays, weight)
        )
        value, gradient = function(*arrays)
        return weight * float(value), gradient * gradient.dtype.type(weight)

    return mine


def _residual(block):
    """A layer that keeps the library's names of parameters and walks through your forward and backward. The
    layers that your block sees know which mixture of styles is asked for."""

    class Inner:
        def __init__(self, layer, outer):
            self.layer, self.outer = layer, outer

        def forward(self, x, training=False):
            more = (self.outer.mix,) if self.layer.conditional else ()
            return self.layer.forward(x, training, *more)

        def __getattr__(self, name):
            return getattr(self.layer, name)

    class Residual(layers.Residual):
        def __init__(self, layers, crop=0):
            super().__init__(layers, crop)
            self.mix = None
            self.mine = block({name: Inner(each, self) for name, each in layers.items()}, crop)

        def forward(self, x, training=False, mix=None):
            self.mix = mix
            return self.mine.forward(x, training)

        def backward(self, dy, need=("x", "w")):
            return self.mine.backward(dy)

    return Residual


def _adam(optimizer):
    """Your optimiser with the library's `rates`: parameters with another rate get an Adam of their own."""

    class Adam(optim.Adam):
        def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
            super().__init__(parameters, lr, betas, eps)
            self.parts = None

        def _parts(self):
            """{share of the rate: your Adam for the parameters with it}; not before the shares are known."""
            if self.parts is None:
                shares = {name: self.rates.get(name, 1.0) for name in self.parameters}
                self.parts = {}
                for share in dict.fromkeys(shares.values()):
                    part = {name: p for name, p in self.parameters.items() if shares[name] == share}
                    self.parts[share] = optimizer(part, self.lr, self.betas, self.eps), part
            return self.parts

        def step(self, gradients):
            for share, (mine, part) in self._parts().items():
                mine.lr = share * self.lr
                mine.step({name: gradients[name] for name in part})
            self.t += 1

        def _numbers(self):
            for share, (mine, part) in self._parts().items():
                yield from _numbers(vars(mine), {id(p) for p in part.values()}, f"{share}.")

        def state(self):
            held = {place: holder[key] for place, holder, key in self._numbers()}
            arrays = {p: v if hasattr(v, "shape") else np.array(v) for p, v in held.items()}
            return {"yours": arrays}, self.t

        def load(self, moments, t):
            for mine, part in self._parts().values():  # a step of zero makes what your step makes
                mine.step({name: 0 * p for name, p in part.items()})
            for place, holder, key in self._numbers():
                now, saved = holder[key], moments["yours"][place]
                number = isinstance(now, int | float | np.generic)
                holder[key] = type(now)(saved) if number else array_module(now).asarray(saved)
            self.t = t

    return Adam


def _numbers(holder, known, place=""):
    """Yield (place, holder, key) of each number and array in a dict or list, and in those inside, but for
    the arrays whose ids are `known`: all that an optimiser keeps from step to step."""
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        if isinstance(value, dict | list):
            yield from _numbers(value, known, f"{place}{key}.")
        elif isinstance(value, int | float) or (hasattr(value, "dtype") and id(value) not in known):
            yield f"{place}{key}", holder, key
