"""A learner's functions in place of the library's, and the names that `import tinynst` offers."""

import linecache
import shutil
from pathlib import Path

import numpy as np
import pytest
from solutions import SOLUTIONS

import tinynst
from tinynst import layers, losses, ops, optim
from tinynst.errors import UserError
from tinynst.networks import VGG16, style_net
from tinynst.training import task


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


def test_what_is_wrong_or_not_written_stays_the_librarys(tmp_path, capsys):
    (tmp_path / "relu.py").write_text(SOLUTIONS["relu"].replace("dy * (x > 0)", "dy"))
    stub = Path(__file__).parents[1] / "lessons/exercises/tanh.py"
    (tmp_path / "tanh.py").write_text(stub.read_text())
    kept = ops.relu_backward
    assert tinynst.use(tmp_path) == [] and ops.relu_backward is kept
    out = capsys.readouterr().out
    assert "relu stays (wrong: tinynst gradcheck" in out and "scaled_tanh stays (not yet written)" in out
    with pytest.raises(UserError, match="is not a folder"):
        tinynst.use(tmp_path / "none")


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
