"""A learner's functions in place of the library's, and the names that `import tinynst` offers."""

import linecache
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import losses as rows_of
from runs import net_of, same, same_run, without_plots  # noqa: F401 (a fixture)
from solutions import SOLUTIONS, changed

import tinynst
from tinynst import layers, losses, ops, optim, swap
from tinynst.data import images, weights
from tinynst.errors import UserError
from tinynst.gradcheck import run as bounded
from tinynst.networks import VGG16, style_net
from tinynst.samples import PHOTOS, STYLES
from tinynst.training import task
from tinynst.training.style import StyleSettings, train


@pytest.fixture
def folder(tmp_path):
    for name, text in SOLUTIONS.items():
        (tmp_path / f"{name}.py").write_text(text.lstrip("\n"))
    yield tmp_path
    tinynst.use(None)


def gradients(net, images, dy):
    net.forward(images, training=True)
    net.backward(dy)
    return net.gradients()


def test_the_net_and_vgg_compute_the_same_on_the_learners_code(folder):
    rng = np.random.default_rng(0)
    images, dy = rng.uniform(0, 255, (2, 1, 20, 24, 3)).astype(np.float32)
    net, vgg = style_net(width=2), VGG16.load()
    before, seen = gradients(net, images, dy), vgg.forward(images, ("relu2_2",))["relu2_2"]
    kept = ops.conv2d, ops.conv2d_backward, losses.style_loss, optim.Adam, layers.Residual, task.Adam
    names = tinynst.use(folder)
    assert len(names) == 14 and {"conv2d", "Residual", "Adam"} <= set(names)
    assert not set(kept) & {
        ops.conv2d,
        ops.conv2d_backward,
        losses.style_loss,
        optim.Adam,
        layers.Residual,
        task.Adam,
    }
    after, seen_now = gradients(style_net(width=2), images, dy), vgg.forward(images, ("relu2_2",))["relu2_2"]
    assert after.keys() == before.keys()
    for name, gradient in before.items():
        assert abs(after[name] - gradient).max() <= 1e-3 * abs(gradient).max(), name
    assert abs(seen_now - seen).max() <= 1e-4 * abs(seen).max()
    tinynst.use(None)
    assert kept == (
        ops.conv2d,
        ops.conv2d_backward,
        losses.style_loss,
        optim.Adam,
        layers.Residual,
        task.Adam,
    )


def test_a_loss_gets_its_weight_and_adam_its_shares_of_the_rate(folder):
    for path in folder.iterdir():
        if path.stem not in ("feature_loss", "adam"):
            path.unlink()
    f, target = np.random.default_rng(0).standard_normal((2, 1, 3, 4, 2))
    wanted = losses.feature_loss(f, target, 3.0)
    adam = optim.Adam({"w": np.zeros(2), "out.w": np.zeros(2)}, lr=0.5)
    tinynst.use(folder)
    value, df = losses.feature_loss(f, target, 3.0)
    assert value == pytest.approx(wanted[0]) and np.allclose(df, wanted[1])
    mine = optim.Adam({"w": np.zeros(2), "out.w": np.zeros(2)}, lr=0.5)
    for optimizer in (adam, mine):
        optimizer.rates = {"out.w": 0.1}
        for k in range(3):
            optimizer.step({"w": np.array([1.0, -2.0]) + k, "out.w": np.array([3.0, 1.0])})
    for name, array in adam.parameters.items():
        assert np.allclose(array, mine.parameters[name], rtol=1e-6), name


class Lazy:
    """An Adam that makes its state in its first step, a list for each parameter."""

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.parts, self.lr, self.betas, self.eps, self.held = parameters, lr, betas, eps, {}

    def step(self, gradients):
        (b1, b2), t = self.betas, self.held["t"] = self.betas, self.held.get("t", np.int64(0)) + 1
        for name, p in self.parts.items():
            m, v = self.held.setdefault(name, [0, 0])
            self.held[name] = m, v = [
                b1 * m + (1 - b1) * gradients[name],
                b2 * v + (1 - b2) * gradients[name] ** 2,
            ]
            p -= self.lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + self.eps)


def test_the_state_of_any_adam_is_kept():
    Adam, gradients = swap._adam(Lazy), [{"w": np.full(3, k + 1.0), "u": np.full(2, -2.0)} for k in range(4)]
    whole, first = (Adam({"w": np.zeros(3), "u": np.ones(2)}, lr=0.1) for _ in range(2))
    for optimizer, count in ((whole, 4), (first, 2)):
        optimizer.rates = {"u": 0.5}
        for g in gradients[:count]:
            optimizer.step(g)
    arrays, t = first.state()
    second = Adam({name: p.copy() for name, p in first.parameters.items()}, lr=0.1)
    second.rates = {"u": 0.5}
    second.load(arrays, t)
    for g in gradients[2:]:
        second.step(g)
    assert second.t == 4 and same(second.parameters, whole.parameters)


def test_what_is_wrong_or_not_written_stays_the_librarys(tmp_path, capsys):
    (tmp_path / "relu.py").write_text(SOLUTIONS["relu"].replace("dy * (x > 0)", "dy"))
    stub = Path(__file__).parents[1] / "lessons/exercises/tanh.py"
    (tmp_path / "tanh.py").write_text(stub.read_text())
    kept = ops.relu_backward
    assert tinynst.use(tmp_path) == [] and ops.relu_backward is kept
    out = capsys.readouterr().out
    assert "relu stays the library's: wrong, wrong-mask (dx) (relu.py)" in out
    assert "scaled_tanh stays the library's: not yet written" in out
    assert "does not have them: " in out and "conv2d" in out and out.endswith("on your code: nothing yet\n")
    with pytest.raises(UserError, match="is not a folder"):
        tinynst.use(tmp_path / "none")


LOOPS = "y = np.zeros_like(x)\n    for place in np.ndindex(x.shape):\n        y[place] = max(x[place], 0)\n"
LOOPS = changed(SOLUTIONS["relu"], "return np.maximum(x, 0), x", f"{LOOPS}    return y, x")
FLAT = "mean = x.mean(axis=AXES, keepdims=True)\n    var = (x * x).mean(axis=AXES, keepdims=True) - mean**2"
NORM = changed(
    SOLUTIONS["instance_norm"], "mean, var = x.mean(axis=AXES, keepdims=True), ", f"{FLAT}\n    _ = "
)
KINDS = {  # the exercise, its text, what is said
    "raises": (
        "relu",
        changed(SOLUTIONS["relu"], "dy * (", "dz * ("),
        "relu stays the library's: it raises Na",
    ),
    "no Python": ("relu", "def relu(:\n", "relu.py does not import: SyntaxError"),
    "endless": (
        "relu",
        changed(SOLUTIONS["relu"], "    return dy", "    while 1: pass\n    return dy"),
        "has run",
    ),
    "large": (
        "relu",
        changed(SOLUTIONS["relu"], "np.maximum(x, 0), x", "np.maximum(x, 0)[:, :9], x"),
        "relu stays the library's: wrong on a larger image: its shape is (1, 9, 16, 2)",
    ),
    "slow": ("relu", LOOPS, "times slower than the library's on a small image)"),
    "float64": (
        "max_pool",
        changed(SOLUTIONS["max_pool"], "(n, h, w, c), dy.dtype)", "(n, h, w, c))"),
        "wrong, max_pool2d_backward's result 0 is float64 where x is float32",
    ),
    "digits": ("instance_norm", NORM, "instance_norm stays the library's: it loses its digits in float32"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_code_that_is_not_as_it_should_be(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bounded, "LIMIT", 2)
    name, text, said = KINDS[kind]
    (tmp_path / f"{name}.py").write_text(text)
    try:
        assert tinynst.use(tmp_path) == (["relu"] if kind == "slow" else [])
    finally:
        tinynst.use(None)
    out = capsys.readouterr().out
    assert sum(said in line for line in out.splitlines()) == 1, out
    assert len(out.splitlines()) == (2 if kind == "slow" else 3)


def test_every_relu_is_the_learners_also_one_that_the_library_joins_with_another_operation(tmp_path):
    counting = "CALLS = []\n\n" + changed(
        SOLUTIONS["relu"], "    return np.max", "    CALLS.append(0); return np.max"
    )
    (tmp_path / "relu.py").write_text(counting)
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32)
    with swap.using(tmp_path):
        net, calls = style_net(width=2), ops.relu.__wrapped__.__globals__["CALLS"]
        before = len(calls)
        net.forward(x)
        assert len(calls) - before == 10  # ten norms of Table 1 are followed by a ReLU


# --- training on the learner's code ---

SMALL = {"iterations": 4, "every": 2, "batch": 2, "image_size": 32, "style_size": 48, "width": 2}
SMALL |= {"style_layers": ["relu1_2"], "content_layers": ["relu2_2"], "style_level": 0}
TWO = {
    "style": [STYLES / "night_cafe.jpg", STYLES / "starry_night.jpg"],
    "upsample": "smooth",
    "padding": "each",
}


@pytest.fixture
def small(tmp_path):
    images.save(tmp_path / "photos" / "chelsea.png", images.load(PHOTOS / "chelsea.jpg", 40))
    return SMALL | {"content": tmp_path / "photos", "samples": tmp_path / "photos" / "chelsea.png"}


def solved(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(SOLUTIONS[name])
    return folder


def test_a_run_on_the_learners_code_is_the_librarys_run_and_resumes_bit_for_bit(small, tmp_path, capsys):
    """Two styles: conditional norms and residual blocks. The state of Adam, with three rates, is theirs."""
    names = "adam", "instance_norm", "relu", "residual"
    own, small = solved(tmp_path / "own", *names), small | TWO
    library = train(StyleSettings(**small, out=tmp_path / "library"))
    capsys.readouterr()
    kept = ops.conv2d, ops.conditional_instance_norm, layers.Residual, optim.Adam, task.Adam
    run = train(StyleSettings(**small, ops=own, out=tmp_path / "run"))
    out = capsys.readouterr().out
    assert "on your code: Adam, instance_norm, relu, Residual\n" in out and "reflect_pad2d" in out
    assert kept == (ops.conv2d, ops.conditional_instance_norm, layers.Residual, optim.Adam, task.Adam)
    assert type(run.adam) is not type(library.adam)
    assert rows_of(run.out)[0] == pytest.approx(rows_of(library.out)[0], rel=1e-3)
    assert rows_of(run.out)[1] == pytest.approx(rows_of(library.out)[1], rel=0.05)
    assert rows_of(run.out) != rows_of(library.out)
    about = weights.read_about(run.out / "weights.h5")
    assert about["ops"] == ["Adam", "instance_norm", "relu", "Residual"]
    assert about["settings"]["ops"] == "own" and "ops" not in weights.read_about(library.out / "weights.h5")

    train(StyleSettings(**small | {"iterations": 2}, ops=own, out=tmp_path / "again"))
    train(StyleSettings(resume=True, iterations=4, out=tmp_path / "again"))
    assert same_run(tmp_path / "again", run.out)

    (own / "relu.py").write_text(SOLUTIONS["relu"] + "# a word more\n")
    for settings in ({"out": run.out}, {"out": library.out, "ops": solved(tmp_path / "one", "relu")}):
        before = net_of(settings["out"])
        with pytest.raises(UserError, match=r"--ops: the run was started with other functions, .*: relu"):
            train(StyleSettings(resume=True, iterations=6, **settings))
        assert same(net_of(settings["out"]), before)


def test_what_the_learners_code_raises_in_a_run_is_one_line_with_its_place(small, tmp_path):
    """Right in its check, which has a bias and small images, and not in a net."""
    own = solved(tmp_path / "own")
    picky = changed(SOLUTIONS["conv"], "    xp = np.pad", "    assert h < 30, 'too high'\n    xp = np.pad")
    wide = changed(SOLUTIONS["conv"], "o), x.dtype)", "o), np.float64 if b is None else x.dtype)")
    for text, said in (
        (picky, r"AssertionError: too high \(.*conv.py, line 8"),
        (wide, "your conv2d is float64"),
    ):
        (own / "conv.py").write_text(text)
        with pytest.raises(UserError, match=said):
            train(StyleSettings(**small, ops=own, out=tmp_path / "run"))
        assert ops.conv2d.__module__ == "tinynst.ops.conv"  # the library's, named after its plain version
    (own / "conv.py").unlink()
    out = tmp_path / "nothing"
    command = [sys.executable, "-m", "tinynst.train", "--ops", own / "none", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith("name the one that holds your exercises\n")
    assert not out.exists()


def cell(text):
    """Run a notebook's cell: code that inspect does not find, but linecache does."""
    name, space = f"<cell {len(text)}>", {"np": np, "__name__": "__main__"}
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    exec(compile(text, name, "exec"), space)
    return space


def test_what_a_notebook_solved_is_saved_where_its_stub_is(tmp_path, capsys):
    stubs = Path(__file__).parents[1] / "lessons/exercises"
    for name in ("conv", "adam"):
        shutil.copy(stubs / f"{name}.py", tmp_path)
    conv = cell(SOLUTIONS["conv"])
    assert tinynst.save("conv2d", conv["conv2d"], conv["conv2d_backward"], folder=tmp_path).passed
    adam = cell("x = 1\n" + SOLUTIONS["adam"].replace("class Adam", "class MyAdam"))
    assert tinynst.save("Adam", adam["MyAdam"], folder=tmp_path).passed
    relu = cell(SOLUTIONS["relu"])
    assert tinynst.save("relu", relu["relu"], relu["relu_backward"], folder=tmp_path).passed
    assert {path.stem for path in tmp_path.iterdir()} == {"adam", "conv", "relu"}
    assert tinynst.use(tmp_path) == ["Adam", "conv2d", "relu"]
    tinynst.use(None)
    assert f"saved: {tmp_path / 'conv.py'}" in capsys.readouterr().out


def test_the_functions_that_a_solution_calls_are_saved_with_it(tmp_path):
    calls = """
def style_loss(f, target_gram):
    gram, cache = gram_matrix(f)
    df = gram_matrix_backward(2 * (gram - target_gram) / len(f), cache)
    return ((gram - target_gram) ** 2).sum() / len(f), df
"""
    space = cell(SOLUTIONS["gram"] + calls)
    assert tinynst.save("style_loss", space["style_loss"], folder=tmp_path).passed
    text = (tmp_path / "style_loss.py").read_text()
    assert 0 < text.index("def gram_matrix(") < text.index("def style_loss(")


def test_what_does_not_pass_is_not_saved(tmp_path, capsys):
    wrong = cell(SOLUTIONS["relu"].replace("dy * (x > 0)", "dy"))
    assert not tinynst.save("relu", wrong["relu"], wrong["relu_backward"], folder=tmp_path).passed
    assert "not saved, because it does not pass yet: relu" in capsys.readouterr().out
    helped = cell(
        "positive = np.sign\n" + SOLUTIONS["relu"].replace("dy * (x > 0)", "dy * (positive(x) > 0)")
    )
    with pytest.raises(
        UserError, match=r"passes here and not in a file of its own.*'positive' is not defined"
    ):
        tinynst.save("relu", helped["relu"], helped["relu_backward"], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_name_of_the_package_is_there():
    for name in tinynst.__all__:
        assert getattr(tinynst, name) is not None
    for name in ("stylize", "train", "train_superres", "gradcheck"):
        assert callable(getattr(tinynst, name))
    with pytest.raises(AttributeError, match="has no attribute 'load_stile'"):
        tinynst.load_stile  # noqa: B018
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 2))
    assert tinynst.gradcheck(ops.relu, ops.relu_backward, (x,)).passed is True


def test_on_a_gpu_only_code_that_runs_there_is_used(tmp_path, strict, capsys):
    (tmp_path / "relu.py").write_text(changed(SOLUTIONS["relu"], "np.maximum(x, 0)", "x * (x > 0)"))
    (tmp_path / "tanh.py").write_text(SOLUTIONS["tanh"])  # np.tanh does not take the stand-in's arrays
    with swap.using(tmp_path, strict) as used:
        assert list(used) == ["relu"]
        x = strict.asarray(np.array([-1.0, 2.0]))
        assert isinstance(ops.relu(x)[0], strict.ndarray)
    assert "scaled_tanh stays the library's: it raises " in capsys.readouterr().out
