import json

import h5py
import numpy as np
import pytest

from tinynst.data import checkpoint
from tinynst.errors import UserError


def example(seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "weights": {
            "conv10.w": rng.standard_normal((3, 3, 4, 5)).astype(np.float32),
            "conv2.b": np.zeros(5, np.float32),
        },
        "adam.m": {
            "conv10.w": rng.standard_normal((3, 3, 4, 5)),
            "steps": np.arange(7),
            "scale": np.array(1 / 3),
        },
        "adam.v": {},
    }
    state = {
        "iteration": 120,
        "seed": 2**80,
        "settings": {"style": "Münch.jpg"},
        "losses": [0.1, 1 / 3, 1e-30],
    }
    return arrays, state


def test_round_trip_is_bit_exact(tmp_path):
    arrays, state = example()
    arrays["weights"]["odd"] = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    checkpoint.save(tmp_path / "run.h5", arrays, state)
    loaded, loaded_state = checkpoint.load(tmp_path / "run.h5")
    assert loaded_state == state
    assert list(loaded) == list(arrays)
    for group, named in arrays.items():
        assert list(loaded[group]) == list(named)  # the order too, not h5py's alphabet
        for name, array in named.items():
            assert loaded[group][name].dtype == array.dtype
            assert loaded[group][name].shape == array.shape
            assert loaded[group][name].tobytes() == array.tobytes()


def test_views_are_saved_as_they_look(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    checkpoint.save(tmp_path / "run.h5", {"weights": {"a": array}}, {})
    assert np.array_equal(checkpoint.load(tmp_path / "run.h5")[0]["weights"]["a"], array)


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "run.h5"
    checkpoint.save(path, *example())
    before = path.read_bytes()
    arrays, state = example(seed=1)
    with pytest.raises(TypeError):
        checkpoint.save(path, arrays, state | {"device": object()})
    with pytest.raises(ValueError, match="a/b"):
        checkpoint.save(path, {"weights": {"first": np.zeros(3), "a/b": np.zeros(3)}}, state)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]


def message_of(path):
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_no_checkpoint_is_named(tmp_path):
    assert "does not exist" in message_of(tmp_path / "none.h5")
    assert "is a folder" in message_of(tmp_path)
    (tmp_path / "text.h5").write_text("hello")
    assert "not an HDF5 file" in message_of(tmp_path / "text.h5")
    (tmp_path / "empty.h5").write_bytes(b"")
    assert "not an HDF5 file" in message_of(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert "some other program" in message_of(tmp_path / "foreign.h5")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_truncated(tmp_path, part):
    whole, cut = tmp_path / "whole.h5", tmp_path / "cut.h5"
    checkpoint.save(whole, *example())
    content = whole.read_bytes()
    cut.write_bytes(content[: int(part * len(content))])
    message = message_of(cut)
    assert "cut short" in message
    assert "without --resume" in message


def test_newer_version(tmp_path):
    path = tmp_path / "run.h5"
    checkpoint.save(path, *example())
    with h5py.File(path, "a") as file:
        file.attrs["version"] = checkpoint.VERSION + 1
    assert "install a newer tinynst" in message_of(path)


@pytest.mark.parametrize("damage", ["state", "arrays", "json", "version"])
def test_damaged_inside(tmp_path, damage):
    path = tmp_path / "run.h5"
    checkpoint.save(path, *example())
    with h5py.File(path, "a") as file:
        if damage == "version":
            del file.attrs["version"]
        else:
            del file["state" if damage == "json" else damage]
        if damage == "json":
            file["state"] = json.dumps({"iteration": 3})[:-2]
    assert "is damaged" in message_of(path)
