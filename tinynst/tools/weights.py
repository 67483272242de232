"""The command `tinynst weights`: list, show, convert and blend weights, and extract one style of many."""

import hashlib
import math
from pathlib import Path

from ..cli import Parser
from ..data import images, weights
from ..data.files import check_file
from ..data.styles import extract
from ..errors import UserError, printable


def convert(source, target, half=False):
    """Write the weights at `source`, a VGG-16 file or a net of ours, to `target` in our format, exactly; with
    `half`, kernels as float16. Raises UserError if the two are one file."""
    check_file(target, sources=[source])
    about = weights.read_about(source)
    if about["kind"] != "vgg16":
        arrays, about = weights.load(source)
        weights.save(target, arrays, about, half, weights.read_thumbnail(source))
        return
    layers = weights.read_vgg16(source)
    if "credit" not in about:  # a file of Keras's
        content = b"".join(w.tobytes() + b.tobytes() for w, b in layers.values())
        about = {
            "kind": "vgg16",
            "summary": "the 13 convolutions of VGG-16, for the losses",
            "credit": "K. Simonyan and A. Zisserman, Visual Geometry Group, Oxford, arXiv:1409.1556, "
            "CC BY 4.0",
            "input": "BGR, 0..255 less the mean 103.939, 116.779, 123.68",
            "source_sha256": hashlib.sha256(content).hexdigest(),
        }
    weights.write_vgg16(target, layers, about, half)


def blend(first, second, target, share):
    """Write (1 - share) times the weights at `first` plus `share` times those at `second`.

    If the second net was trained on from the first, each net between them works: a feature net as sharp, with
    fewer of its artefacts (Wang et al., "ESRGAN", arXiv:1809.00219, section 3.4). The result keeps the
    description of `second`, with "blend" added. Raises UserError if the two are not of the same architecture.
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
        print(printable(f"{name:20} {about['kind']:9} {_megabytes(path):>8}  {_summary(about)}"))


def _show(name_or_path, thumbnail):
    """Print all that weights record; write the stored picture to the file `thumbnail`, if one is given."""
    path = weights.find(name_or_path, None)
    picture = weights.read_thumbnail(path)
    if thumbnail and picture is None:
        raise UserError(f"{path} holds no thumbnail to write to {thumbnail}")
    if thumbnail:
        images.save(check_file(thumbnail, (".png", ".jpg", ".jpeg")), picture)
        print(f"wrote {thumbnail}")
    facts = {"file": path, **weights.read_about(path), "file size": _megabytes(path)}
    found = weights.read_types(path)
    facts["picture"] = "none" if picture is None else "{1} x {0} pixels".format(*picture.shape)
    facts["parameters"] = f"{sum(math.prod(shape) for shape, _ in found.values()):,}"
    facts["arrays"] = {k: f"{' x '.join(map(str, shape))} {dtype}" for k, (shape, dtype) in found.items()}
    _print_facts(facts)


def _print_facts(facts, indent=""):
    for key, value in facts.items():
        if isinstance(value, list) and not any(isinstance(each, dict) for each in value):
            value = ", ".join(map(str, value))
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                print(f"{indent}{printable(key)}:")
                _print_facts(each, indent + "  ")
            elif key != "thumbnail":
                print(indent + printable(f"{key}: {each}"))


def main(arguments=None):
    """The command `python -m tinynst.weights`; `arguments`: strings (None: those of the command line)."""
    parser = Parser(prog="tinynst weights", description=__doc__.partition(": ")[2].capitalize())
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name, help, *files, half=False):
        added = actions.add_parser(name, help=help)
        for each in files:
            added.add_argument(each, metavar=each.upper())
        if half:
            added.add_argument("--half", action="store_true", help="kernels as float16: half the size")
        return added.add_argument

    action("list", "the weights that ship")
    add = action("show", "all that weights record, by a name that ships or a .h5 file", "name_or_path")
    add("--thumbnail", metavar="OUT.png", help="write the picture stored with the weights to this file")
    action("convert", "Keras's VGG-16, or our weights, to our format", "source", "target", half=True)
    add = action("blend", "a net between one and a second trained on from it", "first", "second", "target")
    add(
        "--share",
        type=float,
        default=0.7,
        metavar="0..1",
        help="0 is the first net, 1 the second (default: %(default)s)",
    )
    action("extract", "one style of a net of many, as its own net", "source", "name", "target", half=True)
    s = vars(parser.parse_args(arguments))
    run = {"list": _list, "show": _show, "convert": convert, "blend": blend, "extract": extract}
    run[s.pop("action")](**s)
    if "target" in s:
        print(printable(f"wrote {s['target']}, {_megabytes(s['target'])}"))
