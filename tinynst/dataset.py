"""The command `tinynst dataset`: pack a folder of photos into one file (see data/photos.py)."""

from pathlib import Path

from .cli import Parser, run
from .data.photos import pack
from .errors import printable


def main(arguments=None):
    parser = Parser(prog="tinynst dataset", description="Pack photos into one HDF5 file to train from.")
    parser.add_argument("folder", metavar="FOLDER", help="photos, in folders below it too")
    parser.add_argument("out", metavar="OUT.h5", help="the file to write")
    parser.add_argument(
        "--side",
        type=int,
        default=288,
        help="shrink photos to this short side, in pixels (default: %(default)s)",
    )
    s = parser.parse_args(arguments)
    packed, skipped = pack(s.folder, s.out, s.side)
    size = Path(s.out).stat().st_size / 1e6
    print(f"{printable(s.out)}: {packed} photos packed, {skipped} skipped, {size:.1f} MB")
    return 1 if skipped else 0


if __name__ == "__main__":
    run(main, "dataset")
