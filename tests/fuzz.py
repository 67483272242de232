"""Attack whatever opens files and options: python tests/fuzz.py CASES [FIRST]

Case number k is made from k alone. It may end well or in a UserError. Everything else is printed with its
number: another exception, a crash, ten seconds, a gigabyte of memory, a started process, another file that
was read. `python tests/fuzz.py 1 K` repeats case K.
"""

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tinynst import cli, dataset, gallery
from tinynst.data import checkpoint, images, photos, weights
from tinynst.errors import UserError, printable
from tinynst.networks import style_net, super_resolution_net
from tinynst.tools import stylize, superres
from tinynst.tools import weights as weights_tool
from tinynst.tools.optimize import OptimizeSettings
from tinynst.training import run
from tinynst.training.style import StyleSettings
from tinynst.training.superres import SuperResSettings

SECONDS, MEMORY = 10, 1 << 20  # of the processor, for a case (three times as long on the clock); kilobytes
SECRET = b"\x7f\x3a\x51\x66" * 64  # the content of a file that no other file may lead to
FORMATS = ("png", "jpg", "webp", "tif", "bmp", "gif", "ppm")
STYLE = {"norm": "instance", "upsample": "nearest", "width": 2, "padding": "each"}
SUPERRES = {"factor": 2, "norm": "none", "upsample": "nearest", "residual": True, "width": 2}
ODD = (
    None,
    True,
    -1,
    0,
    2.5,
    3000,
    10**30,
    "x",
    "",
    "\x1b[2J\n",
    [],
    {},
    [1],
    ["x"],
    {"name": 3},
    [[]],
    1e308,
)
WORDS = (
    "0",
    "-1",
    "1",
    "3",
    "2.5",
    "nan",
    "inf",
    "1e400",
    "99999999999999999999",
    "",
    "x",
    "a b:c",
    "\x1b[2J",
)
WORDS += (
    "photo.png",
    "style.h5",
    "superres.h5",
    "photos",
    "photos.h5",
    "none",
    "fifo.png",
    "broken.png",
    ".",
)


def pick(rng, choices):
    return choices[rng.integers(len(choices))]


def prepare():
    """Whole files of every kind, in the current folder."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
    Path("photos").mkdir()
    for name in FORMATS:
        Image.fromarray(pixels).save(f"photo.{name}")
    Image.fromarray(pixels[:16, :20]).save("photos/a.png")
    net, names = style_net(**STYLE, styles=["a", "b"]), [{"name": "a", "title": "A"}, {"name": "b"}]
    about = {"kind": "style", "settings": STYLE, "styles": names, "summary": "two styles"}
    weights.save("style.h5", net.parameters(), about, thumbnail=pixels)
    small, facts = super_resolution_net(**SUPERRES), {"kind": "superres", "settings": SUPERRES, "factor": 2}
    weights.save("superres.h5", small.parameters(), facts)
    arrays = {group: net.parameters() for group in ("net", "m", "v")}
    checkpoint.save(
        "checkpoint.h5", arrays, {"iteration": 3, "settings": {"width": 2}, "inputs": {"photos": 1}}
    )
    photos.pack("photos", "photos.h5")
    weights.VGG16_CHANNELS = ((2, 3), (4, 3), (5, 4, 6), (4, 7, 4), (3, 4, 8))
    layers = {n: (rng.normal(size=s), np.zeros(s[-1])) for n, s in weights.vgg16_shapes().items()}
    weights.write_vgg16("vgg.h5", layers, {"kind": "vgg16"})
    Path("secret").write_bytes(SECRET)
    with h5py.File("secret.h5", "w") as file:
        file["x"] = np.frombuffer(SECRET, np.float32)
    os.mkfifo("fifo.png")
    os.symlink("nowhere", "broken.png")


# --- what is done to a file ---


def spoil_bytes(rng, content):
    """Bits flipped, bytes replaced, parts cut out, repeated or put in."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        at, size = rng.integers(len(content) + 1), int(rng.choice([1, 1, 1, 2, 4, 8, 50]))
        new = pick(rng, [bytes(size), b"\xff" * size, rng.bytes(size), bytes(content[at // 2 :][:size])])
        content[at : at + (size if rng.random() < 0.8 else 0)] = new if rng.random() < 0.95 else b""
    return bytes(content) if rng.random() < 0.95 else bytes(content[: rng.integers(len(content) + 1)])


def odd_items(rng):
    """{what: function (group, name) that stores it there}."""
    huge = int(rng.choice([2**20, 2**31, 2**40]))
    dtype = rng.choice(["f4", "i8", "u1"])
    virtual = h5py.VirtualLayout((64,), "f4")
    virtual[:] = h5py.VirtualSource("secret.h5", "x", (64,))
    external = [("secret", 0, len(SECRET))]
    return {
        "group": lambda g, n: g.create_group(n),
        "empty": lambda g, n: g.create_dataset(n, data=h5py.Empty(dtype)),
        "text": lambda g, n: g.create_dataset(n, data="x" * int(rng.integers(9))),
        "fixed text": lambda g, n: g.create_dataset(n, (), f"S{huge % 2**31 + 1}"),
        "texts": lambda g, n: g.create_dataset(n, data=["a", "b"]),
        "number": lambda g, n: g.create_dataset(n, data=rng.choice([0, -1, np.nan, np.inf, 1e38])),
        "numbers": lambda g, n: g.create_dataset(
            n, data=rng.normal(size=rng.integers(0, 4, rng.integers(4)))
        ),
        "whole": lambda g, n: g.create_dataset(n, data=rng.integers(-(2**63), 2**63 - 1, rng.integers(4))),
        "complex": lambda g, n: g.create_dataset(n, data=np.ones(3, complex)),
        "compound": lambda g, n: g.create_dataset(n, data=np.zeros(2, [("a", "f4"), ("b", "S3")])),
        "reference": lambda g, n: g.create_dataset(n, data=g.ref, dtype=h5py.ref_dtype),
        "vlen": lambda g, n: g.create_dataset(n, (2,), h5py.vlen_dtype(np.float32)),
        "declared": lambda g, n: g.create_dataset(n, (huge,), dtype),
        "inflating": lambda g, n: g.create_dataset(n, (huge,), dtype, chunks=(2**20,), compression="gzip"),
        "virtual": lambda g, n: g.create_virtual_dataset(n, virtual),
        "external": lambda g, n: g.create_dataset(n, (64,), "f4", external=external),
        "type": lambda g, n: g.__setitem__(n, np.dtype("f8")),
        "soft": lambda g, n: g.__setitem__(n, h5py.SoftLink(rng.choice(["/about", "/", "/none"]))),
        "link": lambda g, n: g.__setitem__(n, h5py.ExternalLink("secret.h5", "/x")),
        "cycle": lambda g, n: g.__setitem__(n, g),
    }


def spoil_items(rng, path):
    """Valid HDF5 with wrong contents: items, attributes and JSON of other kinds, shapes and values."""
    with h5py.File(path, "r+") as file:
        names = []
        file.visit(names.append)
        for name in rng.choice(names, rng.integers(1, 3), replace=False):
            if file.get(name) is None:
                continue
            parent, item, way = file[name].parent, file[name], rng.random()
            if parent == file and name in ("about", "state") and way < 0.7:
                text = spoil_json(rng, item.asstr()[()])
                del file[name]
                file[name] = text
            elif isinstance(item, h5py.Dataset) and item.size and item.dtype.kind in "fiu" and way < 0.3:
                item[(0,) * item.ndim] = rng.choice([0, 3, 1e30 if item.dtype.kind == "f" else 77])
            else:
                del file[name]
                if way < 0.9:
                    pick(rng, [*odd_items(rng).values()])(parent, name.rpartition("/")[2])
        if rng.random() < 0.2:
            key = rng.choice(["format", "version", "layer_names"])
            file.attrs[key] = pick(rng, ["x", 2.5, np.arange(3), 99])


def spoil_json(rng, text):
    """One value somewhere in it replaced or removed; or the text damaged."""
    if rng.random() < 0.2:
        return pick(
            rng, ["", "[" * 10**5, "{}", "NaN", text[:-3], text.replace('"', "'"), json.dumps("x" * 10**6)]
        )
    value = json.loads(text)
    where = value
    while isinstance(where, dict | list) and where:
        key = pick(rng, [*where]) if isinstance(where, dict) else int(rng.integers(len(where)))
        if not isinstance(where[key], dict | list) or rng.random() < 0.4:
            where[key] = pick(rng, ODD)
            break
        where = where[key]
    return json.dumps(value)


# --- what is done with it ---


def open_image(path):
    image = images.open_rgb(path, 20)
    parts = images.load_parts(path)[0]
    assert min(image.size) == 20 or image.size[0] == 1 or parts.size
    images.load(path)


def paint(path):
    return stylize.stylize(stylize.load_style(path), np.zeros((5, 6, 3), np.uint8))


def enlarge(path):
    return superres.enlarge(superres.load_superres(path)[0], np.zeros((5, 6, 3), np.uint8))


READERS = {
    "style.h5": (paint, weights.read_types, weights.read_thumbnail, lambda path: show("show", path)),
    "superres.h5": (enlarge, weights.load, lambda path: show("convert", path, "out.h5", "--half")),
    "checkpoint.h5": (checkpoint.load,),
    "photos.h5": (lambda path: [*photos.Packed(path)],),
    "vgg.h5": (weights.read_vgg16, weights.read_types),
}


def show(*arguments):
    command(weights_tool.main, "weights", *arguments)


def command(main, name, *arguments):
    """A command as it is run: (status 0, 1 or 2, standard output, standard error), nothing that steers a
    terminal, and one line of error."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run(main, name, [str(each) for each in arguments])
        except SystemExit as end:
            status = end.code
    said = [(stream.flush(), stream.buffer.getvalue().decode())[1] for stream in (out, err)]
    assert status in (0, 1) or (status, said[1].count("\n")) == (2, 1), (status, said)
    assert "\x1b" not in "".join(said), said
    return status, *said


def begin(settings_class):
    """The command of a run, up to its beginning."""

    def main(arguments):
        parser = cli.Parser(prog="fuzz")
        settings_class.add_options(parser)
        run.begin(settings_class(**vars(parser.parse_args(arguments))))

    return main


COMMANDS = {  # an option without a value gets one of WORDS
    "stylize": (stylize.main, "photo.png -o out --style=style.h5 --size --strength --device"),
    "superres": (superres.main, "photo.png -o out --weights=superres.h5 --tile --factor --match-histogram"),
    "dataset": (dataset.main, "photos out.h5 --side"),
    "weights": (weights_tool.main, "blend style.h5 style.h5 out.h5 --share"),
    "gallery": (gallery.main, "--weights=style.h5 --images=photo.png --out=out.png --size --styles --strip"),
    "train": (begin(StyleSettings), "--out=run --init=none --batch --width --image-size --lr --style --seed"),
    "train_superres": (begin(SuperResSettings), "--out=run --init=none --factor --width --loss --lr-rise"),
    "optimize": (
        begin(OptimizeSettings),
        "--out=run --mode --content=photo.png --style --scales --size --mix",
    ),
}


def attack_options(rng):
    name = pick(rng, [*COMMANDS])
    main, usual = COMMANDS[name]
    words = [
        pick(rng, WORDS) if rng.random() < 0.1 else word
        for word in usual.split()
        if "=" in word or rng.random() < 0.6
    ]
    words = [f"{word}={pick(rng, WORDS)}" if re.fullmatch(r"--[a-z-]+", word) else word for word in words]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(".", folder, True, lambda *_: ["fifo.png", "log"], dirs_exist_ok=True)
        os.mkfifo(f"{folder}/fifo.png")
        with contextlib.chdir(folder):
            command(main, name, *words)


def attack(k):
    """Case number k, in the current folder."""
    rng = np.random.default_rng(k)
    kind = rng.choice(["image", "bytes", "items", "options"], p=[0.35, 0.2, 0.3, 0.15])
    if kind == "options":
        return attack_options(rng)
    source = Path(f"photo.{pick(rng, FORMATS)}" if kind == "image" else pick(rng, [*READERS]))
    target = Path(f"case{source.suffix}")
    if kind == "items":
        shutil.copy(source, target)
        spoil_items(rng, target)
    else:
        target.write_bytes(spoil_bytes(rng, source.read_bytes()))
    read = open_image if kind == "image" else pick(rng, READERS[source.name])
    found = read(target)
    for array in found.values() if isinstance(found, dict) else [found]:
        assert not isinstance(array, np.ndarray) or SECRET[:16] not in array.tobytes(), (
            "another file was read"
        )


def child(first, last):
    """Cases first to last - 1; prints the number of each before it starts, and what is wrong with it."""
    started = []
    sys.addaudithook(
        lambda event, _: started.append(event) if event.startswith(("subprocess", "os.exec")) else None
    )
    prepare()
    for k in range(first, last):
        print("case", k, flush=True)
        faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
        begun, memory, wrong = time.process_time(), peak(), []
        try:
            attack(k)
        except UserError:
            pass
        except BaseException as error:
            *_, place = traceback.extract_tb(error.__traceback__)
            wrong.append(
                f"{type(error).__name__}: {error!s:.200} ({Path(place.filename).name}:{place.lineno})"
            )
        if time.process_time() - begun > SECONDS:
            wrong.append(f"took {time.process_time() - begun:.0f} s")
        if peak() - memory > MEMORY:
            wrong.append(f"took {(peak() - memory) / 1e6:.1f} GB")
        for what in wrong + started:
            print("wrong", k, printable(what), flush=True)
        started.clear()


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(count, first=0):
    """Run the cases in a process of its own, which is started again after a case that ended it. Returns how
    many went wrong."""
    k, wrong, last = first, 0, first + count
    while k < last:
        with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
            command = [
                sys.executable,
                "-W",
                "ignore",
                str(Path(__file__).resolve()),
                "child",
                str(k),
                str(last),
            ]
            with subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
            ) as process:
                for line in process.stdout:
                    word, number, *_ = line.split()
                    k = int(number) + 1
                    if word == "wrong":
                        wrong += 1
                        print(line, end="", flush=True)
            if process.returncode:
                log.seek(0)
                wrong += 1
                print(
                    f"wrong {k - 1} ended the process ({process.returncode})\n{log.read()[-2000:]}",
                    flush=True,
                )
    print(f"{count} cases, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(*map(int, sys.argv[2:]))
    else:
        sys.exit(1 if main(*map(int, sys.argv[1:])) else 0)
