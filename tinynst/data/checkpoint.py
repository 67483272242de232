"""The state of a training run in one HDF5 file, so that a stopped run can resume."""

import json

from .hdf5 import create_hdf5, open_hdf5, write_arrays

FORMAT, VERSION = "tinynst checkpoint", 1
STATE = {"iteration": int, "settings": dict}
_EXPECTED = "a checkpoint that a run of tinynst wrote; without --resume the run starts anew"


def save(path, arrays, state):
    """Write a checkpoint; what stood at `path` stays until the new one is complete.

    arrays: {group: {name: array}}, NumPy or CuPy, any number type: the weights, Adam's two moments
    state:  a dict that JSON can hold: iteration, seed, settings, losses so far

    Arrays come back bit for bit and floats exactly; JSON turns tuples into lists and keys into strings. The
    file is not compressed because it is written often. Raises TypeError for a state that JSON cannot hold.
    """
    text = json.dumps(state)
    with create_hdf5(path) as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.create_dataset("state", data=text)
        groups = file.create_group("arrays", track_order=True)
        for group, named in arrays.items():
            write_arrays(groups.create_group(group, track_order=True), named)


def load(path):
    """Read a checkpoint: (arrays, state) as `save` took them, the arrays in NumPy and in the same order.

    Raises UserError for a file that is missing, cut short, damaged, not a checkpoint, or of a newer version.
    """
    with open_hdf5(path, _EXPECTED) as file:
        file.check_header(FORMAT, VERSION)
        names = {group: file.names(f"arrays/{group}") for group in file.names("arrays")}
        arrays = {g: {n: file.array(f"arrays/{g}/{n}", "numbers") for n in names[g]} for g in names}
        return arrays, file.json("state", STATE)
