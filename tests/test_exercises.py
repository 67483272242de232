"""The exercises' stubs: not yet written, with the library's signatures, copied without losing work."""

import ast
import inspect
from pathlib import Path

import pytest
from solutions import SOLUTIONS

from tinynst import exercises, layers, losses, ops, optim
from tinynst.errors import UserError
from tinynst.gradcheck.grade import grades

FOLDER = Path(__file__).parents[1] / "lessons" / "exercises"
OURS_ALONE = {"relu", "memo", "need", "weight", "mix"}  # options that only the library has
each = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)


def test_every_exercise_has_a_stub_a_solution_and_a_line_in_the_readme():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == set(SOLUTIONS)
    assert all(f"({name}.py)" in (FOLDER / "README.md").read_text() for name in names)


@each
def test_a_stub_is_not_yet_written(path):
    (grade,) = grades(path)
    assert grade.passed is None and grade.text.endswith(": not yet written")


@each
def test_a_stub_has_the_librarys_signature(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            kind = {"residual": layers.Residual, "adam": optim.Adam}.get(path.stem, ops)
            library = getattr(kind, node.name, None) or getattr(losses, node.name)
            ours = [name for name in inspect.signature(library).parameters if name not in OURS_ALONE]
            assert [argument.arg for argument in node.args.args] == ours


def test_stubs_are_copied_and_work_is_kept(tmp_path, capsys):
    assert exercises.main(["relu", "conv", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "conv.py").read_text() == (FOLDER / "conv.py").read_text()
    (tmp_path / "relu.py").write_text("mine")
    assert exercises.main(["-o", str(tmp_path)]) == 1
    assert (tmp_path / "relu.py").read_text() == "mine" and len(list(tmp_path.glob("*.py"))) == len(SOLUTIONS)
    assert "relu.py: kept" in capsys.readouterr().out
    assert exercises.main(["relu", "-o", str(tmp_path), "--overwrite"]) == 0
    assert (tmp_path / "relu.py").read_text() == (FOLDER / "relu.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rleu"], "no exercise 'rleu'"),
        (["-o", str(FOLDER / "relu.py")], "is a file"),
        (["-o", str(FOLDER)], "holds the stubs themselves"),
    ],
)
def test_mistakes_are_explained(arguments, words):
    with pytest.raises(UserError, match=words):
        exercises.main(arguments)


def test_an_installed_package_says_that_the_stubs_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "STUBS", tmp_path)
    with pytest.raises(UserError, match="not with the package"):
        exercises.main([])
