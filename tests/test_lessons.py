"""Each committed notebook holds the cells of its source, with outputs, and links lead somewhere.

`python lessons/build.py --check` runs the notebooks as well.
"""

import re
import sys
from pathlib import Path

import nbformat
import pytest

LESSONS = Path(__file__).parents[1] / "lessons"
sys.path.insert(0, str(LESSONS))
import build  # noqa: E402


@pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
def test_the_notebook_is_its_sources_and_has_outputs(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert build.cells(notebook) == build.cells(build.read_source(source))
    assert sum(bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code") >= 5
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
