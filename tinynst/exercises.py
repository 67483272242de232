"""`tinynst exercises`: copies the stubs to a folder of your own. `tinynst gradcheck FILE.py` grades them."""

from pathlib import Path

from .cli import Parser, run
from .data.files import written_whole
from .errors import UserError

STUBS = (
    Path(__file__).resolve().parents[1] / "lessons" / "exercises"
)  # with the project, not in the installed package


def main(arguments=None):
    """Copy the stubs that are not there yet. Status 1 when a file that differs was kept."""
    stubs = {path.stem: path.read_text(encoding="utf-8") for path in sorted(STUBS.glob("*.py"))}
    parser = Parser(prog="tinynst exercises", description="Copy the exercises' stubs to a folder to work in.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(stubs)}; none: all")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        default="my_exercises",
        help="where they go (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="also start those again that you have worked on"
    )
    options = parser.parse_args(arguments)
    if not stubs:
        raise UserError(f"the exercises come with the project's source, not with the package: no {STUBS}")
    for name in options.names:
        if name not in stubs:
            raise UserError(f"there is no exercise {name!r}; choose from {', '.join(stubs)}")
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"{options.output} is a file; the exercises need a folder")
    if options.output.resolve() == STUBS:
        raise UserError(f"{options.output} holds the stubs themselves; choose another folder")
    kept = 0
    for name in options.names or stubs:
        path = options.output / f"{name}.py"
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") == stubs[name]:
            continue
        if path.exists() and not options.overwrite:
            kept += 1
            print(f"{path}: kept, because it is not the stub any more (--overwrite starts it again)")
            continue
        with written_whole(path) as temporary:
            temporary.write_text(stubs[name], encoding="utf-8")
        print(f"{path}: written")
    return 1 if kept else 0


if __name__ == "__main__":
    run(main, "exercises")
