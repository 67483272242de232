"""The command `tinynst weights`: list, show, convert and blend weights, and extract one style of many."""

import hashlib
from pathlib import Path

import numpy as np

from ..cli import Parser
from ..data import images, weights
from ..data.files import check_file
from ..data.hdf5 import open_hdf5
from ..data.styles import extract
from ..errors import UserError


def convert(source, target, half=False):
    """Write the weights at `source`, a VGG-16 file or a net of ours, to `target` in our format, exactly.

    half: kernels as float16. Raises UserError if the two are one file.
    """
    check_file(target, sources=[source])
    about = weights.read_about(source)
    if about["kind"] == "vgg16":
        layers = weights.read_vgg16(source)
        weights.write_vgg16(target, layers, about if "credit" in about else _about_keras(layers), half)
    else:
        arrays, about = weights.load(source)
        weights.save(target, arrays, about, half, weights.read_thumbnail(source))


def _about_keras(layers):
    """The description of VGG-16 from a Keras file. The same numbers give the same file."""
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


def blend(first, second, target, share):
    """Write (1 - share) times the weights at `first` plus `share` times those at `second`.

    If the second net was trained on from the first, each net between them works: a feature net as sharp, with
    fewer of its artefacts; a weaker style. Wang et al., "ESRGAN", arXiv:1809.00219, section 3.4. The result
    keeps the description of `second`, with "blend" added. Raises UserError if the two are not of the same
    architecture.
    """
    if not 0 <= share <= 1:
        raise UserError(f"--share is {share:g}; it should be between 0 and 1")
    check_file(target, sources=[first, second])
    (old, old_about), (new, about) = weights.load(first), weights.load(second)
    shapes = [{name: array.shape for name, array in arrays.items()} for arrays in (old, new)]
    if old_about["kind"] != about["kind"] or shapes[0] != shapes[1]:
        raise UserError(f"{first} and {second} are not weights of the same net: they cannot be blended")
    arrays = {name: (1 - share) * old[name] + share * new[name] for name in new}
    summary = f"{_summary(about)}, {share:.0%}, and {_summary(old_about)}, {1 - share:.0%}"
    about = {**about, "summary": summary, "blend": {"share": share, "first": old_about}}
    weights.save(target, arrays, about, thumbnail=weights.read_thumbnail(second))


def _summary(about):
    """One line: the recorded summary, or all recorded values that fit in one line."""
    short = {k: v for k, v in about.items() if k != "kind" and not isinstance(v, dict | list)}
    return about.get("summary") or ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in short.items())


def _megabytes(path):
    return f"{Path(path).stat().st_size / 1e6:.1f} MB"


def _list():
    if not weights.shipped(None):
        raise UserError(f"no weights ship: {weights.SHIPPED} holds no .h5 file")
    for name in weights.shipped(None):
        path = weights.SHIPPED / f"{name}.h5"
        about = weights.read_about(path)
        print(f"{name:20} {about['kind']:9} {_megabytes(path):>8}  {_summary(about)}")


def _show(name_or_path, picture):
    """Print all that weights record; write the stored thumbnail to the file `picture`, if one is given."""
    path = weights.find(name_or_path, None)
    thumbnail = weights.read_thumbnail(path)
    if picture and thumbnail is None:
        raise UserError(f"{path} holds no thumbnail to write to {picture}")
    if picture:
        check_file(picture, (".png", ".jpg", ".jpeg"))
    print(path)
    _print_facts(weights.read_about(path))
    print(f"{'file size':20} {_megabytes(path)}")
    size = "none" if thumbnail is None else f"{thumbnail.shape[1]} x {thumbnail.shape[0]} pixels"
    print(f"{'thumbnail':20} {size}")
    parameters = _parameters(path)
    print(f"{'parameters':20} {sum(int(np.prod(shape)) for shape, _ in parameters.values()):,}")
    for name, (shape, dtype) in parameters.items():
        print(f"  {name:18} {' x '.join(map(str, shape)):18} {dtype}")
    if picture:
        images.save(picture, thumbnail)
        print(f"wrote {picture}")


def _print_facts(facts, indent=""):
    for key, value in facts.items():
        title = f"{indent}{str(key).replace('_', ' ')}"
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for each in value:
                print(f"{title}: {each.get('name', '')}")
                _print_facts({k: v for k, v in each.items() if k != "name"}, indent + "  ")
        elif isinstance(value, dict):
            print(title)
            _print_facts(value, indent + "  ")
        elif key != "thumbnail":
            print(f"{title:20} {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _parameters(path):
    """{name: (shape, dtype)} of the arrays at `path`, as stored."""
    with open_hdf5(path, "weights: a .h5 file") as file:
        datasets = dict(file.get("arrays", {}))
        for name, group in sorted(weights.keras_groups(file).items()):
            datasets |= zip((f"{name}.w", f"{name}.b"), weights.kernel_and_bias(group), strict=True)
        return {name: (array.shape, array.dtype) for name, array in datasets.items() if array is not None}


def main(arguments=None):
    """The command `python -m tinynst.weights`; `arguments`: strings (None: those of the command line)."""
    parser = Parser(prog="tinynst weights", description=__doc__.partition(": ")[2].capitalize())
    names = "list | show | convert | blend | extract"
    actions = parser.add_subparsers(dest="action", required=True, metavar=names)
    add = actions.add_parser("list", help="the weights that ship").add_argument
    add = actions.add_parser("show", help="all that weights record").add_argument
    add("weights", metavar="FILE|NAME", help="a .h5 file, or the name of weights that ship")
    add("--thumbnail", metavar="OUT.png", help="write the picture stored with the weights to this file")
    add = actions.add_parser("convert", help="Keras's VGG-16, or our weights, to our format").add_argument
    add("source", metavar="IN.h5", help="the file to read")
    add("target", metavar="OUT.h5", help="the file to write; not the one that is read")
    add("--half", action="store_true", help="store kernels as float16: half the size (without: float32)")
    add = actions.add_parser("blend", help="a net between two related ones").add_argument
    add("first", metavar="A.h5", help="the net that was trained first")
    add("second", metavar="B.h5", help="the net that was trained on from it")
    add("target", metavar="OUT.h5", help="the file to write")
    add("--share", type=float, default=0.7, metavar="0..1", help="0 is the first net, 1 the second")
    add = actions.add_parser("extract", help="one style of a net of many, as a net of its own").add_argument
    add("source", metavar="FILE.h5|NAME", help="the net of many styles")
    add("style", metavar="STYLE", help="the name of one of them (see show)")
    add("target", metavar="OUT.h5", help="the file to write")
    add("--half", action="store_true", help="store kernels as float16: half the size (without: float32)")
    s = parser.parse_args(arguments)
    if s.action == "list":
        return _list()
    if s.action == "show":
        return _show(s.weights, s.thumbnail)
    if s.action == "convert":
        convert(s.source, s.target, s.half)
    elif s.action == "blend":
        blend(s.first, s.second, s.target, s.share)
    else:
        extract(s.source, s.style, s.target, s.half)
    print(f"wrote {s.target}, {_megabytes(s.target)}")
