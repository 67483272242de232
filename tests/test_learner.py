"""A learner's file is graded forward first, one mistake at a time, and whatever it does the grade says so."""

import time

import pytest
import solutions as s

from tinynst.errors import UserError
from tinynst.gradcheck import check, grade, main, run
from tinynst.gradcheck.grade import grades

Y = "np.maximum(x, 0), x"
DX = "return dy * (x > 0)"


def learner(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return str(path)


def graded(folder, text):
    """The one grade of a file."""
    (found,) = grades(learner(folder, text))
    return found


@pytest.mark.parametrize("name", s.SOLUTIONS)
def test_right_solutions_pass(tmp_path, name):
    found = graded(tmp_path, s.SOLUTIONS[name])
    assert found.passed is True, found.text


def test_files_are_graded_where_the_arrays_live(tmp_path, xp):
    text = s.changed(s.RELU, "np.maximum(x, 0), x", "x * (x > 0), x")
    assert all(found.passed for found in grades(learner(tmp_path, s.GRAM + text), xp=xp))


FORWARDS = [  # right solution, what is changed, into what, what is said
    (s.RELU, Y, "np.minimum(x, 0), x", "elements differ"),
    (s.RELU, Y, "np.maximum(x, 0)[0], x", "it has 3 axes in place of 4"),
    (s.RELU, Y, "np.maximum(x, 0).transpose(0, 3, 1, 2), x", "the sizes are right but not their order"),
    (s.RELU, Y, "0 * x, x", "y is 0 everywhere"),
    (s.RELU, Y, "np.maximum(x, 0) / 0, x", "inf or nan: look for"),
    (s.RELU, Y, "np.maximum(x, 0) + 0.5, x", "every element is 0.5 too large"),
    (s.RELU, Y, "np.maximum(x, 0)[:, ::-1], x", "the right y flipped along H"),
    (s.RELU, Y, "np.roll(np.maximum(x, 0), 1, axis=2), x", "the right y moved by 1 along W"),
    (s.RELU, Y, "np.maximum(x, np.array([0, -9, 0])[:, None, None, None]), x", "in image 0, 2, wrong"),
    (s.RELU, Y, "np.maximum(x, np.array([0, -9])), x", "right in channel 0, wrong in channel 1"),
    (s.RELU, Y, "np.pad(np.maximum(x, 0)[:, 1:-1, 1:-1], ((0,0), (1,1), (1,1), (0,0))), x", "wrong near the"),
    (s.RELU, Y, "np.maximum(x, 0).astype(np.float32), x", "float32's digits"),
    (s.TANH, "scale * t,", "t,", "is 0.00666667 times"),
    (s.CONV, "@ w[i, j]\n", "@ w[-1 - i, -1 - j]\n", "with w flipped along KH and KW"),
    (s.CONV, " + (0 if b is None else b)", "", "comes out without b"),
    (s.CONV, "- kh) // stride + 1", "- kh) // stride", "H is 1 too small"),
    (s.INSTANCE_NORM, "gamma * xhat + beta", "xhat + beta", "without gamma"),
    (s.BATCH_NORM, "if training:\n        mean", "if True:\n        mean", "with training=True"),
    (s.BATCH_NORM, ", ddof=1", "", "running_var after the forward[0] is"),
    (s.BATCH_NORM, "running_mean += momentum * (mean - running_mean)", "pass", "stays as it was"),
    (s.PAD, '"reflect"', '"symmetric"', "exact in the interior and wrong near the border"),
    (s.GRAM, "@ p / (c * h * w)", "@ p / (h * w)", "2 is 2 or C"),
    (s.TV, " + (across**2).sum()", "", "value is "),
    (s.STYLE, "@ p / (c * h * w)", "@ p", "value is "),
    (s.RESIDUAL, "return y + self.inner(x)", "return y", "without the identity"),
    (s.ADAM, "p -= self", "p += self", "the change of w in step 1"),
    (s.ADAM, "/ (1 - b1**t), self.v[name] / (1 - b2**t)", ", self.v[name]", "the change of w in step 1"),
    (s.ADAM, "p -= self.lr * m", "p = p - self.lr * m", "step 1 leaves w as it was before"),
    (s.ADAM, "self.t += 1", "self.t = 1", "the change of w in step 2"),
    (s.ADAM, "g**2", "g", "the change of w in step"),
    (s.ADAM, "g, t = gradients[name], self.t", "g, t = gradients[name], self.t; g *= 2", "of w in place"),
    (s.ADAM, "eps=1e-8", "eps=1e-6", "Adam (the defaults): FAIL"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "old", "new", "said"), FORWARDS, ids=[said for *_, said in FORWARDS])
def test_a_wrong_forward_is_explained_before_any_gradient(tmp_path, right, old, new, said):
    found = graded(tmp_path, s.changed(right, old, new))
    assert found.passed is False and found.report is None
    assert said in " ".join(found.text.split()) and ": FAIL: " in found.text.splitlines()[0]
    assert len(found.text.splitlines()) <= 14


def test_a_map_shows_where_a_forward_is_wrong(tmp_path):
    found = graded(
        tmp_path, s.changed(s.RELU, f"return {Y}", "y = np.maximum(x, 0); y[:, 2, 4] += 1; return y, x")
    )
    rows = [line.strip() for line in found.text.splitlines()[-5:]]
    assert rows == [*2 * ["· · · · · · ·"], "· · · · ██· ·", *2 * ["· · · · · · ·"]]


BACKWARDS = [  # right solution, what is changed, into what, cause and gradient of the first diagnosis
    (s.RELU, "(x > 0)", "(x >= 0)", "wrong-mask", "dx"),
    (s.TANH, "dy * scale * (", "dy * (", "scaled", "dx"),
    (s.POOL, "return dx", "return dx[:, :4, :6]", "wrong-shape", "dx"),
    (s.CONV, "pad : pad + x.shape[1], pad : pad + x.shape[2]", "pad:-pad, pad:-pad", "wrong-shape", "dx"),
    (s.CONV, "xp[at], dy, (", "xp[at][:1], dy[:1], (", "partial-batch", "dw"),
    (s.CONV, "dxp[at] += dy", "dxp[at] = dy", "overwritten", "dx"),
    (s.STYLE, "2 * d)", "d)", "scaled", "df"),
    (s.TV, "dy[:, :, :-1] -= across", "dy[:, :, :-1] = -across", "overwritten", "dy"),
    (s.RESIDUAL, "self.inner(dx)[...] += dy", "pass", "missing-term", "dx"),
    (s.RESIDUAL, "in reversed(self.layers.values()):", "in self.layers.values():", "transposed", "dx"),
]


@pytest.mark.parametrize(("right", "old", "new", "cause", "gradient"), BACKWARDS)
def test_a_wrong_gradient_is_named_and_shown_alone(tmp_path, right, old, new, cause, gradient):
    found = graded(tmp_path, s.changed(right, old, new))
    assert found.passed is False
    first = found.report.diagnoses[0]
    assert (first.cause, first.gradient) == (cause, gradient)
    assert found.text.startswith("right: the forward") and f"{cause} ({gradient}): " in found.text


def test_several_mistakes_come_one_at_a_time(tmp_path):
    found = graded(
        tmp_path,
        s.changed(s.CONV, "dy @ w[i, j].T", "2 * dy @ w[i, j].T", "dw[i, j] = np", "dw[i, j] = 3 * np"),
    )
    assert [d.gradient for d in found.report.diagnoses] == ["dx", "dw"]
    assert "(dw)" not in found.text and found.text.splitlines()[-1] == "also wrong, but one at a time: dw"


def test_float64_made_of_float32_is_reported(tmp_path):
    found = graded(tmp_path, s.changed(s.POOL, "(n, h, w, c), dy.dtype)", "(n, h, w, c))"))
    assert (
        found.passed is False and "max_pool2d_backward's result 0 is float64 where x is float32" in found.text
    )


def test_functions_from_a_notebook_cell_are_graded():
    def relu(x):
        return x * (x > 0), x

    found = check("relu", relu, lambda dy, x: dy * (x > 0))
    assert found.passed is True and repr(found).startswith("relu ")
    found = check("relu", relu, lambda dy, x: 2 * dy * (x > 0))
    assert found.report.diagnoses[0].cause == "scaled" and found._repr_html_().startswith("<pre>relu")
    assert check("tv_loss", lambda y: (0.0, y)).passed is False
    with pytest.raises(ValueError, match="did you mean relu"):
        check("rleu", relu)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (s.changed(s.RELU, f"return {Y}", "return x"), "relu must return (y, cache), it returns ndarray"),
        (s.changed(s.RELU, Y, "'y', x"), "relu's y is of type str"),
        (s.changed(s.RELU, DX, "return {'dx': dy}"), "relu_backward's result 0 is of type dict"),
        (s.changed(s.RELU, DX, "return dy, dy"), "backward does not return 1 gradients: dx"),
        (s.changed(s.RELU, DX, "return dy * y"), "NameError: name 'y' is not defined (line 11)"),
        (s.changed(s.RELU, DX, "return relu_backward(dy, x)"), "RecursionError"),
        (s.changed(s.RELU, DX, "raise SystemExit('enough')"), "SystemExit: enough (line 11)"),
        (s.changed(s.RELU, "def relu(x):", "def relu(x, y):"), "missing 1 required positional argument: 'y'"),
        (s.changed(s.RELU, "relu_backward", "relu_back"), "relu is there but no relu_backward"),
        (s.changed(s.RELU, "def relu(", "def rel("), "relu_backward is there but no relu"),
        (s.RELU + "def conv2_backward(dy, cache):\n    return dy\n", "did you mean conv2d?"),
        ("def tv_loss(y):\n    return 1.0\n", "tv_loss must return (value, gradient), it returns float"),
        (s.changed(s.TV, "return 0.5", "return np.nan * 0.5"), "inf or nan"),
        (s.changed(s.TV, "dy / n", "None"), "tv_loss's gradient is of type NoneType"),
        ("class Adam:\n    pass\n", "Adam() takes no arguments"),
        (s.changed(s.RESIDUAL, "return dx", "return 'dx'"), "Residual.backward's result 0 is of type str"),
        (s.changed(s.RELU, DX, "raise NotImplementedError"), "relu_backward: not yet written"),
        (s.changed(s.ADAM, "self.t += 1", "raise NotImplementedError"), "Adam.step: not yet written"),
    ],
)
def test_a_learners_error_is_reported_and_the_status_is_1(tmp_path, capsys, text, words):
    assert main([learner(tmp_path, text)]) == 1
    out, err = capsys.readouterr()
    assert words in " ".join(out.split()) and err == "" and "Traceback" not in out


@pytest.mark.parametrize(
    "loop",
    [
        "while True:\n        dy = dy * 1",
        "while True:\n        try:\n            dy = dy * 1\n        except:\n            pass",
    ],
)
def test_an_endless_loop_is_stopped_and_its_line_named(tmp_path, capsys, monkeypatch, loop):
    monkeypatch.setattr(run, "LIMIT", 0.5)
    start = time.monotonic()
    assert main([learner(tmp_path, s.changed(s.RELU, DX, loop))]) == 1
    assert "relu_backward has run for 0.5 s on a 5x7 image, at line " in capsys.readouterr().out
    assert time.monotonic() - start < 10
    with pytest.raises(UserError, match=r"on import, has run for 0.5 s, at line 1"):
        main([learner(tmp_path, "while True: pass\n")])


def test_a_slow_answer_says_that_it_is_still_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "PATIENCE", 0.02)
    assert main([learner(tmp_path, s.RELU)]) == 0
    assert "relu (x 3x5x7x2): still checking" in capsys.readouterr().err


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "explain", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        graded(tmp_path, s.RELU)


def test_what_the_code_prints_and_warns_of_does_not_hide_the_grade(tmp_path, capsys):
    text = s.changed(s.RELU, f"return {Y}", f"print('x is', x.shape); np.log(np.zeros(3)); return {Y}")
    assert main([learner(tmp_path, text)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("relu ") and lines[1].startswith("mine.py printed ")
    assert lines[2:] == ["    x is (3, 5, 7, 2)"] * 4


def test_changed_arrays_are_named(tmp_path):
    found = graded(tmp_path, s.changed(s.RELU, DX, "dy *= x > 0\n    return dy"))
    assert [(d.cause, d.gradient) for d in found.report.diagnoses] == [("changed-input", "dy")]
    found = graded(
        tmp_path, s.changed(s.RELU, f"return {Y}", "old = x.copy(); x[x < 0] = 0; return x.copy(), old")
    )
    assert [(d.cause, d.gradient) for d in found.report.diagnoses] == [("changed-input", "dx")]


def test_an_imported_function_is_used_and_not_graded(tmp_path):
    learner(tmp_path, s.changed(s.GRAM, "def gram_matrix_backward", "def another"), "my_gram.py")
    text = s.changed(s.STYLE, "gram = p.transpose(0, 2, 1) @ p / (c * h * w)", "gram, _ = gram_matrix(f)")
    (found,) = grades(learner(tmp_path, f"from my_gram import gram_matrix\n{text}"))
    assert (found.name, found.passed) == ("style_loss", True)


def test_a_changed_file_is_read_again(tmp_path):
    assert graded(tmp_path, s.RELU).passed is True
    found = graded(tmp_path, s.changed(s.RELU, DX, "return nothing * dy * (x > 0)"))
    assert "return nothing * dy * (x > 0)" in found.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "nothing to check"),
        ("from tinynst.ops import relu, relu_backward\n", "nothing to check"),
        ("import no_such_module_here\n", "does not import: ModuleNotFoundError.*line 1"),
        ("def relu(:\n", r"does not import: SyntaxError: .*def relu\(: \(line 1"),
        ("raise SystemExit(3)\n", "does not import: SystemExit"),
    ],
)
def test_a_file_that_gives_nothing_to_check_is_the_users_mistake(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        main([learner(tmp_path, text)])


def test_a_folder_is_listed_easiest_first_with_what_is_solved(tmp_path, capsys):
    files = {
        "norm": s.changed(s.INSTANCE_NORM, " - mean_term", ""),
        "tv": s.TV,
        "activation": s.RELU,
        "broken": "def relu(:\n",
        "pad": s.changed(
            s.PAD, "    (n, h, w, c), rows", "    raise NotImplementedError\n    (n, h, w, c), rows"
        ),
        "helpers": "def twice(x):\n    return 2 * x\n",
    }
    for name, text in files.items():
        learner(tmp_path, text, f"{name}.py")
    assert main([str(tmp_path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["activation", "tv", "pad", "norm", "broken"]
    states = [line[12:] for line in lines]
    assert states[:3] == ["solved", "solved", "not yet written"]
    assert states[3] == "instance_norm (x 3x5x7x2, gamma 2): missing-term (dx)" and "SyntaxError" in states[4]
    assert last == f"2 of 5 solved; next: tinynst gradcheck {tmp_path / 'pad.py'}"


def test_a_folder_with_nothing_to_check_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no Python file with anything to check"):
        main([str(tmp_path)])
