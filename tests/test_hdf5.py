"""HDF5 files: each item is compared with what it should be before it is read, and one error names it."""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import fuzz
import h5py
import numpy as np
import pytest

from tinynst.data import checkpoint, weights
from tinynst.data.photos import Packed
from tinynst.errors import UserError
from tinynst.tools.stylize import load_style
from tinynst.tools.superres import load_superres

KERNEL = "block3_conv1/block3_conv1_W_1:0"
FILES = {  # what reads each kind of file, an array in it, and what the error calls that
    "style.h5": (weights.load, "arrays/conv2.w", "arrays/conv2.w"),
    "checkpoint.h5": (checkpoint.load, "arrays/net/conv2.w", "arrays/net/conv2.w"),
    "photos.h5": (Packed, "ends", "ends"),
    "vgg.h5": (weights.read_vgg16, KERNEL, "layer conv3_1"),
}
ODD = [
    name for name in fuzz.odd_items(np.random.default_rng(0)) if name not in ("number", "numbers", "whole")
]
ROOM = 320 << 20


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with a whole file of each kind; VGG-16 has few channels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("files"))
        monkeypatch.setattr(weights, "VGG16_CHANNELS", weights.VGG16_CHANNELS)  # restored after the tests
        fuzz.prepare()
        yield


@contextlib.contextmanager
def little_memory():
    """A block that may take ROOM bytes of memory."""
    resource = pytest.importorskip("resource")
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def edited(name, edit):
    """A copy of the file `name` in which `edit(file)` has changed something."""
    shutil.copy(name, "edited.h5")
    with h5py.File("edited.h5", "r+") as file:
        edit(file)
    return "edited.h5"


def put(item, value):
    def edit(file):
        del file[item]
        file[item] = value

    return edit


def refused(read, path="edited.h5"):
    with pytest.raises(UserError) as error, little_memory():
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("odd", ODD)
def test_an_item_of_another_kind_is_named(name, odd):
    read, item, called = FILES[name]
    parent, _, own = item.rpartition("/")

    def edit(file):
        del file[item]
        fuzz.odd_items(np.random.default_rng(0))[odd](file[parent or "/"], own)

    message = refused(read, edited(name, edit))
    assert re.search(rf"({called}|{item}).* is .*; it should be .*\. Expected ", message)


STYLE, SUPERRES = fuzz.STYLE, {"kind": "superres", "settings": fuzz.SUPERRES}
ABOUT = {"kind": "style", "settings": STYLE, "styles": [{"name": "a"}, {"name": "b"}]}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (3, "about is 3; it should be of type dict"),
        (["kind"], "about is"),
        ({"settings": {}}, "about.kind is None; it should be of type str"),
        (ABOUT | {"settings": [1]}, "about.settings is [1]"),
        (ABOUT | {"settings": STYLE | {"width": "2"}}, "about.settings.width is '2'"),
        (ABOUT | {"settings": STYLE | {"width": True}}, "about.settings.width is True"),
        (ABOUT | {"settings": STYLE | {"width": 3000}}, "does not make a style net"),
        (ABOUT | {"settings": STYLE | {"width": 10**30}}, "does not make a style net"),
        (ABOUT | {"styles": [{"name": "a"}, 3]}, "about.styles[1] is 3"),
        (ABOUT | {"styles": [{"name": "a"}, {"title": "b"}]}, "about.styles[1].name is None"),
        (ABOUT | {"styles": [{"name": str(k)} for k in range(10**5)]}, "does not make a style net"),
        (SUPERRES | {"settings": fuzz.SUPERRES | {"factor": 2.0}}, "about.settings.factor is 2.0"),
        (SUPERRES | {"settings": fuzz.SUPERRES | {"residual": 1}}, "about.settings.residual is 1"),
        ("[" * 10**5, "about is not JSON"),
        (np.zeros(3), "about is an array of float64 and shape (3,); it should be a text"),
    ],
)
def test_a_description_of_another_kind_is_named(about, message):
    kind = "superres" if isinstance(about, dict) and about.get("kind") == "superres" else "style"
    text = about if isinstance(about, str | np.ndarray) else json.dumps(about)
    edited(f"{kind}.h5", put("about", text))
    assert message in refused(load_superres if kind == "superres" else load_style)


LONG = "import h5py; file = h5py.File('edited.h5', 'r+'); {} = 'x' * (160 << 20)"


@pytest.mark.parametrize("where", ["file.attrs['format']", "file['more']"])
def test_a_text_without_end_is_not_read(where):
    edited("style.h5", lambda file: None)
    subprocess.run([sys.executable, "-c", LONG.format(where)], check=True)
    assert "its text is of 167," in refused(weights.read_about)


@pytest.mark.parametrize("number", [np.nan, -np.inf, 1e30])
@pytest.mark.parametrize("name", ["style.h5", "vgg.h5"])
def test_a_number_that_no_training_gives_is_named(name, number):
    read, item, called = FILES[name]
    path = edited(name, lambda file: file[item].__setitem__((0, 0, 1, 2), number))
    assert re.search(rf"{called}.* is an array with the number .*; it should be finite", refused(read, path))


@pytest.mark.parametrize("name", ["style.h5", "checkpoint.h5", "photos.h5"])
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"format": None}, "is an HDF5 file of some other program; expected"),
        ({"format": "tinynst other"}, "is a file of tinynst other; expected"),
        ({"version": None}, "the attribute version is None; it should be a whole number"),
        ({"version": "1"}, "the attribute version is '1'; it should be a whole number"),
        (
            {"version": 99},
            "has version 99 of 'tinynst {}', this program reads up to 1: install a newer tinynst",
        ),
    ],
)
def test_the_header(name, attributes, message):
    def edit(file):
        for key, value in attributes.items():
            del file.attrs[key]
            file.attrs.update({key: value} if value is not None else {})

    kind = {"style.h5": "weights"}.get(name, name.removesuffix(".h5"))
    assert message.format(kind) in refused(FILES[name][0], edited(name, edit))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("style.h5", lambda file: file.pop("arrays"), "arrays is missing; it should be a group of arrays"),
        (
            "style.h5",
            lambda file: [file.create_group(f"g{k}") for k in range(10_001)],
            "more than 10,000 items",
        ),
        ("checkpoint.h5", lambda file: file.pop("state"), "state is missing; it should be a text"),
        ("checkpoint.h5", put("state", '{"iteration": 3'), "state is not JSON"),
        ("checkpoint.h5", put("state", '{"iteration": 3}'), "state.settings is None"),
        ("photos.h5", lambda file: file.pop("jpeg"), "jpeg is missing; it should be an array of bytes"),
        ("photos.h5", lambda file: file["jpeg"].resize((100,)), "is damaged, photos are missing"),
        ("photos.h5", put("ends", np.array([-5])), "is damaged, photos are missing"),
    ],
)
def test_what_is_missing_is_named(name, edit, message):
    assert message in refused(FILES[name][0], edited(name, edit))


@pytest.mark.parametrize("name", FILES)
def test_no_whole_hdf5_file(name):
    read, content = FILES[name][0], Path(name).read_bytes()
    for path, message in (
        ("none.h5", "no such file; expected"),
        ("broken.png", "a link to nothing; expected"),
        ("photos", "a folder; expected"),
        ("fifo.png", "a pipe, a socket or a device; expected"),
        ("/dev/zero", "a pipe, a socket or a device; expected"),
        ("photo.png", "is not an HDF5 file; expected"),
    ):
        assert message in refused(read, path)
    for part in (0.2, 0.5, 0.9, 0.999):
        Path("edited.h5").write_bytes(content[: int(part * len(content))])
        assert "cut short" in refused(read)


def test_a_damaged_array_is_an_error():
    with h5py.File("style.h5") as file:
        chunk = file["arrays/conv2.w"].id.get_chunk_info(0)
    content = bytearray(Path("style.h5").read_bytes())
    inside = chunk.byte_offset + chunk.size // 2
    content[inside : inside + 20] = bytes(20)
    Path("edited.h5").write_bytes(content)
    assert "is damaged" in refused(weights.load)


@pytest.mark.parametrize("size", [0, 2**64 - 16])
def test_a_heap_of_texts_that_never_ends_is_not_read(size):
    content = Path("style.h5").read_bytes()
    place = content.find(b"GCOL") + 16
    Path("edited.h5").write_bytes(
        content[:place] + struct.pack("<H6xQ", size > 0, size) + content[place + 16 :]
    )
    assert "is damaged (a text of" in refused(weights.read_about)


@pytest.mark.parametrize("filters", [[1, 1], [32000], [1]])
def test_a_chunk_made_to_inflate_is_not_read(filters):
    """Of 4 kB declared; what is stored inflates to 4 GB, by zlib once or twice."""
    bomb = zlib.compress(bytes(32 << 20), 9) * 128 if filters == [1] else b"x"

    def edit(file):
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((1000,))
        for each in filters:
            how.set_filter(each)
        space = h5py.h5s.create_simple((1000,))
        h5py.h5d.create(file.id, b"bomb", h5py.h5t.NATIVE_FLOAT, space, how).write_direct_chunk((0,), bomb)

    assert "bomb is" in refused(weights.load, edited("style.h5", edit))


def test_a_few_thousand_random_cases():
    """python tests/fuzz.py 1000000 tries a million."""
    done = subprocess.run([sys.executable, fuzz.__file__, "2000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
