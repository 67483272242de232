"""Grades what a learner wrote: the forward against the library's, then each gradient, one mistake at a time.

Whatever their code does (raise, print, return nonsense, run for ever), the grade says so in a few lines.
"""

import contextlib
import difflib
import html
import importlib.util
import inspect
import io
import linecache
import signal
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import layers, losses, ops, optim
from ..device import asarray, to_numpy
from ..errors import UserError
from .cases import IMAGE, LOSSES, OPERATIONS, draw, layer_case, operation_case, residual_parts
from .report import Diagnosis, Report, axis_names, heat_map, wrapped
from .slips import edge, factor_name, moves, shape_notes

LIMIT = 10  # seconds that one call may take on these small images
PATIENCE = 8  # seconds without a word
ALONE = (*LOSSES, "Residual", "Adam")  # these have no function ..._backward next to them
FIRST = ("relu", "scaled_tanh", *list(LOSSES)[:4], "gram_matrix", "style_loss")
NAMES = tuple(dict.fromkeys((*FIRST, *OPERATIONS, "Residual", "Adam")))  # easiest first
ADAM = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}


@dataclass(frozen=True, repr=False)
class Grade:
    """What became of one operation: `passed` True, False, or None while it is not yet written.

    text     for the learner
    report   the gradients' Report, where it came that far and something is wrong
    """

    name: str
    passed: bool | None
    text: str
    report: Report | None = None

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        return self.report._repr_html_() if self.report else f"<pre>{html.escape(self.text)}</pre>"


class Fault(Exception):
    """Something in the learner's result is wrong; the arguments are lines that say what, or a Report."""


class TimeUp(BaseException):
    """A call has run too long. Not an Exception: `except Exception` in a loop lets it through."""


def check(name, forward, backward=None, seed=0):
    """Grade functions from a notebook: check("relu", my_relu, my_relu_backward). Returns a Grade.

    `name` is an operation of tinynst.ops, a loss of tinynst.losses (which returns value and gradient: no
    backward), or "Residual" or "Adam" with a class. Raises ValueError for another name.
    """
    missing = _missing(name, forward, backward)
    if missing:
        raise ValueError(missing)
    path = getattr(getattr(forward, "__code__", None), "co_filename", ".")
    return _grade(name, forward, backward, seed, np, path)


def _missing(name, forward, backward):
    """What is missing to grade `name`, in words; None where nothing is."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1) or [f"one of {', '.join(NAMES)}"]
        return f"there is no operation {name!r}; did you mean {near[0]}?"
    if forward is None:
        return f"{name}: {name}_backward is there but no {name}"
    if backward is None and name not in ALONE:
        return f"{name}: {name} is there but no {name}_backward"
    return None


def _grade(name, forward, backward, seed, xp, path):
    """The Grade of one name, whatever the code raises."""
    printed, watch = io.StringIO(), Watch(name, Path(path))
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            grade = Grade(name, True, "\n".join(watch.grade(forward, backward, seed, xp)))
        except Fault as fault:
            report = next((a for a in fault.args if isinstance(a, Report)), None)
            grade = Grade(name, False, "\n".join(a for a in fault.args if isinstance(a, str)), report)
        except (Exception, SystemExit, TimeUp) as error:
            if not getattr(error, "of_the_learner", False):
                raise
            grade = _raised(watch, error)
    lines = printed.getvalue().splitlines()
    if lines:
        text = "\n    ".join([f"{watch.path.name} printed {len(lines)} lines; the first:", *lines[:4]])
        grade = replace(grade, text=f"{grade.text}\n{text:.500}")
    return grade


def _raised(watch, error):
    """The grade of what the learner's code raised, with the last line of theirs that it came through."""
    frames = [(f.f_code, number) for f, number in traceback.walk_tb(error.__traceback__)]
    frames = [(code, number) for code, number in frames if _same_file(code.co_filename, watch.path)]
    function = frames[-1][0].co_qualname if frames else watch.name
    if isinstance(error, NotImplementedError):
        return Grade(watch.name, None, f"{function}: not yet written")
    text = f"{watch.case}: FAIL: {error if isinstance(error, TimeUp) else _told(error, watch.path)}"
    if frames:
        line = linecache.getline(frames[-1][0].co_filename, frames[-1][1]).strip()
        text += f"\n    in {function}:  {line}"
    return Grade(watch.name, False, text)


def _same_file(name, path):
    return name == str(path) or Path(name).resolve() == path.resolve()


def _told(error, path):
    """An exception in one line, with the last line of the learner's file that it came through."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if _same_file(f.filename, path)]
    text = str(error)
    if isinstance(error, SyntaxError):
        lines, text = [error.lineno], f"{error.msg}: {(error.text or '').strip()}"
    return f"{type(error).__name__}: {text}" + (f" (line {lines[-1]})" if lines else "")


@contextlib.contextmanager
def bounded(what, path, size=""):
    """Raise TimeUp, with the line that runs, after LIMIT seconds. In a thread there is no limit."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        while frame and not _same_file(frame.f_code.co_filename, path):
            frame = frame.f_back
        raise TimeUp(f"{what} has run for {LIMIT} s{size}" + (f", at line {frame.f_lineno}" if frame else ""))

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 0.05)  # again and again, for a loop that catches everything
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Watch:
    """Grades one operation: runs a learner's functions within bounds and reports progress."""

    def __init__(self, name, path):
        self.name, self.path, self.case = name, path, name
        self.started = self.spoken = time.monotonic()

    def run(self, what, function, *arguments, **options):
        """Call a learner's function. What it raises is marked; anything else is a mistake of ours."""
        if time.monotonic() - self.spoken > PATIENCE:
            self.spoken = time.monotonic()
            passed = self.spoken - self.started
            print(f"{self.case}: still checking, {passed:.0f} s so far", file=sys.stderr, flush=True)
        x = next((a for a in (*arguments, *options.values()) if getattr(a, "ndim", 0) == 4), None)
        size = "" if x is None else f" on a {x.shape[1]}x{x.shape[2]} image"
        try:
            with bounded(what, self.path, size):
                return function(*arguments, **options)
        except (Exception, SystemExit, TimeUp) as error:
            error.of_the_learner = True
            raise

    def array(self, what, value):
        array = value if value is None or hasattr(value, "dtype") else np.asarray(value)
        if array is None or array.dtype.kind not in "fciub":
            self.fail([f"{what} is of type {type(value).__name__}; it should be an array of floats"])
        return array

    def forward(self, function, *arguments, **options):
        """The learner's forward or loss, with what it returns checked."""
        loss, result = self.name in LOSSES, self.run(self.name, function, *arguments, **options)
        if not isinstance(result, tuple) or len(result) != 2:
            kind = "(value, gradient)" if loss else "(y, cache)"
            self.fail([f"{self.name} must return {kind}, it returns {type(result).__name__}"])
        y = self.array(f"{self.name}'s {'value' if loss else 'y'}", result[0])
        return y, self.array(f"{self.name}'s gradient", result[1]) if loss else result[1]

    def backward(self, function, dy, cache):
        what = f"{self.name}_backward"
        result = self.run(what, function, dy, cache)
        gradients = result if isinstance(result, (tuple, list)) else (result,)
        named = ((f"{what}'s result {k}", g) for k, g in enumerate(gradients))
        return tuple(g if g is None else self.array(words, g) for words, g in named)

    def fail(self, lines):
        if lines:
            rest = [text for line in lines[1:] for text in wrapped(line)]
            raise Fault(f"{self.case}: FAIL: {lines[0]}", *rest)

    def grade(self, forward, backward, seed, xp):
        """Lines about what is right. Raises Fault for what is not."""
        if self.name == "Adam":
            pairs = ((ADAM[0], ADAM[0]), (ADAM[1], {}))
            return [self.adam(forward, settings, given, seed, xp) for settings, given in pairs]
        rows, lines = {**OPERATIONS, **LOSSES}.get(self.name, ()), []
        if self.name == "Residual":
            cases = [self.residual(forward, pad, crop, seed, xp) for pad, crop in ((1, 0), (0, 2))]
        else:
            own = lambda *a, **o: self.forward(forward, *a, **o)  # noqa: E731
            back = None if backward is None else lambda dy, cache: self.backward(backward, dy, cache)
            cases = [operation_case(self.name, own, back, *row) for row in rows]
            for case, row in zip(cases, rows, strict=True):  # every forward comes first
                self.case = f"{case.name} ({case.label})"
                self.right_forward(own, *row, seed, xp)
        for case in cases:
            self.case = f"{case.name} ({case.label})"
            report = case.check(seed, xp, seconds=4 * PATIENCE / 3)
            if report.passed is not True:
                if self.name == "Residual" and not lines:
                    self.walked_forward(forward, report)
                raise Fault(*_one_at_a_time(report, len(lines), len(cases)), report)
            lines.append(report.line(self.name, case.label))
        if rows:
            self.stays_float32(own, back, *rows[0], seed, xp)
        return lines

    def right_forward(self, forward, shapes, options, seed, xp):
        """Compare y (or the loss) and the running statistics with the library's."""
        start = draw(shapes, np.random.default_rng(seed))
        mine, right = ({key: array.copy() for key, array in start.items()} for _ in range(2))
        mine = {key: asarray(array, xp) for key, array in mine.items()}
        library = getattr(losses if self.name in LOSSES else ops, self.name)
        y, own = np.asarray(library(**right, **options)[0]), to_numpy(forward(**mine, **options)[0])
        sizes = dict(zip("NHWC", next(iter(shapes.values())), strict=True))
        what = "value" if self.name in LOSSES else "y"
        self.fail(explain(what, own, y, alternatives(library, start, options), sizes))
        for key in (key for key in start if key.startswith("running_")):
            slip = f"when it stays as it was: `{key} = ...` makes a new array, use `{key}[...] = ...`"
            lines = explain(f"{key} after the forward", to_numpy(mine[key]), right[key], [(slip, start[key])])
            self.fail(lines)

    def stays_float32(self, forward, backward, shapes, options, seed, xp):
        """A net trains in float32: with float32 in, float64 out would stop the library's next operation."""
        own = {key: a.astype(np.float32) for key, a in draw(shapes, np.random.default_rng(seed), xp).items()}
        y, cache = forward(**own, **options)
        results = [(f"{self.name}'s {'y' if backward else 'gradient'}", y if backward else cache)]
        gradients = backward(xp.ones_like(y, np.float32), cache) if backward else ()
        results += [(f"{self.name}_backward's result {k}", g) for k, g in enumerate(gradients)]
        for what, array in results:
            if array is not None and array.dtype != np.float32:
                what = f"{what} is {array.dtype} where x is float32: a net could not train with it"
                self.fail([what, "make new arrays in x's dtype: np.zeros(shape, x.dtype), np.zeros_like(x)"])

    def residual(self, kind, pad, crop, seed, xp):
        """Compare a learner's block with the library's, and return the Case that checks its gradients."""
        label = f"x {'x'.join(map(str, IMAGE))}, crop={crop}"
        self.case = f"Residual ({label})"
        x = asarray(np.random.default_rng(seed).standard_normal(IMAGE), xp)
        through = to_numpy(layers.Sequential(residual_parts(xp, pad)).forward(x, training=False))
        inner = to_numpy(ops.center_crop(x, crop)[0])
        mine = to_numpy(_Block(self, kind, pad, crop, xp).forward(x))
        slips = [("without the identity: y = layers(x)", through), ("without the layers: y = x", inner)]
        self.fail(explain("y", mine, through + inner, slips))
        return layer_case("Residual", label, lambda xp: _Block(self, kind, pad, crop, xp))

    def walked_forward(self, kind, report):
        """Name what only this exercise can know: a backward that walks the layers in forward order."""
        x, dy = np.random.default_rng(1).standard_normal((2, *IMAGE))
        block, parts = _Block(self, kind, 1, 0, np), residual_parts(np, 1)
        block.forward(x)
        layers.Sequential(parts).forward(x, training=True)
        dx = dy
        for layer in parts.values():
            dx = layer.backward(dx)
        if not explain("dx", block.backward(dy.copy()), dx + dy):
            words = "exactly this comes out when the layers' backward is called in forward order"
            advice = "The last layer's backward comes first: for layer in reversed(self.layers.values())."
            report.diagnoses.insert(0, Diagnosis("transposed", "dx", words, advice))

    def adam(self, kind, settings, given, seed, xp):
        """Five steps of two parameters next to the library's Adam."""
        label = ", ".join(f"{key}={value}" for key, value in given.items()) or "the defaults"
        self.case, rng = f"Adam ({label})", np.random.default_rng(seed)
        start, *gradients = [draw({"w": (3, 4), "b": (5,)}, rng) for _ in range(6)]
        mine = {name: asarray(p.copy(), xp) for name, p in start.items()}
        right = {name: p.copy() for name, p in start.items()}
        arrays, ours = dict(mine), optim.Adam(right, **settings)  # the learner may put other arrays in `mine`
        optimiser = self.run("Adam", kind, mine, **given)
        for t, g in enumerate(gradients, 1):
            before = {name: p.copy() for name, p in right.items()}
            own = {name: asarray(array.copy(), xp) for name, array in g.items()}
            self.run("Adam.step", optimiser.step, own)
            ours.step(g)
            for name, array in arrays.items():
                change = to_numpy(array) - before[name]
                if not change.any():
                    advice = f"change the array itself: p -= ..., not p = p - ..., for p of {name}"
                    self.fail([f"step {t} leaves {name} as it was before", advice])
                if not np.array_equal(to_numpy(own[name]), g[name]):
                    self.fail([f"step {t} changes the gradient of {name} in place", "work on a copy"])
                self.fail(explain(f"the change of {name} in step {t}", change, right[name] - before[name]))
        return f"{'Adam':20} {'ok':13}{len(gradients)} steps      {label}"


class _Block:
    """The library's layers in a learner's Residual, as layer_case wants it."""

    def __init__(self, watch, kind, pad, crop, xp):
        self.watch, parts = watch, residual_parts(xp, pad)
        inside = layers.Sequential(parts)
        self.parameters, self.gradients = inside.parameters, inside.gradients
        self.learners = watch.run("Residual", kind, parts, crop)

    def forward(self, x, training=True):
        y = self.watch.run("Residual.forward", self.learners.forward, x.copy(), training)
        return self.watch.array("Residual.forward's y", y)

    def backward(self, dy):
        dx = self.watch.run("Residual.backward", self.learners.backward, dy)
        return self.watch.array("Residual.backward's dx", dx)


def _one_at_a_time(report, right, cases):
    """Lines: what is right already, then the first mistake alone."""
    so_far = f", and the gradients on {right} of {cases} kinds of inputs" if right else ""
    wrong = [r for r in report.inputs if r.passed is not True]
    first = report.diagnoses[0].gradient if report.diagnoses else ""
    shown = [r for r in wrong if f"d{r.name}" == first] or wrong[:1]
    alone = replace(report, inputs=shown, diagnoses=report.diagnoses[:1])
    rest = [f"d{r.name}" for r in wrong if r not in shown and first != "all"]
    later = [f"also wrong, but one at a time: {', '.join(rest)}"] if rest else []
    return [f"right: the forward{so_far}", str(alone), *later]


# --- a wrong forward next to the right one ---


def near(mine, right):
    return abs(mine - right) <= 1e-8 * np.max(abs(right), initial=0)


def explain(what, mine, right, slips=(), sizes=None):
    """What is wrong with a result `mine`, as lines of text; [] where nothing is.

    slips   pairs (words, result of that mistake)
    sizes   {"N": 3, ...} to give a factor its name
    """
    axes = axis_names(what, right.shape)
    if mine.shape != right.shape:
        notes = shape_notes(mine.shape, right.shape, axes)
        return [f"{what} has shape {mine.shape}, it should be {right.shape}{notes}"]
    wrong = ~near(mine, right)
    if not wrong.any():
        return []
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    count = f"; {np.count_nonzero(wrong)} of {wrong.size} elements differ" if place else ""
    lines = [f"{what}{where} is {mine[place]:.7g}, it should be {right[place] + 0.0:.7g}{count}"]
    lines += list(_reasons(what, mine, right, wrong, slips, sizes or {}, axes))[:1]
    if right.ndim == 4 and np.isfinite(mine).all():
        lines += heat_map(abs(mine - right).max(axis=(0, 3)), "HW")
    return lines


def _reasons(what, mine, right, wrong, slips, sizes, axes):
    """What turns the right result into exactly the wrong one, the simplest first."""
    odd = np.count_nonzero(~np.isfinite(mine))
    if odd:
        yield f"{odd} of {mine.size} elements are inf or nan: look for log, sqrt or / of 0"
    elif not mine.any():
        yield "it is zero everywhere: is it filled in?"
    elif near(mine, mine.astype(np.float32)).all() and np.allclose(mine, right, 1e-4, 1e-5):
        yield "these are float32's digits, but x is float64: make new arrays with np.zeros(shape, x.dtype)"
    factor, off = float((mine * right).sum() / (right * right).sum()), mine - right
    name = factor_name(factor, sizes)
    if near(mine, factor * right).all() and (mine.ndim or name):  # any two numbers are some factor apart
        yield f"{'every element' if mine.ndim else 'it'} is {factor:.6g} times what it should be{name}"
    if mine.ndim == 0:
        return
    if near(off, off.mean()).all():
        yield f"every element is {abs(off.mean()):.6g} too {'large' if off.mean() > 0 else 'small'}"
    for cause, words, move in moves(right.shape, axes):
        moved = move(right)
        if near(mine, moved).all() or (cause == "shifted" and near(mine, moved)[moved != 0].mean() > 0.6):
            yield f"it is the right {what} {words} ({cause})"
    for words, result in slips:
        if result.shape == mine.shape and near(mine, result).all():
            yield f"exactly this comes out {words}"
    for axis, letter in ((0, "image"), (-1, "channel")) if mine.ndim > 2 else ():
        bad = np.moveaxis(wrong, axis, 0).reshape(wrong.shape[axis], -1).any(axis=1)
        if not bad.all():
            good, bad = (", ".join(map(str, np.flatnonzero(mask))) for mask in (~bad, bad))
            yield f"right in {letter} {good}, wrong in {letter} {bad}"
    if mine.ndim > 2 and edge(np.argwhere(wrong | True), wrong.ravel(), wrong.shape, axes):
        yield "only pixels near the border are wrong: look at the padding"


def alternatives(library, arrays, options):
    """(words, y) of the library's function with one thing different, as a mistake might have it."""
    tries = [("with training=False", {"training": False}), ("with training=True", {"training": True})]
    tries = [row for row in tries if "training" in inspect.signature(library).parameters]
    for key, array in arrays.items():
        if key in ("b", "gamma", "beta"):
            tries.append((f"without {key}", {key: np.full(array.shape, float(key == "gamma"))}))
        if key == "w":
            tries.append(("with w turned round along KH and KW", {key: array[::-1, ::-1].copy()}))
    for words, changes in tries:
        copies = {key: array.copy() for key, array in arrays.items()}
        yield words, np.asarray(library(**{**copies, **options, **changes})[0])


# --- a file, a folder ---


def load(path):
    """{name: (forward, backward)} of a file, easiest first. Raises UserError when it has none."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location("learners_file", path)
    if spec is None:
        raise UserError(f"{path} is no Python file: its name should end in .py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` would: it may import its neighbours
    linecache.checkcache(str(path))
    try:
        with contextlib.redirect_stdout(io.StringIO()), bounded(f"{path.name}, on import,", path):
            spec.loader.exec_module(module)
    except (Exception, SystemExit, TimeUp) as error:
        said = error if isinstance(error, TimeUp) else _told(error, path)
        raise UserError(f"{path} does not import: {said}") from None
    finally:
        sys.path.pop(0)
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == spec.name]
    bases = [n.removesuffix("_backward") for n in own]
    wanted = [n for n in NAMES if n in bases]  # then what looks like an operation and is none
    wanted += [b for n, b in zip(own, bases, strict=True) if b not in NAMES and b != n and n[0] != "_"]
    if not wanted:
        raise UserError(f"{path} has nothing to check: define pairs such as conv2d and conv2d_backward")
    return {n: (getattr(module, n, None), getattr(module, f"{n}_backward", None)) for n in wanted}


def grades(path, seed=0, xp=np):
    """Yield a Grade for each operation and loss in a learner's file. Raises UserError as `load` does."""
    for name, (forward, backward) in load(path).items():
        missing = _missing(name, forward, backward)
        yield Grade(name, False, missing) if missing else _grade(name, forward, backward, seed, xp, path)


def check_folder(folder, seed=0, xp=np):
    """Print a line for each file, easiest first, and where to go on. True when all are solved."""
    files, broken = {}, {}
    for path in sorted(Path(folder).glob("*.py")):
        try:
            files[path] = min(NAMES.index(n) if n in NAMES else len(NAMES) for n in load(path))
        except UserError as error:
            if "has nothing to check" not in str(error):
                broken[path] = str(error)
    if not files and not broken:
        raise UserError(f"{folder} has no Python file with anything to check, such as relu and relu_backward")
    width, unsolved = max(len(path.stem) for path in (*files, *broken)), []
    for path in [*sorted(files, key=files.get), *broken]:
        state = broken.get(path) or _state(list(grades(path, seed, xp)))
        print(f"{path.stem:{width}}  {state}", flush=True)
        unsolved += [path] if state != "solved" else []
    count = f"{len(files) + len(broken) - len(unsolved)} of {len(files) + len(broken)} solved"
    print(f"{count}; next: tinynst gradcheck {unsolved[0]}" if unsolved else count)
    return not unsolved


def _state(results):
    """The grades of one file in a few words."""
    wrong = next((result for result in results if result.passed is False), None)
    if wrong is None:
        return "not yet written" if any(result.passed is None for result in results) else "solved"
    if wrong.report and wrong.report.diagnoses:
        first = wrong.report.diagnoses[0]
        return f"{wrong.report.title}: {first.cause} ({first.gradient})"
    return wrong.text.splitlines()[0]
