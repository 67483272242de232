"""Weights in and out of HDF5 files: trained nets, the VGG-16 that ships, the VGG-16 files that Keras writes.

A weights file of ours holds the group `arrays`, a text `about` (JSON: kind, settings, ...) and perhaps a `thumbnail`.
VGG-16 keeps Keras's layout, so that one reader serves the file that ships and the file a user brings.
"""

import contextlib
import hashlib
import io
import json
import re
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from ..cli import Parser
from ..device import to_numpy
from ..errors import UserError
from .files import written_whole

FORMAT, VERSION = "tinynst weights", 1

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "shipped" / "weights"
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "weights"  # else: a checkout

VGG16_CHANNELS = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)  # by block, by layer


def _vgg16_shapes():
    """{"conv1_1": (3, 3, 3, 64), ...}: the kernel (KH, KW, C, O) of each of the 13 layers, in order."""
    shapes, channels = {}, 3
    for block, widths in enumerate(VGG16_CHANNELS, start=1):
        for number, width in enumerate(widths, start=1):
            shapes[f"conv{block}_{number}"] = (3, 3, channels, width)
            channels = width
    return shapes


# Reading and writing HDF5 ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_hdf5(path, expected):
    """Yield the HDF5 file at `path`, open for reading; `expected` says in a few words what it should be.

    Raises UserError, in one line, where the file is missing, cut short, not HDF5, or damaged (found on opening or while
    the block reads).
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected {expected}")
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected {expected}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError:
        raise UserError(f"{path} may not be read: change its permissions") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py raises all four on damaged files
        if "truncated" in str(error):
            reason = f"is cut short at {path.stat().st_size:,} bytes: copy or make it again"
        elif not h5py.is_hdf5(path):
            reason = "is not an HDF5 file"
        else:
            reason = f"is damaged ({error}): copy or make it again"
        raise UserError(f"{path} {reason}; expected {expected}") from None


@contextlib.contextmanager
def create_hdf5(path):
    """Yield a new HDF5 file that takes the place of `path` when the block ends well. It is made in memory: where the disk
    is full, HDF5 itself would crash, and this way it is an ordinary OSError."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file
    with written_whole(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def check_header(file, path, format, version, expected):
    """Raise UserError unless the open HDF5 `file` says that it is `format`, of `version` or older."""
    found = file.attrs.get("format")
    if found != format:
        what = f"a file of {found}" if isinstance(found, str) else "an HDF5 file of some other program"
        raise UserError(f"{path} is {what}; expected {expected}")
    if file.attrs["version"] > version:
        raise UserError(
            f"{path} has version {file.attrs['version']} of '{format}', this program reads up to {version}: "
            "install a newer tinynst"
        )


def write_arrays(group, arrays, **storage):
    """Write the dict `arrays` into the HDF5 `group`; `storage` goes to h5py, except that scalars are stored plainly."""
    for name, array in arrays.items():
        if "/" in name:
            raise ValueError(f"an array's name may hold no '/' (HDF5 reads it as a folder), got {name!r}")
        array = to_numpy(array)
        options = storage if array.size > 1 else {}
        group.create_dataset(
            name, data=array, track_times=False, **options
        )  # no times: same content, same bytes


def read_arrays(group):
    """The arrays of an HDF5 `group`, as they were written, as a dict in the order they were written in."""
    return {name: dataset[...] for name, dataset in group.items()}


def _write_header(file, about):
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    file.create_dataset("about", data=json.dumps(about), track_times=False)


def _stored(arrays, half):
    """`arrays` as they go into the file: float32, and with `half` the kernels (two axes or more) float16.

    Vectors stay float32: they are few, and a running variance can pass float16's 65504. Raises UserError where
    float16 would turn a number into infinity or a whole kernel into zeros.
    """
    stored = {name: to_numpy(array).astype(np.float32, copy=False) for name, array in arrays.items()}
    for name, array in stored.items():
        if not half or array.ndim < 2:
            continue
        with np.errstate(over="ignore"):
            small = array.astype(np.float16)
        if not np.array_equal(np.isfinite(small), np.isfinite(array)):
            raise UserError(f"{name} has numbers beyond float16's 65504: store these weights without --half")
        each = tuple(range(array.ndim - 1))  # all axes but the last: one kernel
        if np.any(np.any(array, axis=each) & ~np.any(small, axis=each)):
            raise UserError(
                f"{name} has a kernel that float16 rounds to zeros: store these weights without --half"
            )
        stored[name] = small
    return stored


# Weights of our own nets ----------------------------------------------------------------------------------------------


def save(path, arrays, about, half=False, thumbnail=None):
    """Write the weights of a net, whole or not at all, compressed without loss (gzip after a byte shuffle).

    arrays:    {"conv1.w": array, ...}, NumPy or CuPy, stored as float32
    about:     a dict that JSON can hold, with `about["kind"]`, "style" or "superres", and what a reader wants to know:
               settings, style image, iterations, final losses; `about["summary"]` is its line in `weights list`
    half:      store the kernels as float16: half the size, a relative error of 2e-4; vectors stay float32
    thumbnail: (H, W, 3) uint8, RGB: a small picture of the style

    The same arguments give the same bytes. Raises ValueError for a wrong argument, UserError where float16 is too small.
    """
    if not isinstance(about.get("kind"), str):
        raise ValueError(
            f'about["kind"] must say what the weights are, as "style"; got {about.get("kind")!r}'
        )
    if thumbnail is not None and (
        thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3
    ):
        raise ValueError(f"thumbnail must be (H, W, 3) uint8, got {thumbnail.shape} {thumbnail.dtype}")
    with create_hdf5(path) as file:
        _write_header(file, about)
        group = file.create_group("arrays", track_order=True)
        write_arrays(group, _stored(arrays, half), compression="gzip", shuffle=True)
        if thumbnail is not None:
            write_arrays(file, {"thumbnail": thumbnail}, compression="gzip", shuffle=True)


def load(path):
    """Read a file that `save` wrote: ({name: float32 array}, about). Raises UserError where it is anything else."""
    expected = "weights of a net trained with tinynst (a .h5 file)"
    with open_hdf5(path, expected) as file:
        about = _about(file, path)
        if "arrays" not in file:
            raise UserError(f"{path} holds {about['kind']} weights; expected {expected}")
        arrays = {name: array.astype(np.float32) for name, array in read_arrays(file["arrays"]).items()}
    return arrays, about


def load_net(name_or_path, kind, make, options, later=()):
    """The net that the weights of this `kind` belong to: (net, about).

    make: builds the net from its `options`, (name, ...), which the weights record among their settings; those of `later` only
        where they were recorded
    Raises UserError, naming the file, where there is none, where it holds another kind, and where its settings or arrays do
    not make a net.
    """
    path = find(name_or_path, kind)
    arrays, about = load(path)
    settings = about.get("settings")
    if not isinstance(settings, dict) or not set(options) <= set(settings):
        raise UserError(
            f"{path} does not record all of its net's settings ({', '.join(options)}): train this net again"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(
            f"{path} holds numbers that are not finite: the training diverged, or the file is damaged"
        )
    try:
        net = make(**{name: settings[name] for name in (*options, *later) if name in settings})
        net.load(arrays)
    except (TypeError, ValueError, MemoryError) as error:
        raise UserError(f"{path} does not make a {kind} net: {error}") from error
    return net, about


def read_about(path):
    """What the weights at `path` say of themselves: a dict with at least "kind" ("style", "superres", "vgg16")."""
    with open_hdf5(path, "weights: a .h5 file of tinynst's, or a VGG-16 file of Keras's") as file:
        return _about(file, path)


def _about(file, path):
    if file.attrs.get("format") is None and _keras_groups(file):
        return {
            "kind": "vgg16",
            "summary": "a VGG-16 file as Keras writes it",
        }  # Keras's files say nothing themselves
    check_header(file, path, FORMAT, VERSION, "weights of tinynst's, or a VGG-16 file of Keras's")
    return json.loads(file["about"][()])


def read_thumbnail(path):
    """The picture stored with the weights at `path`, (H, W, 3) uint8, or None where there is none."""
    with open_hdf5(path, "weights: a .h5 file") as file:
        return file["thumbnail"][...] if "thumbnail" in file else None


def shipped(kind="style"):
    """The names of the weights of this `kind` that ship with tinynst, sorted; None: of every kind."""
    return [path.stem for path in sorted(SHIPPED.glob("*.h5")) if kind in (None, read_about(path)["kind"])]


def find(name_or_path, kind="style"):
    """The Path of weights of this `kind` (None: any), given by a shipped name ("starry_night") or a path to a file.

    A plain name means shipped weights first, then a file. Raises UserError, with the shipped names, where there is
    neither, and where the file holds another kind.
    """
    path = Path(name_or_path)
    if path.name == str(name_or_path) and (SHIPPED / f"{path}.h5").is_file():
        path = SHIPPED / f"{path}.h5"
    what = f"{kind} weights" if kind else "weights"
    advice = f"give the path of a .h5 file or a shipped name ({', '.join(shipped(kind)) or 'none ship'})"
    if not path.exists():
        raise UserError(f"there are no {what} called '{name_or_path}': {advice}")
    found = read_about(path)["kind"]
    if kind not in (None, found):
        raise UserError(f"'{name_or_path}' holds {found} weights, not {what}: {advice}")
    return path


# VGG-16 ---------------------------------------------------------------------------------------------------------------


def read_vgg16(path=None):
    """The 13 convolutions of VGG-16, {"conv1_1": (w, b), ...} in order; None: the weights that ship.

    w is (3, 3, C, O) and b (O,), float32, as in the file: conv1_1 wants its input channels in BGR order, in 0..255
    less the mean. Reads vgg16.h5 of this project and Keras's files, with and without the top (see `_keras_groups`).
    Raises UserError for a file that is anything else, naming the layer that is missing or has the wrong shape.
    """
    path = SHIPPED / "vgg16.h5" if path is None else Path(path)
    expected = (
        "a VGG-16 file: vgg16.h5 of tinynst's, or Keras's vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    )
    layers = {}
    with open_hdf5(path, expected) as file:
        groups = _keras_groups(file)
        if "conv3_4" in groups:
            raise UserError(f"{path} is a VGG-19 (it has a conv3_4); expected {expected}")
        for name, shape in _vgg16_shapes().items():
            if name not in groups:
                raise UserError(
                    f"{path} has no layer {name} ({_keras_name(name)} in Keras's names); expected {expected}"
                )
            datasets = _kernel_and_bias(groups[name])
            for part, dataset, wanted in zip(("kernel", "bias"), datasets, (shape, shape[-1:]), strict=True):
                if dataset is None:
                    raise UserError(f"{path}: layer {name} has no {part}; expected {expected}")
                if dataset.shape != wanted:
                    what = f"the {part} of layer {name} has shape {dataset.shape}, not {wanted}"
                    raise UserError(f"{path}: {what}; expected {expected}")
            layers[name] = tuple(dataset[...].astype(np.float32) for dataset in datasets)
    return layers


def write_vgg16(path, layers, about, half=False):
    """Write `layers` ({"conv1_1": (w, b), ...}) in the layout of Keras's file, compressed; `half`: kernels in float16.

    The same arguments give the same bytes. Raises UserError where float16 is too small.
    """
    with create_hdf5(path) as file:
        _write_header(file, about)
        file.attrs["layer_names"] = [
            _keras_name(name) for name in layers
        ]  # Keras loads what these two lists name
        for name, (w, b) in layers.items():
            keras_name = _keras_name(name)
            arrays = {f"{keras_name}_W_1:0": w, f"{keras_name}_b_1:0": b}
            group = file.create_group(keras_name)
            group.attrs["weight_names"] = list(arrays)
            write_arrays(group, _stored(arrays, half), compression="gzip", shuffle=True)


def _keras_name(name):
    """conv1_2 is Keras's block1_conv2."""
    return f"block{name[4]}_conv{name[6]}"


def _keras_groups(file):
    """{"conv1_1": HDF5 group, ...}: the convolutions in a VGG-16 file, whichever Keras wrote it.

    - named, at the top: /block1_conv1/..., the files that Keras's applications download, and save_weights
    - named, deeper: /model_weights/block1_conv1/... (a whole model saved) or a VGG inside another model
    - Keras 3's .weights.h5 (Keras 2.13's too) gives no names but an order: /layers/conv2d, conv2d_1, ..., conv2d_12
      (keras/src/saving/saving_lib.py, _save_container_state)
    """
    groups = {}

    def visit(path, item):
        named = re.search(r"(?:^|/)block(\d)_conv(\d)$", path)
        if named and isinstance(item, h5py.Group):
            groups.setdefault(
                f"conv{named[1]}_{named[2]}", item
            )  # Keras 2 nests the name: the outer group comes first

    file.get("model_weights", file).visititems(
        visit
    )  # a whole model also holds the optimizer's arrays by these names
    for parent in ("layers", "_layer_checkpoint_dependencies"):
        convolutions = [
            name for name in file.get(parent, ()) if name == "conv2d" or name.startswith("conv2d_")
        ]
        if not groups and len(convolutions) == 13:
            for index, name in enumerate(_vgg16_shapes()):
                groups[name] = file[parent][f"conv2d_{index}" if index else "conv2d"]
    return groups


def _kernel_and_bias(group):
    """The one dataset with four axes and the one with one axis beneath `group`, None for one that is not there.

    Their names changed with Keras's versions (block1_conv1_W_1:0, block1_conv1/kernel:0, kernel, vars/0), their axes not.
    """
    datasets = []
    group.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
    return tuple(next((dataset for dataset in datasets if dataset.ndim == axes), None) for axes in (4, 1))


def _about_keras(layers):
    """What a vgg16.h5 made from Keras's file says of itself: by its numbers alone, so equal numbers give equal files."""
    digest = hashlib.sha256()
    for w, b in layers.values():
        digest.update(w.tobytes() + b.tobytes())
    return {
        "kind": "vgg16",
        "summary": "the 13 convolutions of VGG-16, for the losses",
        "credit": "K. Simonyan and A. Zisserman, Visual Geometry Group, Oxford, arXiv:1409.1556, CC BY 4.0",
        "input": "BGR, 0..255 less the mean 103.939, 116.779, 123.68",
        "source_sha256": digest.hexdigest(),
    }


# The command ----------------------------------------------------------------------------------------------------------


def convert(source, target, half=False):
    """Write the weights at `source`, a VGG-16 file or weights of ours, to `target` in our format.

    float32 exactly as read, or with `half` the kernels in float16. Raises UserError where the two are one file.
    """
    source, target = Path(source), Path(target)
    if target.is_dir():
        raise UserError(f"{target} is a folder: name the file to write")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{target} is the file to read: give the result another name")
    recorded = read_about(source)
    if recorded["kind"] == "vgg16":
        layers = read_vgg16(source)
        from_keras = "credit" not in recorded
        write_vgg16(target, layers, _about_keras(layers) if from_keras else recorded, half)
    else:
        arrays, recorded = load(source)
        save(target, arrays, recorded, half, read_thumbnail(source))


def blend(first, second, target, share):
    """Write a net between two of the same making: (1 - share) of the weights at `first` and `share` of those at `second`.

    Where the second was trained on from the first, every net on the way between them works: a feature net's sharpness with
    less of its faults, a style less strong. Wang et al., "ESRGAN", arXiv:1809.00219, section 3.4. What `second` records is
    kept, with "blend" added. Raises UserError where the two do not fit each other.
    """
    target = Path(target)
    if not 0 <= share <= 1:
        raise UserError(f"--share is {share:g}; it should be between 0 and 1")
    if target.exists() and any(target.samefile(source) for source in (first, second)):
        raise UserError(f"{target} is a file to read: give the result another name")
    (a, about), (b, recorded) = load(first), load(second)
    if about["kind"] != recorded["kind"] or {n: x.shape for n, x in a.items()} != {
        n: x.shape for n, x in b.items()
    }:
        raise UserError(f"{first} and {second} are not weights of the same net: nothing lies between them")
    arrays = {name: (1 - share) * a[name] + share * b[name] for name in b}
    summary = f"{_summary(recorded)}, {share:.0%}, and {_summary(about)}, {1 - share:.0%}"
    blended = {"share": share, "first": about}
    save(target, arrays, {**recorded, "summary": summary, "blend": blended}, thumbnail=read_thumbnail(second))


def _parameters(path):
    """{name: (shape, dtype)} of the arrays at `path`, as stored."""
    with open_hdf5(path, "weights: a .h5 file") as file:
        datasets = dict(file.get("arrays", {}))
        for name, group in sorted(_keras_groups(file).items()):
            kernel, bias = _kernel_and_bias(group)
            datasets |= {f"{name}.w": kernel, f"{name}.b": bias}
        return {
            name: (dataset.shape, dataset.dtype) for name, dataset in datasets.items() if dataset is not None
        }


def _megabytes(path):
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _summary(recorded):
    """One line: the summary recorded, or all that is recorded and fits in one."""
    facts = (
        f"{key.replace('_', ' ')} {value}"
        for key, value in recorded.items()
        if key != "kind" and _plain(value)
    )
    return recorded.get("summary") or ", ".join(facts)


def _plain(value):
    return not isinstance(value, dict | list)


def _list():
    names = shipped(None)
    if not names:
        raise UserError(f"no weights ship: {SHIPPED} holds no .h5 file")
    for name in names:
        path = SHIPPED / f"{name}.h5"
        recorded = read_about(path)
        print(f"{name:20} {recorded['kind']:9} {_megabytes(path):>8}  {_summary(recorded)}")


def _print_facts(facts, indent=""):
    for key, value in facts.items():
        title = f"{indent}{str(key).replace('_', ' ')}"
        if key == "thumbnail":
            continue
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for each in value:
                print(f"{title}: {each.get('name', '')}")
                _print_facts({k: v for k, v in each.items() if k != "name"}, indent + "  ")
        elif isinstance(value, dict):
            print(title)
            _print_facts(value, indent + "  ")
        else:
            print(f"{title:20} {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _show(name_or_path, picture):
    path = find(name_or_path, None)
    parameters = _parameters(path)
    image = read_thumbnail(path)
    if picture and image is None:
        raise UserError(f"{path} holds no thumbnail to write to {picture}")
    print(path)
    _print_facts(read_about(path))
    print(f"{'file size':20} {_megabytes(path)}")
    print(f"{'thumbnail':20} {'none' if image is None else f'{image.shape[1]} x {image.shape[0]} pixels'}")
    print(f"{'parameters':20} {sum(int(np.prod(shape)) for shape, _ in parameters.values()):,}")
    for name, (shape, dtype) in parameters.items():
        print(f"  {name:18} {' x '.join(map(str, shape)):18} {dtype}")
    if picture:
        _write_picture(picture, image, path)


def _write_picture(picture, image, source):
    if Path(picture).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"the thumbnail of {source} is written as .png or .jpg, not as '{picture}'")
    with written_whole(picture) as temporary:
        Image.fromarray(image).save(temporary)
    print(f"wrote {picture}")


def main(arguments=None):
    """The command `python -m tinynst.weights`; `arguments`: strings (None: the command line's)."""
    parser = Parser(
        prog="tinynst weights",
        description="List, show, convert and blend weights, and take one style out of many.",
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="list | show | convert | blend | extract"
    )
    actions.add_parser("list", help="the weights that ship")
    show = actions.add_parser("show", help="everything that is recorded in weights")
    show.add_argument("weights", metavar="FILE|NAME", help="a .h5 file, or the name of weights that ship")
    show.add_argument(
        "--thumbnail", metavar="OUT.png", help="write the picture stored with the weights to this file"
    )
    change = actions.add_parser(
        "convert", help="Keras's VGG-16 file, or weights of ours, into a file of ours"
    )
    change.add_argument("source", metavar="IN.h5", help="the file to read")
    change.add_argument("target", metavar="OUT.h5", help="the file to write; never the one that is read")
    change.add_argument(
        "--half", action="store_true", help="store kernels as float16: half the size (without: float32)"
    )
    between = actions.add_parser(
        "blend", help="a net between two, one of which was trained on from the other"
    )
    between.add_argument("first", metavar="A.h5", help="the net that was there first")
    between.add_argument("second", metavar="B.h5", help="the net that was trained on from it")
    between.add_argument("target", metavar="OUT.h5", help="the file to write")
    between.add_argument(
        "--share", type=float, default=0.7, metavar="0..1", help="0 is the first net, 1 the second"
    )
    one = actions.add_parser("extract", help="one style of a net of many, as a net of its own")
    one.add_argument("source", metavar="FILE.h5|NAME", help="the net of many styles")
    one.add_argument("style", metavar="STYLE", help="the name of one of them (see show)")
    one.add_argument("target", metavar="OUT.h5", help="the file to write")
    one.add_argument(
        "--half", action="store_true", help="store kernels as float16: half the size (without: float32)"
    )
    options = parser.parse_args(arguments)
    if options.action == "list":
        _list()
    elif options.action == "show":
        _show(options.weights, options.thumbnail)
    elif options.action == "blend":
        blend(options.first, options.second, options.target, options.share)
        print(f"wrote {options.target}, {_megabytes(Path(options.target))}")
    elif options.action == "extract":
        from .styles import extract  # it imports this file

        extract(options.source, options.style, options.target, options.half)
        print(f"wrote {options.target}, {_megabytes(Path(options.target))}")
    else:
        convert(options.source, options.target, options.half)
        print(f"wrote {options.target}, {_megabytes(Path(options.target))}")
