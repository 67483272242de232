"""A learner's own file, or a folder of them: read, run and graded (grading.py), whatever their code does."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import linecache
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

from ..errors import UserError
from .grading import ALONE, EASIEST_FIRST, Grade, grade

NAME = "learners_file"  # of the module that a file becomes


def check_file(path, seed=0, xp=np):
    """Grade a learner's file, or every one in a folder, and print the grades. Returns True when all is well.

    Looked for are the names of `tinynst.ops` (`conv2d` with `conv2d_backward`) and `tinynst.losses`, and the classes
    `Residual` and `Adam`. Raises UserError when a file does not import or holds nothing to check.
    """
    if Path(path).is_dir():
        return _check_folder(Path(path), seed, xp)
    good = True
    for result in grades(path, seed, xp):
        print(result.text, flush=True)
        good = good and result.passed is True
    return good


def grades(path, seed=0, xp=np):
    """Yield a Grade for each operation and loss found in a learner's file. Raises UserError as `check_file` does."""
    file = _File(path)
    if not file.found:
        raise UserError(f"{path} has nothing to check: define pairs such as conv2d and conv2d_backward")
    yield from file.grades(seed, xp)


def _check_folder(folder, seed, xp):
    """A line for each file, easiest first, then how many are solved and where to go on."""
    files, broken = [], []
    for path in sorted(folder.glob("*.py")):
        try:
            files.append(_File(path))
        except UserError as error:
            broken.append((path, str(error)))
    files = sorted((file for file in files if file.found), key=lambda file: file.place)
    paths = [file.path for file in files] + [path for path, _ in broken]
    if not paths:
        raise UserError(
            f"{folder} has no Python file with anything to check, such as conv2d and conv2d_backward"
        )
    width, unsolved = max(len(path.stem) for path in paths), []
    for file in files:
        state = _state(list(file.grades(seed, xp)))
        print(f"{file.path.stem:{width}}  {state}", flush=True)
        if state != "solved":
            unsolved.append(file.path)
    for path, error in broken:
        print(f"{path.stem:{width}}  {error}", flush=True)
        unsolved.append(path)
    count = f"{len(paths) - len(unsolved)} of {len(paths)} solved"
    print(f"{count}; next: tinynst gradcheck {unsolved[0]}" if unsolved else count)
    return not unsolved


def _state(results):
    """One file's grades in a few words."""
    wrong = next((result for result in results if result.passed is False), None)
    if wrong is None:
        return "not yet written" if any(result.passed is None for result in results) else "solved"
    if wrong.report is not None and wrong.report.diagnoses:
        first = wrong.report.diagnoses[0]
        return f"{wrong.report.title}: {first.cause} ({first.gradient})"
    return wrong.text.splitlines()[0]


class _File:
    """A learner's file, executed. `found` are {name: (forward, backward)}, either None where it is missing; both are where the
    name is of no operation. Raises UserError when it does not import."""

    def __init__(self, path):
        self.path, self.printed = Path(path), io.StringIO()
        with self._quiet():
            module = _loaded(self.path)
        self.found = {}
        for name in EASIEST_FIRST:
            pair = getattr(module, name, None), getattr(module, f"{name}_backward", None)
            if any(
                f is not None and getattr(f, "__module__", NAME) == NAME for f in pair
            ):  # not only imported
                self.found[name] = pair
        for name, value in vars(module).items():
            base = name.removesuffix("_backward")
            if base != name and base not in EASIEST_FIRST and callable(value) and not name.startswith("_"):
                self.found[base] = None, None

    @property
    def place(self):
        return min(
            EASIEST_FIRST.index(name) if name in EASIEST_FIRST else len(EASIEST_FIRST) for name in self.found
        )

    def grades(self, seed, xp):
        for name, (forward, backward) in self.found.items():
            missing = _missing(name, forward, backward)
            if missing:
                yield Grade(name, False, missing)
                continue
            with self._quiet():
                try:
                    result = grade(name, forward, backward, seed, xp)
                except (Exception, SystemExit) as error:
                    if not getattr(error, "of_the_learner", False):
                        raise
                    result = self._raised(name, error)
            yield dataclasses.replace(result, text="\n".join([result.text, *self._noise()]))

    def _raised(self, name, error):
        """The grade of what the learner's code raised: with the line of theirs that it came through last."""
        frames = [
            (f.f_code, n)
            for f, n in traceback.walk_tb(error.__traceback__)
            if _is_file(f.f_code.co_filename, self.path)
        ]
        function = frames[-1][0].co_qualname if frames else name
        if isinstance(error, NotImplementedError):
            return Grade(name, None, f"{function}: not yet written")
        text = [f"{getattr(error, 'case', name)}: FAIL: {_told(error, self.path)}"]
        if frames:
            code, number = frames[-1]
            text += [f"    in {function}:  {linecache.getline(code.co_filename, number).strip()}"]
        return Grade(name, False, "\n".join(text))

    @contextlib.contextmanager
    def _quiet(self):
        """Hundreds of calls would print, and warn, hundreds of times. What is printed is kept."""
        with contextlib.redirect_stdout(self.printed), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield

    def _noise(self):
        """How much the learner's code has printed, and the first of it."""
        printed = self.printed.getvalue().splitlines()
        self.printed.seek(0)
        self.printed.truncate()
        if not printed:
            return []
        return [
            f"{self.path.name} printed {len(printed)} lines; the first:",
            *(f"    {text:.100}" for text in printed[:4]),
        ]


def _loaded(path):
    """The module of a Python file. Raises UserError when there is none or it does not import."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(NAME, path)
    if spec is None:
        raise UserError(f"{path} is no Python file: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` would: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} does not import: {_told(error, path)}") from None
    finally:
        sys.path.pop(0)
    return module


def _told(error, path):
    """An exception of the learner's in one line, with the last line of the file that it came through."""
    places = [f.lineno for f in traceback.extract_tb(error.__traceback__) if _is_file(f.filename, path)]
    text = str(error)
    if isinstance(error, SyntaxError):
        places, text = [error.lineno], f"{error.msg}: {(error.text or '').strip()}"
    return f"{type(error).__name__}: {text}" + (f" (line {places[-1]})" if places else "")


def _is_file(name, path):
    return Path(name).resolve() == path.resolve()


def _missing(name, forward, backward):
    """What there is too little of to grade `name`, in words; None where nothing is missing."""
    if name not in EASIEST_FIRST:
        near = difflib.get_close_matches(name, EASIEST_FIRST, 1)
        meant = f"did you mean {near[0]}_backward?" if near else f"known are {', '.join(EASIEST_FIRST)}"
        return f"{name}_backward: not checked, there is no operation {name!r}; {meant}"
    if forward is None:
        return f"{name}: {name}_backward is there but no {name}"
    if backward is None and name not in ALONE:
        return f"{name}: {name} is there but no {name}_backward"
    return None
