import subprocess
import sys

import numpy as np
import pytest

from tinynst.data import checkpoint


def example(seed=0):
    rng = np.random.default_rng(seed)
    odd = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    view = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    weights = {"conv10.w": rng.standard_normal((3, 3, 4, 5)).astype(np.float32), "conv2.b": odd}
    moments = {"conv10.w": rng.standard_normal((3, 3, 4, 5)), "steps": np.arange(7), "scale": np.array(1 / 3)}
    state = {
        "iteration": 120,
        "seed": 2**80,
        "settings": {"style": "Münch.jpg"},
        "losses": [0.1, 1 / 3, 1e-30],
    }
    return {"weights": weights, "adam.m": moments, "adam.v": {}, "view": {"a": view}}, state


def test_round_trip_is_bit_exact(tmp_path):
    arrays, state = example()
    checkpoint.save(tmp_path / "run.h5", arrays, state)
    loaded, loaded_state = checkpoint.load(tmp_path / "run.h5")
    assert loaded_state == state and list(loaded) == list(arrays)
    for group, named in arrays.items():
        assert list(loaded[group]) == list(named)  # the order too, not h5py's alphabet
        for name, array in named.items():
            found = loaded[group][name]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert found.tobytes() == array.tobytes()


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


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_is_an_error_and_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.h5"
    checkpoint.save(path, {"net": {"a": np.ones(3)}}, {"iteration": 1, "settings": {}})
    code = """if True:
        import resource, sys, numpy as np; from tinynst.data import checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        try: checkpoint.save(sys.argv[1], {'net': {'a': np.ones(100000)}}, {'iteration': 2, 'settings': {}})
        except OSError as error: sys.exit('refused: ' + str(error))"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("refused:") and "checkpoint.h5" in done.stderr, (
        done.returncode,
        done.stderr,
    )
    assert checkpoint.load(path)[1]["iteration"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.h5"]
