"""The exercises come from the library: a stub says what to do and fails as not yet written, the library's own code passes."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from tinynst import exercises, losses, ops
from tinynst.errors import UserError
from tinynst.exercises import EXERCISES, LIBRARY_ONLY, NOT_WRITTEN, is_stub, main, stub
from tinynst.gradcheck.grading import EASIEST_FIRST
from tinynst.gradcheck.learner import grades

ROOT = Path(__file__).parents[1]
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


def solved(exercise):
    """The stub, each body of it a call of the library's own."""
    source = stub(exercise)
    library = exercise.parts[0].__module__
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        for function in [node] if isinstance(node, ast.FunctionDef) else []:
            names = [argument.arg for argument in function.args.args if argument.arg != "self"]
            call = f"{function.name}({', '.join(f'{name}={name}' for name in names)})"
            if exercise.is_class and function.name == "__init__":
                body = f"self.own = {exercise.parts[0].__name__}_({call.removeprefix('__init__(')}"
            else:
                body = f"return {'self.own' if exercise.is_class else 'library'}.{call}"
            line = function.body[-1].lineno - 1
            lines[line] = lines[line].replace(NOT_WRITTEN, body)
    imports = ["import importlib", f"library = importlib.import_module({library!r})"]
    if exercise.is_class:
        imports.append(f"{exercise.parts[0].__name__}_ = library.{exercise.parts[0].__name__}")
    return "\n".join([*lines, *imports, ""])


# --- what a stub is -------------------------------------------------------------------------------------------------


@each
def test_a_stub_as_it_ships_fails_as_not_yet_written(tmp_path, exercise):
    path = tmp_path / f"{exercise.name}.py"
    path.write_text(stub(exercise))
    (grade,) = grades(path)
    first = exercise.parts[0].__name__ + (f".{exercise.parts[1]}" if exercise.is_class else "")
    assert (grade.passed, grade.text) == (None, f"{first}: not yet written")


@each
def test_every_function_of_a_stub_is_to_be_written(exercise):
    functions = [node for node in ast.walk(ast.parse(stub(exercise))) if isinstance(node, ast.FunctionDef)]
    names = [part if isinstance(part, str) else part.__name__ for part in exercise.parts[exercise.is_class :]]
    assert [function.name for function in functions] == names
    assert all(
        ast.unparse(function.body[-1]) == "raise NotImplementedError('not yet written')"
        for function in functions
    )


@each
def test_the_librarys_own_code_passes(tmp_path, exercise):
    path = tmp_path / f"{exercise.name}.py"
    path.write_text(solved(exercise))
    (grade,) = grades(path)
    assert grade.passed is True, grade.text


@each
def test_a_stub_needs_numpy_alone_and_fits_the_page(exercise):
    text = stub(exercise)
    imports = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert imports == ["import numpy as np"]
    assert max(map(len, text.splitlines())) <= 128
    assert text.isascii() and "\n\n\n\n" not in text


@each
def test_a_stub_says_what_to_do_and_how_to_be_graded(exercise):
    introduction = ast.get_docstring(ast.parse(stub(exercise)))
    assert introduction.startswith(f"Exercise: {exercise.title}.")
    assert f"    python -m tinynst.gradcheck lessons/exercises/{exercise.name}.py" in introduction
    assert "\n\nShapes" in introduction
    assert 1 <= introduction.count("\n    - ") == len(exercise.hints) <= 3
    for hint in exercise.hints:
        assert hint in " ".join(introduction.split())


@each
def test_docstrings_are_the_librarys_without_what_only_the_library_needs(exercise):
    tree = ast.parse(stub(exercise))
    for node in tree.body[2:]:
        mine, library = (
            ast.get_docstring(node),
            inspect.getdoc(next(p for p in exercise.parts if p.__name__ == node.name)),
        )
        assert mine.splitlines()[0][:40] == library.splitlines()[0][:40]
        assert set(re.findall(r"\w+", mine)) <= {*re.findall(r"\w+", library), "is"}
    for word in LIBRARY_ONLY:
        assert f"`{word}" not in stub(exercise) and f" {word}=" not in stub(exercise)
    assert "Raises" not in stub(exercise)


def test_signatures_are_the_librarys_without_what_only_the_library_needs():
    for exercise in EXERCISES:
        space = {}
        exec(stub(exercise), space)
        for part in exercise.parts[exercise.is_class :]:
            mine = (
                getattr(space[exercise.parts[0].__name__], part)
                if exercise.is_class
                else space[part.__name__]
            )
            library = getattr(exercise.parts[0], part) if exercise.is_class else part
            wanted = [p for p in inspect.signature(library).parameters.values() if p.name not in LIBRARY_ONLY]
            assert list(inspect.signature(mine).parameters.values()) == wanted


def test_the_shapes_are_those_of_a_run():
    by_name = {exercise.name: stub(exercise) for exercise in EXERCISES}
    assert (
        "    conv2d            x (2, 5, 7, 3), w (3, 3, 3, 4), b (4,)  ->  y (2, 3, 5, 4)\n"
        in by_name["conv"]
    )
    assert (
        "    conv2d_backward   dy (2, 3, 5, 4)  ->  dx (2, 5, 7, 3), dw (3, 3, 3, 4), db (4,)\n"
        in by_name["conv"]
    )
    assert "Shapes, for example with pad=2:" in by_name["reflect_pad"]
    x, w, b = np.zeros((2, 5, 7, 3)), np.zeros((3, 3, 4, 3)), np.zeros(4)
    assert f"->  y {ops.conv_transpose2d(x, w, b)[0].shape}\n" in by_name["conv_transpose"]
    assert (
        f"    style_loss   f (2, 5, 7, 3), target_gram (3, 3)  ->  value a number, df {x.shape}"
        in by_name["style_loss"]
    )
    assert losses.style_loss(x, np.zeros((3, 3)))[1].shape == x.shape


def test_the_exercises_are_ordered_as_the_checker_lists_them():
    names = [exercise.parts[0].__name__ for exercise in EXERCISES]
    assert names == [name for name in EASIEST_FIRST if name in names]
    assert len({exercise.name for exercise in EXERCISES}) == len(EXERCISES) == 14


def test_the_readme_of_the_exercises_names_each():
    text = (ROOT / "lessons" / "exercises" / "README.md").read_text(encoding="utf-8")
    assert [text.index(f"[{exercise.name}.py]({exercise.name}.py)") for exercise in EXERCISES] == sorted(
        text.index(f"[{exercise.name}.py]({exercise.name}.py)") for exercise in EXERCISES
    )


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_stubs_are_written_once_and_are_then_up_to_date(tmp_path, capsys):
    folder = tmp_path / "new" / "exercises"
    assert main(["-o", str(folder)]) == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        f"{e.name}.py": stub(e) for e in EXERCISES
    }
    assert capsys.readouterr().out.count(": written\n") == 14
    assert main(["-o", str(folder), "--check"]) == 0
    assert capsys.readouterr().out == f"14 of 14 exercises in {folder} are up to date\n"
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main(["-o", str(folder)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_check_names_what_is_missing_out_of_date_or_worked_on_and_writes_nothing(tmp_path, capsys):
    main(["-o", str(tmp_path)])
    (tmp_path / "relu.py").unlink()
    stale = (tmp_path / "conv.py").read_text().replace("Two loops are enough", "Seven loops are enough")
    (tmp_path / "conv.py").write_text(stale)
    (tmp_path / "gram.py").write_text(stub(EXERCISES[4]).replace(NOT_WRITTEN, "return f, f"))
    capsys.readouterr()
    assert main(["-o", str(tmp_path), "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{tmp_path}/") for line in lines[:3]] == [
        "relu.py: missing",
        "gram.py: worked on",
        "conv.py: out of date",
    ]
    assert lines[3] == f"11 of 14 exercises in {tmp_path} are up to date"
    assert not (tmp_path / "relu.py").exists() and (tmp_path / "conv.py").read_text() == stale


def test_what_somebody_has_worked_on_is_kept(tmp_path, capsys):
    main(["-o", str(tmp_path)])
    work = stub(EXERCISES[0]).replace(NOT_WRITTEN, "return np.maximum(x, 0), x", 1)
    (tmp_path / "relu.py").write_text(work)
    (tmp_path / "tanh.py").write_text(stub(EXERCISES[1]).replace("Hints", "Old hints"))
    capsys.readouterr()
    assert main(["-o", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path / 'relu.py'}: kept" in out and "--overwrite" in out
    assert (tmp_path / "relu.py").read_text() == work
    assert (tmp_path / "tanh.py").read_text() == stub(EXERCISES[1])
    (tmp_path / "gram.py").write_text("x = 1\n")
    assert main(["relu", "--overwrite", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "relu.py").read_text() == stub(EXERCISES[0])
    assert (tmp_path / "gram.py").read_text() == "x = 1\n"  # only the named one


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True),
        (
            '"""Old."""\nimport numpy\n\ndef relu(x):\n    """y."""\n    raise NotImplementedError("not yet written")\n',
            True,
        ),
        (
            'class A:\n    """a"""\n    def f(self):\n        raise NotImplementedError("not yet written")\n',
            True,
        ),
        ('def relu(x):\n    y = 1\n    raise NotImplementedError("not yet written")\n', False),
        ("def relu(x):\n    return x\n", False),
        (
            'class A:\n    def f(self):\n        raise NotImplementedError("not yet written")\n\n    g = 3\n',
            False,
        ),
        ("NOTES = 'tried two loops'\n", False),
        ("def relu(:\n", False),
    ],
)
def test_what_counts_as_a_stub(text, wanted):
    assert is_stub(text) is wanted


def test_comments_are_work_too():
    text = stub(EXERCISES[0]).replace(f"    {NOT_WRITTEN}", f"    # np.maximum?\n    {NOT_WRITTEN}", 1)
    assert is_stub(text) is False


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no exercise 'convolve'; choose from relu, tanh"):
        main(["convolve"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; the exercises need a folder"):
        main(["-o", str(tmp_path / "file")])
    monkeypatch.setattr(exercises, "__file__", str(tmp_path / "site-packages" / "tinynst" / "exercises.py"))
    with pytest.raises(UserError, match="-o FOLDER"):
        main([])


def test_without_a_folder_they_go_to_the_project(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(exercises, "__file__", str(tmp_path / "tinynst" / "exercises.py"))
    assert main(["tanh"]) == 0
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py")] == [
        "lessons/exercises/tanh.py"
    ]
