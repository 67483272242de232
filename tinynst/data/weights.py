"""Weights in and out of HDF5 files: trained nets, and VGG-16 in the layout of Keras.

A weights file holds the group `arrays`, a text `about` (JSON: kind, settings, ...) and maybe a `thumbnail`.
VGG-16 keeps the layout of Keras, so one reader handles both the file that ships and one from Keras.
"""

import json
import re
from pathlib import Path

import numpy as np

from ..device import to_numpy
from ..errors import UserError
from .hdf5 import create_hdf5, open_hdf5, write_arrays

FORMAT, VERSION = "tinynst weights", 1
COMPRESSED = {"compression": "gzip", "shuffle": True}  # lossless

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "shipped" / "weights"
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "weights"  # the latter in a checkout

# What `about` says, as far as it is used (see `Reader.json`)
_NET = {"norm?": str, "upsample?": str, "width?": int, "padding?": str, "factor?": int, "residual?": bool}
_OBJECTIVE = {"content_layers?": [str], "content_weights?": [float], "style_layers?": [str]}
_OBJECTIVE |= {"style_weights?": [float], "tv_weight?": float, "style_size?": int, "style_level?": float}
_STYLE = {"name": str, "title?": str, "painter?": str, "painting?": str, "thumbnail?": str}
ABOUT = {"kind": str, "summary?": str, "style_image?": str, "factor?": int, "settings?": _NET | _OBJECTIVE}
ABOUT |= {"styles?": [_STYLE | {"objective?": _OBJECTIVE}]}
ANY = "weights of tinynst's, or a VGG-16 file of Keras's"

VGG16_CHANNELS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)  # by block, by layer


def save(path, arrays, about, half=False, thumbnail=None):
    """Write the weights of a net, compressed without loss. The same arguments give the same bytes.

    arrays:    {"conv1.w": array, ...}, NumPy or CuPy, stored as float32
    about:     a dict for JSON: "kind" ("style", "superres"), "settings" for `load_net`, "summary" for `list`
    half:      store kernels as float16: half the size, a relative error of 2e-4
    thumbnail: (H, W, 3) uint8, RGB: a small picture of the style

    Raises ValueError without a kind, UserError for numbers that float16 cannot hold.
    """
    if not isinstance(about.get("kind"), str):
        raise ValueError(f'about["kind"] must be a text such as "style"; got {about.get("kind")!r}')
    with create_hdf5(path) as file:
        _write_about(file, about)
        write_arrays(file.create_group("arrays", track_order=True), _stored(arrays, half), **COMPRESSED)
        if thumbnail is not None:
            write_arrays(file, {"thumbnail": thumbnail}, **COMPRESSED)


def _write_about(file, about):
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    file.create_dataset("about", data=json.dumps(about), track_times=False)


def _stored(arrays, half):
    """`arrays` as float32; with `half` the kernels as float16, but no vectors: they are small, and a running
    variance can exceed 65504, the largest float16."""
    stored = {name: to_numpy(array).astype(np.float32, copy=False) for name, array in arrays.items()}
    for name, array in stored.items():
        if half and array.ndim > 1:
            with np.errstate(over="ignore"):
                small = stored[name] = array.astype(np.float16)
            kernel = tuple(range(array.ndim - 1))  # all axes of one kernel; the last axis numbers the kernels
            if not np.array_equal(np.isfinite(small), np.isfinite(array)):
                raise UserError(f"{name} has numbers beyond float16's 65504: store it without --half")
            if np.any(array.any(kernel) & ~small.any(kernel)):
                raise UserError(f"{name} has a kernel that float16 rounds to zeros: store it without --half")
    return stored


def load(path):
    """Read a file that `save` wrote: ({name: float32 array}, about). Raises UserError for any other file."""
    with open_hdf5(path, "weights of a net trained with tinynst (a .h5 file)") as file:
        about, names = _about(file), file.names("arrays")
        return {n: file.array(f"arrays/{n}", "weights").astype(np.float32) for n in names}, about


def load_net(name_or_path, kind, make, options, later=()):
    """(net, about) of weights of this `kind`, "style" or "superres", given by a shipped name or a path.

    make: builds the net from the recorded settings named in `options`, and in `later` if they are recorded
    Raises UserError, naming the file, if it is missing, of another kind, or does not fit the net.
    """
    path = find(name_or_path, kind)
    arrays, about = load(path)
    settings = about.get("settings") or {}
    if not set(options) <= set(settings):
        names = ", ".join(options)
        raise UserError(f"{path} does not record all of its net's settings ({names}): train this net again")
    try:  # without a seed: zeros, which take no memory until the shapes have been compared
        net = make(**{name: settings[name] for name in (*options, *later) if name in settings}, seed=None)
        net.load(arrays)
    except (TypeError, ValueError, MemoryError, OverflowError) as error:
        raise UserError(f"{path} does not make a {kind} net: {error}") from error
    return net, about


def read_about(path):
    """The description stored with weights: a dict with at least "kind" ("style", "superres", "vgg16")."""
    with open_hdf5(path, ANY) as file:
        return _about(file)


def _about(file):
    if file.attribute("format") is None and _keras_arrays(file):
        return {"kind": "vgg16", "summary": "a VGG-16 file as Keras writes it"}
    file.check_header(FORMAT, VERSION)
    return file.json("about", ABOUT)


def read_thumbnail(path):
    """The picture stored with weights, (H, W, 3) uint8, or None."""
    with open_hdf5(path, ANY) as file:
        return file.array("thumbnail", "bytes", ("H", "W", 3)) if "thumbnail" in file.items else None


def read_types(path):
    """{name: (shape, dtype)} of the arrays in a weights file."""
    with open_hdf5(path, ANY) as file:
        keras = _about(file)["kind"] == "vgg16"
        names = _keras_arrays(file) if keras else {name: f"arrays/{name}" for name in file.names("arrays")}
        found = {name: file.dataset(stored, "weights") for name, stored in names.items()}
        return {name: (array.shape, array.dtype) for name, array in found.items()}


def shipped(kind="style"):
    """The sorted names of the weights of this `kind` (None: any) that ship with tinynst."""
    return [path.stem for path in sorted(SHIPPED.glob("*.h5")) if kind in (None, read_about(path)["kind"])]


def find(name_or_path, kind="style"):
    """The Path of weights of this `kind` (None: any), given by a shipped name or, if there is none, a path.

    Raises UserError, with the shipped names, if there is neither or the file holds another kind.
    """
    path = Path(name_or_path)
    if path.name == str(name_or_path) and (SHIPPED / f"{path}.h5").is_file():
        path = SHIPPED / f"{path}.h5"
    what = f"{kind} weights" if kind else "weights"
    problem = f"there are no {what} called '{name_or_path}'"
    if path.exists():
        found = read_about(path)["kind"]
        if kind in (None, found):
            return path
        problem = f"'{name_or_path}' holds {found} weights, not {what}"
    names = ", ".join(shipped(kind)) or "none ship"
    raise UserError(f"{problem}: give the path of a .h5 file or a shipped name ({names})")


def vgg16_shapes():
    """{"conv1_1": (3, 3, 3, 64), ...}: the kernel (KH, KW, C, O) of each of the 13 layers, in order."""
    names = [f"conv{k}_{n}" for k, widths in enumerate(VGG16_CHANNELS, 1) for n in range(1, len(widths) + 1)]
    widths = [3, *(width for block in VGG16_CHANNELS for width in block)]
    return {name: (3, 3, *widths[k : k + 2]) for k, name in enumerate(names)}


def read_vgg16(path=None):
    """The 13 convolutions of VGG-16, {"conv1_1": (w, b), ...} in order; None: the weights that ship.

    w is (3, 3, C, O) and b (O,), float32, as in the file: conv1_1 expects BGR in 0..255 minus the mean. Reads
    our vgg16.h5 and the files of Keras. Raises UserError for any other file, naming the layer at fault.
    """
    path = SHIPPED / "vgg16.h5" if path is None else Path(path)
    expected = "a VGG-16 file: our vgg16.h5, or Keras's vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    layers = {}
    with open_hdf5(path, expected) as file:
        stored = _keras_arrays(file)
        if "conv3_4.w" in stored:
            raise UserError(f"{path} is a VGG-19 (it has a conv3_4); expected {expected}")
        for name, shape in vgg16_shapes().items():
            where = f"layer {name} ({_keras_name(name)} in Keras's names)"
            w = file.array(stored.get(f"{name}.w"), "weights", shape, f"the kernel of {where}")
            b = file.array(stored.get(f"{name}.b"), "weights", shape[-1:], f"the bias of {where}")
            layers[name] = w.astype(np.float32), b.astype(np.float32)
    return layers


def write_vgg16(path, layers, about, half=False):
    """As `save`, for VGG-16's `layers` ({"conv1_1": (w, b), ...}), in the layout of Keras."""
    with create_hdf5(path) as file:
        _write_about(file, about)
        file.attrs["layer_names"] = [_keras_name(name) for name in layers]  # by these two lists Keras loads
        for name, (w, b) in layers.items():
            group = file.create_group(_keras_name(name))
            arrays = {f"{_keras_name(name)}_W_1:0": w, f"{_keras_name(name)}_b_1:0": b}
            group.attrs["weight_names"] = list(arrays)
            write_arrays(group, _stored(arrays, half), **COMPRESSED)


def _keras_name(name):  # conv1_2 is block1_conv2 in Keras
    return f"block{name[4]}_conv{name[6]}"


def _keras_arrays(file):
    """{"conv1_1.w": name of the kernel, with four axes, "conv1_1.b": that of the bias, with one, ...} in a
    VGG-16 file of any version of Keras. Their own names have changed (block1_conv1_W_1:0, kernel:0, vars/0).

    Named: /block1_conv1/... (what Keras downloads), or nested, /model_weights/block1_conv1/... (a whole saved
    model). Keras 3 and 2.13, .weights.h5: no names but an order, /layers/conv2d, conv2d_1, ..., conv2d_12
    (keras/src/saving/saving_lib.py, _save_container_state).
    """
    order, found = {f"conv2d_{k}" if k else "conv2d": name for k, name in enumerate(vgg16_shapes())}, {}

    def collect(pattern):
        for name, item in file.items.items():
            part = {4: "w", 1: "b"}.get(getattr(item, "ndim", None))
            match = re.search(pattern, name)
            if part and match:
                layer = order.get(match[1]) or "conv{}_{}".format(*match.groups())
                found.setdefault(f"{layer}.{part}", name)

    inside = "^model_weights/(?:.*/)?" if "model_weights" in file.items else "(?:^|/)"  # not the optimizer's
    collect(rf"{inside}block(\d)_conv(\d)/")
    for parent in ("layers", "_layer_checkpoint_dependencies"):
        numbered = {name for name in file.items if re.fullmatch(rf"{parent}/conv2d(_\d+)?", name)}
        if not found and numbered == {f"{parent}/{name}" for name in order}:
            collect(rf"^{parent}/(conv2d(?:_\d+)?)/")
    return dict(sorted(found.items()))
