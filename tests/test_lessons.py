"""Each committed notebook holds the cells of its source, with outputs; its exercises can be solved, and a
mistake in one is named; links lead somewhere. `python lessons/build.py --check` runs the notebooks as well.
"""

import ast
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from solutions import SOLUTIONS, changed

import tinynst

LESSONS = Path(__file__).parents[1] / "lessons"
sys.path.insert(0, str(LESSONS))
import build  # noqa: E402


@pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
def test_the_notebook_is_its_sources_and_has_outputs(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert build.cells(notebook) == build.cells(build.read_source(source))
    assert sum(bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code") >= 5
    assert (LESSONS / "covers" / f"{source.stem}.jpg").is_file() and max(build.cover(notebook).size) > 140
    errors = [
        o
        for cell in notebook.cells
        if cell.cell_type == "code"
        for o in cell.outputs
        if o.output_type == "error"
    ]
    assert not errors


def test_a_number_that_changed_is_reported():
    old = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("print(x)", metadata={"tags": ["check"]})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="a 1.25 and 3e-6")]
    old.cells = [cell]
    new = nbformat.from_dict(old)
    assert list(build.differences(old, new)) == []
    new = nbformat.reads(nbformat.writes(old).replace("1.25", "1.27"), as_version=4)
    assert list(build.differences(old, new)) == [
        "cell 0 printed [1.27, 3e-06], the committed notebook has [1.25, 3e-06]"
    ]


# --- the exercises ---


def exercises():
    """{name: (stub, the cell that checks it, the solutions folded below it and above)} of all notebooks."""
    found = {}
    for source in build.sources():
        cells, solved = build.read_source(source).cells, ""
        for k, cell in enumerate(cells):
            for name in SOLUTIONS.keys() & cell.metadata.get("tags", []):
                test = next(c.source for c in cells[k + 1 :] if c.cell_type == "code")
                text = next(c.source for c in cells[k + 1 :] if "<summary>Solution" in c.source)
                text = text[text.index("<summary>Solution") :].partition("</details>")[0]
                solved += "\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
                found[name] = cell.source, test, solved
    return found


EXERCISES = exercises()


def graded(name, text):
    """What the notebook's own cell says of a solution, under the names that the stub has."""
    stub, test, _ = EXERCISES[name]
    space = {"np": np, "check": tinynst.check}
    exec(text, space)
    (call,) = ast.parse(test).body
    operation, *wanted = (
        ast.literal_eval(a) if isinstance(a, ast.Constant) else a.id for a in call.value.args
    )
    for own, there in zip(wanted, (operation, f"{operation}_backward"), strict=False):
        assert f" {own}(" in stub or f" {own}:" in stub
        space.setdefault(own, space.get(there))
    return eval(test, space)


def test_every_exercise_is_in_a_notebook_and_not_yet_written():
    assert EXERCISES.keys() == SOLUTIONS.keys()
    for name, (stub, _, _) in EXERCISES.items():
        assert graded(name, stub).passed is None, name


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solutions_pass_in_the_notebooks_cell(name):
    for text in (SOLUTIONS[name], EXERCISES[name][2]):
        found = graded(name, text)
        assert found.passed is True, found.text


def test_the_fast_convolution_of_lesson_16_is_right():
    cells = build.read_source(LESSONS / "16_fast.py").cells
    (text,) = (
        each
        for cell in cells
        for each in re.findall(r"```python\n(def my_conv.*?)```", cell.source, re.DOTALL)
    )
    rng, space = np.random.default_rng(0), {"np": np}
    exec(text, space)
    for shape, kernel in (((2, 20, 15, 3), (9, 9, 3, 4)), ((1, 9, 8, 5), (2, 3, 5, 7))):
        x, w = rng.standard_normal(shape), rng.standard_normal(kernel)
        np.testing.assert_allclose(space["my_conv"](x, w), tinynst.ops.conv2d(x, w)[0], atol=1e-10)


MISTAKES = {  # of the kind that the lesson warns of: what is changed, into what, how it is named
    "relu": ("dy * (x > 0)", "dy * (dy > 0)", "wrong-mask (dx)"),
    "tanh": ("dy * scale * (", "dy * (", "scaled (dx)"),
    "feature_loss": ("2 * d / f.size", "d / f.size", "scaled (df)"),
    "tv_loss": ("dy[:, :, :-1] -= across", "dy[:, :, :-1] = -across", "overwritten (dy)"),
    "conv": ("dy @ w[i, j].T", "dy @ w[-1 - i, -1 - j].T", "flipped (dx)"),
    "reflect_pad": ("dx[:, :, column] += tall", "dx[:, :, column] = tall", "overwritten (dx)"),
    "max_pool": ("== squares.argmax(axis=-1)[..., None]", "!= -1", "wrong-mask (dx)"),
    "conv_transpose": ("dx += seen", "dx = seen", "overwritten (dx)"),
    "instance_norm": (" - std_term", "", "missing-term (dx)"),
    "batch_norm": ("dy - dy.mean(axis=AXES) -", "dy -", "missing-term (dx)"),
    "gram": ("(dgram + dgram.transpose(0, 2, 1))", "dgram", "missing-term (df)"),
    "style_loss": (" / (c * h * w) / n", " / (c * h * w)", "scaled (df)"),
    "residual": ("self.inner(dx)[...] += dy", "pass", "missing-term (dx)"),
    "adam": ("p -= self.lr * m", "p = p - self.lr * m", "change the array itself"),
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_mistake_is_named_in_the_notebooks_cell(name):
    old, new, cause = MISTAKES[name]
    found = graded(name, changed(SOLUTIONS[name], old, new))
    assert found.passed is False and cause in found.text, found.text


PAGES = [*LESSONS.parent.glob("*.md"), *LESSONS.rglob("*.md"), *LESSONS.parent.glob("weights/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(LESSONS.parent)))
def test_what_a_page_links_to_is_there(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)  # none with a colon: those lead to the web
    missing = [link for link in links if not (page.parent / link).exists()]
    files = re.findall(r"`((?:tinynst|tests|lessons|weights)/[\w/.]+)`", text)
    missing += [name for name in files if not (LESSONS.parent / name).exists()]
    assert not missing


FOLDERS = "ops|networks|training|tools|data|gradcheck|lessons|tests"
FILES = rf"`((?:(?:{FOLDERS})/[\w/]+|losses|optim|layers|swap|settings|device)\.(?:py|md|h5|cu))`"


@pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
def test_the_files_that_a_lesson_names_are_there(source):
    named = re.findall(FILES, source.read_text())
    root = LESSONS.parent
    missing = [name for name in named if not ((root / "tinynst" / name).exists() or (root / name).exists())]
    assert named and not missing
