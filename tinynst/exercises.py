"""Exercises: the library's operations with their bodies taken out, for a learner to write and `tinynst gradcheck` to grade.

A stub is made of the library's own source: its signatures and docstrings, less what only the library needs (a ReLU in the
same pass, gradients that are not wanted). Added here are a hint or two; the shapes come from running the operation.
"""

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import layers, losses, ops, optim
from .cli import Parser, run
from .data.files import written_whole
from .errors import UserError
from .gradcheck.cases import LOSSES, OPERATIONS, draw

NOT_WRITTEN = 'raise NotImplementedError("not yet written")'
LIBRARY_ONLY = (
    "relu",
    "memo",
    "need",
    "weight",
    "input_gradient",
    "mix",
)  # arguments that an exercise does without
CUTS = {  # what the library's docstrings say of those, and what stands there instead
    "`relu=True` returns max(y, 0), done while each block is in cache. ": "",
    "`memo`: a dict kept between calls with a kernel that never changes; it holds the kernel's Winograd transform. ": "",
    " None where there is no b or the gradient is not in `need`.": " db is None where there is no b.",
    " `relu=True`: max(y, 0), in the same pass.": "",
    " Value and gradient are multiplied by `weight`.": "",
    ", need=(\"x\", \"w\")": "",
}


@dataclass(frozen=True)
class Exercise:
    """One file: `parts` are the library's functions, or a class and the names of its methods, that the learner writes.

    paragraphs   of the docstring of the library's module: those that explain the operation itself
    shapes       of a class; those of functions come from a run of the library's own
    """

    name: str
    title: str
    parts: tuple
    paragraphs: slice
    hints: tuple
    shapes: str = ""

    @property
    def is_class(self):
        return inspect.isclass(self.parts[0])


def _pair(name):
    return getattr(ops, name), getattr(ops, f"{name}_backward")


EXERCISES = [  # easiest first
    Exercise(
        "relu",
        "ReLU",
        _pair("relu"),
        slice(0),
        (
            "Keep in `cache` whatever tells backward where x was positive.",
            "dy and x have the same shape, and pixels do not meet: no sums here.",
        ),
    ),
    Exercise(
        "tanh",
        "the scaled tanh that ends a style net",
        _pair("scaled_tanh"),
        slice(0),
        (
            "tanh' = 1 - tanh^2, so backward needs y and no second tanh.",
            "y is not tanh(x) but scale times it: where does `scale` go in the derivative?",
        ),
    ),
    Exercise(
        "feature_loss",
        "the feature loss",
        (losses.feature_loss,),
        slice(1),
        (
            "f.size is N*C*H*W: with it the mean over the batch and the division by C*H*W are one.",
            "`target` is a constant. What is the derivative of (f - target)^2 by f?",
        ),
    ),
    Exercise(
        "tv_loss",
        "the total variation loss",
        (losses.tv_loss,),
        slice(1),
        (
            "Two slices, y[:, 1:] and y[:, :-1], make all the differences down; two more those across.",
            "Each difference is of two pixels: its gradient adds to the one (+=) and is taken from the other (-=).",
        ),
    ),
    Exercise(
        "gram",
        "the Gram matrix",
        _pair("gram_matrix"),
        slice(1),
        (
            "With f as (N, H*W, C) it is one matrix product: f.transpose(0, 2, 1) @ f.",
            "f stands on both sides of the product, and each side gives the gradient a term. dgram need not be symmetric.",
        ),
    ),
    Exercise(
        "style_loss",
        "the style loss",
        (losses.style_loss,),
        slice(1),
        (
            "You need a Gram matrix, (N, C, C): write it here, or `from gram import gram_matrix` if that exercise is done.",
            "Chain rule: the loss by the Gram matrix first (a difference and a factor), then the Gram matrix by f.",
        ),
    ),
    Exercise(
        "reflect_pad",
        "reflection padding",
        _pair("reflect_pad2d"),
        slice(0),
        (
            "Forward: np.pad, or x[:, rows][:, :, columns] with `rows` the pixel that stands at each place: 2, 1, 0, 1, 2 ...",
            "Backward: a pixel near the border stands at several places, and the gradients of all of them add up. Beware: "
            "dx[:, rows] += ... adds only once where an index is there twice; np.add.at, or a loop over rows, adds each time.",
        ),
    ),
    Exercise(
        "max_pool",
        "max pooling",
        _pair("max_pool2d"),
        slice(1),
        (
            "Cut x to whole squares, then reshape it to (N, H//size, size, W//size, size, C): the squares are axes 2 and 4.",
            "If two pixels of a square are equal, only one of them gets the gradient. What was dropped gets 0.",
        ),
    ),
    Exercise(
        "conv",
        "convolution",
        _pair("conv2d"),
        slice(2),
        (
            "Two loops are enough, over the kernel's rows a and columns b: the pixels of the padded x that meet w[a, b] are a "
            "slice with step `stride`, of shape (N, OH, OW, C); times w[a, b], (C, O), it adds to y.",
            "Backward goes through the same loops. What forward read from x, backward adds to dx (+=, for patches overlap), "
            "and dw[a, b] is a sum over all images and pixels. At the end take the padding off dx.",
        ),
    ),
    Exercise(
        "conv_transpose",
        "transposed convolution",
        _pair("conv_transpose2d"),
        slice(2),
        (
            "Two loops over the kernel's rows a and columns b: x @ w[a, b].T is added (+=) to every stride-th pixel, from "
            "(a, b) on, of an image with room for all of it. Then take `pad` pixels off each side, `output_pad` fewer below "
            "and right.",
            "Backward reads dy where forward wrote y: put dy back in the large image, and go through the same loops.",
        ),
    ),
    Exercise(
        "instance_norm",
        "instance norm",
        _pair("instance_norm"),
        slice(3),
        (
            "mean(axis=(1, 2), keepdims=True) keeps shapes that broadcast. x^ and std are all that backward needs.",
            "dx has three terms because mean and std depend on every pixel. gamma and beta are shared by all images: their "
            "gradients sum over N too.",
        ),
    ),
    Exercise(
        "batch_norm",
        "batch norm",
        _pair("batch_norm"),
        slice(3),
        (
            "In training, the mean is that over axes 0, 1, 2, and the running statistics are updated in place (running_mean *= "
            "... then += ...) and not used. Otherwise they are used, not updated, and no gradient goes through them.",
            "Two variances: y is made with the one divided by N*H*W, running_var learns the one divided by N*H*W - 1.",
        ),
    ),
    Exercise(
        "residual",
        "the residual block",
        (layers.Residual, "__init__", "forward", "backward"),
        slice(1, 2),
        (
            "`layers` is {name: layer}, in order: call their forward one after another, and their backward the other way "
            "round. They keep their own gradients.",
            "x goes two ways, through the layers and past them: dx is the sum of what comes back on both. Where the identity "
            "was cropped it brings nothing back.",
        ),
        "    forward    x (N, H, W, C)  ->  y (N, H - 2*crop, W - 2*crop, C)\n    backward   dy as y  ->  dx as x",
    ),
    Exercise(
        "adam",
        "a step of Adam",
        (optim.Adam, "__init__", "step"),
        slice(0),
        (
            "m, v and the count of steps t live from step to step: make them in __init__, m and v zeros like each parameter.",
            "`p -= ...` changes the array that the net holds; `p = p - ...` only makes another one.",
        ),
        "    p, g, m and v of one name have one shape, and each number goes its own way: no sums here",
    ),
]


# --- a stub from the library's source -----------------------------------------------------------------------------


def stub(exercise):
    """The text of the exercise's Python file: how to be graded, shapes, hints, and the parts without their bodies."""
    first, *rest = exercise.parts
    if exercise.is_class:
        inside = [_docstring(first), *(_without_body(getattr(first, name)) for name in rest)]
        code = f"class {first.__name__}:\n" + textwrap.indent("\n\n".join(inside), "    ")
    else:
        code = "\n\n\n".join(_without_body(function) for function in exercise.parts)
    return f'"""{_introduction(exercise)}\n"""\n\nimport numpy as np  # noqa: F401\n\n\n{code}\n'


def _introduction(exercise):
    first, *rest = exercise.parts
    paragraphs = _cut(inspect.getdoc(inspect.getmodule(first))).split("\n\n")[exercise.paragraphs]
    task = f"Write {first.__name__}"
    if exercise.is_class:
        task += f"'s {', '.join(rest[:-1])} and {rest[-1]}"
    elif rest:
        task += f" and {rest[0].__name__}"
    task += " with NumPy alone, in place of `raise`."
    if rest and not exercise.is_class:
        task += " What `cache` holds is up to you: only your backward reads it."
    parts = [
        f"Exercise: {exercise.title}.",
        *paragraphs,
        _filled(f"{task} Then, from the project's folder, as often as you like:"),
        f"    python -m tinynst.gradcheck lessons/exercises/{exercise.name}.py",
        *(["Shapes:", exercise.shapes] if exercise.shapes else _shapes(exercise.parts)),
        "Hints:",
        "\n".join(_filled(hint, "    - ", "      ") for hint in exercise.hints),
    ]
    return "\n\n".join(parts)


def _filled(text, first="", rest=""):
    return textwrap.fill(text, 120, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _without_body(function):
    """The function's signature, without LIBRARY_ONLY arguments, and its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    arguments = ast.parse(source).body[0].args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    shown = [
        argument.arg if default is None else f"{argument.arg}={ast.get_source_segment(source, default)}"
        for argument, default in zip(arguments.args, defaults, strict=True)
        if argument.arg not in LIBRARY_ONLY
    ]
    inside = [_docstring(function)] if function.__doc__ else []
    body = textwrap.indent("\n".join([*inside, NOT_WRITTEN]), "    ")
    return f"def {function.__name__}({', '.join(shown)}):\n{body}"


def _docstring(thing):
    """The docstring as a literal, without what it raises: a learner's code need not check its arguments."""
    text = re.sub(r"\s+Raises [^.]*\.", "", _cut(inspect.getdoc(thing)))
    return f'"""{text}\n"""' if "\n" in text else f'"""{text}"""'


def _cut(text):
    """`text` after CUTS, which hold wherever its lines break."""
    for words, instead in CUTS.items():
        text = re.sub(r"\s+".join(re.escape(word) for word in words.split(" ")), instead, text)
    return text


def _shapes(functions):
    """Paragraphs with the shapes of what goes in and comes out: those of the first case that the checker knows, run here."""
    forward, *backward = functions
    name = forward.__name__
    shapes, options = next(
        (case[1], case[2] if case[2:] else {}) for case in [*OPERATIONS, *LOSSES] if case[0] == name
    )
    arrays = draw(shapes, np.random.default_rng(0))
    result, kept = forward(**arrays, **options)
    learnt = [
        key for key in arrays if key not in ("target", "target_gram") and not key.startswith("running_")
    ]
    if backward:
        upstream = next(iter(inspect.signature(backward[0]).parameters))  # "dy"
        gradients = dict(zip([f"d{key}" for key in learnt], backward[0](result, kept), strict=True))
        rows = [(name, arrays, {upstream[1:]: result}), (f"{name}_backward", {upstream: result}, gradients)]
    else:
        rows = [(name, arrays, {"value": None, f"d{learnt[0]}": kept})]
    width = len(rows[-1][0])
    lines = [f"    {title:{width}}   {_sizes(given)}  ->  {_sizes(got)}" for title, given, got in rows]
    shown = " with " + ", ".join(f"{key}={value}" for key, value in options.items()) if options else ""
    return [f"Shapes, for example{shown}:", "\n".join(lines)]


def _sizes(arrays):
    return ", ".join(
        f"{name} {'a number' if array is None else array.shape}" for name, array in arrays.items()
    )


# --- the command ----------------------------------------------------------------------------------------------------


def is_stub(text):
    """Has nobody written anything yet: does this Python source hold imports and functions that only raise, nothing else?"""
    if re.search(r"^\s*#", text, re.MULTILINE):  # a comment is work too
        return False
    try:
        nodes = ast.parse(text).body
    except SyntaxError:
        return False
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ClassDef):
            nodes.extend(node.body)
        elif isinstance(node, ast.FunctionDef):
            docstring = _is_text(node.body[0])
            if len(node.body) > 1 + docstring or ast.unparse(node.body[-1]) != ast.unparse(
                ast.parse(NOT_WRITTEN)
            ):
                return False
        elif not (isinstance(node, (ast.Import, ast.ImportFrom)) or _is_text(node)):
            return False
    return True


def _is_text(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def project_folder():
    """lessons/exercises of the project that this file is in. Raises UserError where the library is installed alone."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").exists():
        raise UserError(
            "there is no lessons/exercises beside the installed library; say where they should go: -o FOLDER"
        )
    return root / "lessons" / "exercises"


def main(arguments=None):
    """Write the stubs; with --check only compare them. Status 1 when one was kept, or is not what it should be."""
    names = [exercise.name for exercise in EXERCISES]
    parser = Parser(
        prog="tinynst exercises", description="Make the exercises' stubs from the library's own code."
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; none: all")
    where = "where they go (default: the project's lessons/exercises)"
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=where)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--check", action="store_true", help="write nothing; status 1 unless the stubs there are up to date"
    )
    either.add_argument(
        "--overwrite", action="store_true", help="also start those afresh that somebody has worked on"
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in names:
            raise UserError(f"there is no exercise {name!r}; choose from {', '.join(names)}")
    folder = options.output or project_folder()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; the exercises need a folder")
    wanted = {
        exercise.name: stub(exercise)
        for exercise in EXERCISES
        if not options.names or exercise.name in options.names
    }
    states = {name: _state(folder / f"{name}.py", text) for name, text in wanted.items()}
    current = [name for name, state in states.items() if state == "up to date"]
    if options.check:
        for name, state in states.items():
            if name not in current:
                print(f"{folder / name}.py: {state}")
        print(f"{len(current)} of {len(wanted)} exercises in {folder} are up to date")
        return 0 if len(current) == len(wanted) else 1
    kept = [name for name, state in states.items() if state == "worked on" and not options.overwrite]
    for name, text in wanted.items():
        if name in kept:
            print(f"{folder / name}.py: kept, for somebody has worked on it (--overwrite starts it afresh)")
        elif name not in current:
            with written_whole(folder / f"{name}.py") as path:
                path.write_text(text, encoding="utf-8")
            print(f"{folder / name}.py: written")
    print(f"{len(wanted) - len(kept)} of {len(wanted)} exercises in {folder} are ready to be worked on")
    return 1 if kept else 0


def _state(path, wanted):
    """In a word: is the file at `path` the stub `wanted`?"""
    if not path.exists():
        return "missing"
    text = path.read_text(encoding="utf-8", errors="replace")
    if text == wanted:
        return "up to date"
    return "out of date" if is_stub(text) else "worked on"


if __name__ == "__main__":
    run(main, "exercises")
