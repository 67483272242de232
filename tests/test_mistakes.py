"""Every mistake of a user's ends in one line that names it, and no file is written, changed or lost."""

import importlib
import sys

import numpy as np
import pytest
import test_evaluate_style
import test_evaluate_superres
import test_styles
import test_superres
from PIL import Image
from test_images import picture

from tinynst import cli
from tinynst.data import images
from tinynst.samples import PHOTOS, STYLES

PHOTO, CAFE, NIGHT = PHOTOS / "chelsea.jpg", STYLES / "night_cafe.jpg", STYLES / "starry_night.jpg"
ONE = "a.png -o b.png"
GATYS = f"gatys --content {PHOTO} --style {NIGHT} --style-layers relu1_2 relu2_2 --size 32 --out run"
SMALL = "--size 32 --evaluations 2 --out new"
NET = f"style --weights several.h5 --style mine.png --images {PHOTO} {SMALL}"
SETS = "superres --weights -o out"

# {command: [(its arguments, part of the message), ...]}
MISTAKES = {
    "stylize": [
        ("a.png", "required: -o"),
        ("-o b.png", "required: IMAGE"),
        ("a.png none -o new", "none: no such file or folder"),
        ("a.png -o b.gif", "b.gif: the name of this file must end in .png, .jpg"),
        ("a.png --out=", "--out is empty"),
        ("a.png -o notes.txt/", "notes.txt/ is a file"),
        ("a.png -o notes.txt/b.png", "notes.txt is a file"),
        ("a.png c.png -o notes.txt", "notes.txt is a file: name a folder for the results"),
        ("a.png c.png -o b.png", "b.png is a name for one image"),
        ("odd -o b.png", "b.png is a name for one image"),
        ("a.png -o odd", "is a folder"),
        ("notes.txt -o new/", "notes.txt: no image that can be read"),
        ("empty -o new/", "empty is an empty folder"),
        (f"{ONE} --strength nan", "--strength is nan; it should be between 0 and 1"),
        (f"{ONE} --size 0", "--size is 0; it should be at least 1"),
        (f"{ONE} --size 99999999 --enlarge", "give a smaller size"),
        (f"{ONE} --enlarge", "--enlarge needs --size"),
        (f"{ONE} --device tpu", "--device"),
        (f"{ONE} --device cuda", "CuPy"),
        (f"{ONE} --style no_such_style", "no style weights called 'no_such_style'"),
        (f"{ONE} --style a.png", "a.png is not an HDF5 file"),
        (f"{ONE} --style vgg16", "holds vgg16 weights, not style weights"),
    ],
    "superres": [
        ("c.png -o a.png --factor 2", "--factor is 2, but x4.h5 was trained with 4"),
        ("c.png -o a.png --loss feature", "--loss is feature, but x4.h5 was trained with pixel"),
        ("c.png -o a.png --tile 0", "--tile is 0; it should be at least 1"),
        ("c.png -o a.png", "36x36 would be too large"),
    ],
    "gallery": [
        ("--styles stars", "no style 'stars'; choose from waves, dots, identity"),
        ("--size 1", "--size is 1"),
        ("--out sheet.txt", "sheet.txt"),
        ("--images nowhere.jpg", "nowhere.jpg"),
        ("--weights starry_night_single", "one style only"),
    ],
    "figures": [
        ("--size 8", "--size is 8; it should be at least 32"),
        ("--photos nowhere.jpg", "nowhere.jpg"),
        ("--style gallery", "holds 13 styles: name one of"),
    ],
    "train": [
        ("--style nowhere.jpg", "nowhere.jpg"),
        ("--style=", "--style is empty"),
        ("--content nowhere", "nowhere"),
        (f"--content {STYLES / 'SOURCES.tsv'}", "SOURCES.tsv"),
        ("--style-layers relu9_9", "no layer 'relu9_9'; choose from relu1_1"),
        ("--style-weights 1 2 3", "one for each of 4 layers"),
        ("--content-weights nan", "--content-weights"),
        ("--content-weights 0 --style-weights 0 --tv-weight 0", "all loss weights are zero"),
        ("--image-size 8", "--image-size is 8; it should be between 32 and 16384"),
        ("--iterations 0", "--iterations is 0"),
        ("--lr -1", "--lr is -1;"),
        ("--lr-fall 1.5", "between 0 and 1"),
        ("--vgg nowhere.h5", "nowhere.h5"),
        ("--init no-such-style", "no-such-style"),
        ("--learn rows --init none", "needs --init"),
        ("--resume", "--resume needs --out"),
        ("--resume --out nowhere", "nowhere"),
        ("--samples nowhere.png", "nowhere.png"),
        ("--preset no-such-style", "no style called 'no-such-style' ships"),
        (f"--style {CAFE} {NIGHT} {PHOTOS}/../styles/night_cafe.jpg", "two paintings are called night_cafe"),
        (f"--style {CAFE} {NIGHT} --norm batch", "instance"),
        ("--style-level -1", "--style-level is -1;"),
        ("--batch many", "invalid int value"),
    ],
    "train_superres": [
        ("--content nowhere", "nowhere"),
        ("--factor 8 --image-size 100", "--image-size is 100; it should be a multiple of --factor 8"),
        ("--image-size 16", "--image-size is 16; it should be between 32 and 16384"),
        ("--feature-layers relu9_9", "no layer 'relu9_9'; choose from relu1_1"),
        ("--feature-layers relu1_1 relu1_1", "names a layer twice"),
        ("--loss pixel --feature-layers relu1_1", "--feature-layers belongs to --loss feature"),
        ("--loss pixel --pixel-weight 2", "--pixel-weight belongs to --loss feature"),
        ("--loss pixel --grid-weight 2", "--grid-weight belongs to --loss feature"),
        ("--pixel-weight -1", "--pixel-weight is -1;"),
        ("--grid-weight inf", "--grid-weight is inf"),
        ("--tv-weight nan", "--tv-weight is nan"),
        ("--resume", "--resume needs --out"),
        ("--init no-such-net", "no-such-net"),
        ("--init starry_night_single", "holds style weights, not superres weights"),
    ],
    "optimize": [
        ("paint", "invalid choice"),
        (f"gatys --style {NIGHT}", "gatys needs --content or --image: a file"),
        (f"gatys --content {PHOTO}", "gatys needs --style: a file"),
        ("invert", "invert needs --content or --image: a file"),
        ("texture", "texture needs --style: a file"),
        (f"invert --image {PHOTO} --layer relu9_9", "--content-layers: there is no layer 'relu9_9'; choose"),
        (f"invert --image {PHOTO} --style {NIGHT}", "--style means nothing for invert: leave it out"),
        (f"texture --style {NIGHT} --layers relu1_2 relu1_2", "--style-layers names a layer twice"),
        (f"texture --style {NIGHT} --style-weights 0 --tv-weight 0", "all loss weights are zero"),
        (f"texture --style {NIGHT} --image {PHOTO}", "--content means nothing for texture: leave it out"),
        (f"texture --style {NIGHT} --start content", "texture has no photo"),
        (f"{GATYS} --content nowhere.jpg", "nowhere.jpg: no such file"),
        (f"{GATYS} --start nowhere.jpg", "nowhere.jpg: no such file"),
        (f"{GATYS} --style nowhere.jpg", "nowhere.jpg: no such file"),
        (f"{GATYS} --vgg nowhere.h5", "nowhere.h5"),
        (f"{GATYS} --style-weights 1 2 3", "one for each of 2 layers"),
        (f"{GATYS} --style-weights 0 --content-weights 0 --tv-weight 0", "all loss weights are zero"),
        (f"{GATYS} --style {NIGHT} {NIGHT} --mix 1", "--mix should be one number for each of 2 paintings"),
        (f"{GATYS} --mix 0", "not all 0"),
        (f"{GATYS} --size 31", "--size is 31; with --scales 1 it should be at least 32"),
        (f"{GATYS} --scales 2", "--size is 32; with --scales 2 it should be at least 64"),
        (f"{GATYS} --iterations 0", "--iterations is 0; it should be at least 1"),
        (f"{GATYS} --lr nan", "--lr is nan"),
        (f"{GATYS} --style-scale 0.1", "give a larger --style-size (optimize: --style-scale or --size)"),
        (f"{GATYS} --style thin.png", "thin.png would be used at 7x48 pixels: give a larger --style-size"),
        (f"{GATYS} --resume", "checkpoint.h5: no such file"),
        # found at the first evaluations
        (f"{GATYS} --style-weights 1e38", "stopped at iteration 1: L-BFGS needs a finite value"),
        (f"{GATYS} --optimizer adam --lr 1e30 --every 50", "or a lower rate (--lr 2.5e+29)"),
    ],
    "evaluate": [
        (f"{NET} --weights nothing.h5", "nothing.h5"),
        (f"{NET} --weights several.h5:c", "no style weights called 'c': choose from a, b, identity"),
        (f"{NET} --weights several.h5:a+b", "is a mixture: name one style"),
        (f"{NET} --weights several.h5:identity", "does not record the objective of identity"),
        (f"{NET} --styles a identity", "no 'identity' to measure"),
        (f"{NET} --style {PHOTO}", "the painting mine.png of the style b is not there: give it with --style"),
        (f"{NET} --images nowhere", "nowhere"),
        (f"{NET} --images {PHOTO} chelsea.jpg", "two photos have the same file name"),
        (f"{NET} --size 31", "--size is 31; it should be at least 32"),
        (f"{SETS} --set nowhere", "nowhere: no such file or folder"),
        (f"{SETS} --set few empty", "empty is an empty folder"),
        (f"{SETS} --set few -o few/out", "lies in the set few"),
        (f"{SETS} --set . ", "lies in the set ."),
        (f"{SETS} --set few -o few/cat.png", "is a file"),
        (f"{SETS} --set few other/few", "two sets called few"),
        (f"{SETS} --set few --weights x2.h5", "--factor 2"),
        (f"{SETS} --set few --weights nothing.h5", "nothing.h5"),
        (f"{SETS} --set few --weights vgg16", "vgg16"),
        (f"{SETS} --set few tiny", "tiny.png is 23x61 pixels; x4 needs at least 24x24"),
        (f"{SETS} --set few broken", "broken.png: no image"),
    ],
    "bench": [
        ("--rounds 0", "--rounds is 0; it should be at least 1"),
        ("--sizes 64 8", "--sizes is 8; it should be at least 16"),
        ("--plot a.png", "--plot means nothing without --sweep"),
        ("--sweep --plot a.jpg", "must end in .png"),
        ("--layers --peer torch", "--peer is not allowed with --layers"),
        ("--convs --width 32", "--width is not allowed with --convs"),
        ("--peer onnxruntime --work train", "use --peer torch"),
        ("--peer torch --sizes 40", "at least 41 pixels"),
        ("--convs --sweep", "--sweep is not allowed with --convs"),
    ],
}
USUAL = {"stylize": "--style starry_night_single", "superres": "--weights x4.h5", "figures": SMALL}
USUAL |= {"gallery": "--weights many.h5"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("empty", "odd/a.png", "tiny", "broken", "few", "other/few"):
            (folder / name).mkdir(parents=True)
        for name in ("a.png", "odd/b.png", "mine.png", "chelsea.jpg", "few/coffee.png", "other/few/a.png"):
            images.save(name, picture(40, 50))
        images.save("c.png", picture(9, 9))
        images.save("thin.png", picture(61, 9))
        images.save("few/cat.png", picture(54, 71))
        images.save("tiny/tiny.png", np.full((61, 23, 3), 9, np.uint8))
        for name in ("notes.txt", "broken/broken.png", "out/scores.csv", "out/few.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("not what you think")
        test_styles.write(folder / "many.h5")
        test_evaluate_style.save_net(folder / "several.h5")
        test_superres.write_net("x4.h5", test_superres.random_net())
        test_evaluate_superres.save_net("x2.h5", factor=2)
    return folder


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [(command, *mistake) for command, mistakes in MISTAKES.items() for mistake in mistakes],
)
def test_a_mistake_ends_in_one_line_and_changes_nothing(folder, monkeypatch, capfd, command, words, message):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500 if command == "superres" else 10**8)
    if command == "bench":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    words = [*USUAL.get(command, "").split(), *words.split()]
    before = tree(folder)
    with pytest.raises(SystemExit) as end:
        main = importlib.import_module(f"tinynst.{command}").main
        cli.run(main, command, [word.replace("+", " ") for word in words])
    err = capfd.readouterr().err
    last = err.splitlines()[-1]
    assert end.value.code == 2 and last.startswith(f"tinynst {command}: ") and message in last
    if "stopped" in last:
        assert [path.name for path in (folder / "run").iterdir()] == [".lock", "losses.csv"]
    else:
        assert err.count("\n") == 1 and tree(folder) == before
