"""Make the notebooks from their sources: lessons/NN_name.py (py:percent) becomes NN_name.ipynb with outputs,
and the picture of its cell tagged "cover" becomes covers/NN_name.jpg, for the tables of lessons.

python lessons/build.py            all of them
python lessons/build.py 01 05      those whose names begin so
python lessons/build.py --check    write nothing; status 1 unless each committed notebook holds the cells of
                                   its source, runs in a fresh kernel, and prints the same numbers, to
                                   three digits, in the cells tagged "check"
"""

import argparse
import base64
import io
import math
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)


def sources(names=()):
    """The lessons' source files, all or those whose names begin with one of `names`."""
    found = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def read_source(path):
    """The notebook that the text at `path` describes, without outputs."""
    import jupytext

    notebook = jupytext.read(path)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # not random, so that the same source gives the same file
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    return notebook


def executed(notebook):
    """Run all cells in a fresh kernel. Raises CellExecutionError where a cell fails."""
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of day
    return notebook


def cells(notebook):
    """What the author wrote: the kind and text of each cell."""
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def cover(notebook):
    """The picture of the cell tagged "cover", at most 360x150 pixels."""
    from PIL import Image

    (cell,) = (cell for cell in notebook.cells if "cover" in cell.metadata.get("tags", ()))
    shown = [
        output.data for output in cell.outputs if output.output_type in ("display_data", "execute_result")
    ]
    encoded = [data[kind] for data in shown for kind in ("image/png", "image/jpeg") if kind in data]
    picture = Image.open(io.BytesIO(base64.b64decode(encoded[0]))).convert("RGB")
    picture.thumbnail((360, 150))
    return picture


def checked_numbers(notebook):
    """The numbers that the cells tagged "check" printed, [(cell number, [numbers]), ...]."""
    found = []
    for number, cell in enumerate(notebook.cells):
        if "check" in cell.metadata.get("tags", ()):
            text = "".join(
                output.get("text", "") for output in cell.outputs if output.get("name") == "stdout"
            )
            found.append((number, [float(each) for each in NUMBER.findall(text)]))
    return found


def differences(old, new):
    """Lines that say where the numbers of two notebooks differ by more than three digits allow."""
    for (number, before), (_, now) in zip(checked_numbers(old), checked_numbers(new), strict=True):
        same = len(before) == len(now) and all(
            math.isclose(x, y, rel_tol=2e-3, abs_tol=1e-9) for x, y in zip(before, now, strict=True)
        )
        if not same:
            yield f"cell {number} printed {now}, the committed notebook has {before}"


def check(path):
    """The problems of one lesson, as lines; none if all is well."""
    import nbformat

    built = path.with_suffix(".ipynb")
    if not built.exists():
        return [f"{built.name} is missing: run python lessons/build.py"]
    committed, source = nbformat.read(built, as_version=4), read_source(path)
    if cells(committed) != cells(source):
        return [f"{built.name} does not hold the cells of {path.name}: run python lessons/build.py"]
    return list(differences(committed, executed(source)))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="the first characters of the lessons' names (none: all)")
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    options = parser.parse_args()
    failed = 0
    for path in sources(options.names):
        print(path.stem, flush=True)
        if options.check:
            problems = check(path)
            failed += bool(problems)
            print("".join(f"  {line}\n" for line in problems), end="")
        else:
            import nbformat

            notebook = executed(read_source(path))
            nbformat.write(notebook, path.with_suffix(".ipynb"))
            cover(notebook).save(FOLDER / "covers" / f"{path.stem}.jpg", quality=85)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
