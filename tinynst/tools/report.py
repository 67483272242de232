"""CSV files and Markdown tables of measurements, which are lists of dictionaries. Files are written whole."""

import csv

from ..data.files import written_whole


def write_text(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path, columns, rows):
    """Write `rows`, dictionaries with some of these columns."""
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path, text=()):
    """The rows of a CSV file, without empty cells; values are int or float, except in the `text` columns."""

    def value(name, cell):
        return cell if name in text else int(cell) if cell.isdigit() else float(cell)

    with open(path, newline="", encoding="utf-8") as file:
        return [{n: value(n, cell) for n, cell in row.items() if cell} for row in csv.DictReader(file)]


def grouped(rows, *columns):
    """{key: its rows}, in their order. A key is the value of the column, or a tuple of several columns."""
    groups = {}
    for row in rows:
        key = tuple(row[name] for name in columns)
        groups.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return groups


def markdown_table(lines):
    """A Markdown table of lines {column: cell}, all strings; the first column is text, others are numbers."""
    head = list(lines[0])
    cells = [head, ["---", *["---:"] * (len(head) - 1)], *(line.values() for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)
