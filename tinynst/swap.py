"""Your own functions in place of the library's: `tinynst.use("lessons/exercises")`.

Each exercise file that passes its check replaces the library's functions of the same names in every module
that uses them: VGG, the networks, the losses and training run on your code. `use(None)` undoes it.
"""

import ast
import functools
import inspect
import linecache
import re
import sys
from pathlib import Path

from . import exercises, layers, losses, ops, optim
from .data.files import written_whole
from .errors import UserError
from .gradcheck.grade import check, grades, load

_replaced = []  # (the library's object, yours)


def use(folder):
    """Use what passes its check in `folder` (None: the library again); print what was taken and what was not.

    Returns the names that run on your code now. Raises UserError where there is no such folder.
    """
    while _replaced:
        original, mine = _replaced.pop()
        _replace(mine, original)
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is not a folder: name the one that holds your exercises")
    found = {}
    for path in sorted(Path(folder).glob("*.py")):
        passed = {grade.name: grade.passed for grade in grades(path)}
        found |= {name: pair for name, pair in load(path).items() if passed[name]}
        for name in passed.keys() - found.keys():
            reason = (
                "not yet written" if passed[name] is None else f"wrong: tinynst gradcheck {path} says how"
            )
            print(f"the library's {name} stays ({reason})")
    for name, pair in found.items():  # after all are graded, because grading uses the library's
        _put_in(name, *pair)
    print(f"on your code: {', '.join(found) or 'nothing yet'}")
    return list(found)


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
        pairs = zip(
            (getattr(ops, name), getattr(ops, f"{name}_backward")), _operation(forward, backward), strict=True
        )
    for original, mine in pairs:
        _replace(original, mine)
        _replaced.append((original, mine))


def _replace(old, new):
    """Put `new` where a module holds `old`; not in ops/ and gradcheck, which compare with it."""
    for name, module in list(sys.modules.items()):
        inside = name == "tinynst" or name.startswith("tinynst.")
        if inside and not name.startswith(("tinynst.ops.", "tinynst.gradcheck", "tinynst.swap")):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def _operation(forward, backward):
    """The pair with the keywords that an exercise does not have: `relu`, a ReLU in the same call; `memo`,
    which is not needed; `need`, which gradients are used."""
    known = inspect.signature(forward).parameters

    @functools.wraps(forward)
    def mine(*arrays, relu=False, memo=None, **options):
        y, cache = forward(*arrays, **{key: value for key, value in options.items() if key in known})
        if relu:
            y = y * (y > 0)
        return y, (cache, y if relu else None)

    @functools.wraps(backward)
    def mine_backward(dy, cache, need=("x", "w")):
        cache, y = cache
        gradients = backward(dy if y is None else dy * (y > 0), cache)
        return tuple(gradients) if isinstance(gradients, tuple | list) else (gradients,)

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
    """A layer that keeps the library's names of parameters and walks through your forward and backward."""

    class Residual(layers.Residual):
        def __init__(self, layers, crop=0):
            super().__init__(layers, crop)
            self.mine = block(layers, crop)

        def forward(self, x, training=False, mix=None):
            return self.mine.forward(x, training) if mix is None else super().forward(x, training, mix)

        def backward(self, dy, need=("x", "w")):
            return self.mine.backward(dy)

    return Residual


def _adam(optimizer):
    """Your optimiser with the library's `rates`: parameters with another rate get an Adam of their own."""

    class Adam(optim.Adam):
        def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
            super().__init__(parameters, lr, betas, eps)
            self.mine = None

        def step(self, gradients):
            if self.mine is None:  # not before the shares of the rate are known
                shares = {name: self.rates.get(name, 1.0) for name in self.parameters}
                groups = {share: [n for n in shares if shares[n] == share] for share in shares.values()}
                parts = {share: {n: self.parameters[n] for n in names} for share, names in groups.items()}
                self.mine = {
                    share: optimizer(part, self.lr, self.betas, self.eps) for share, part in parts.items()
                }
                self.names = groups
            for share, mine in self.mine.items():
                mine.lr = share * self.lr
                mine.step({name: gradients[name] for name in self.names[share]})
            self.t += 1

    return Adam
