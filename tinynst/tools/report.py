"""What the evaluations share: CSV files in and out, rows by key, Markdown tables. Files are written whole."""

import csv

from ..data.files import written_whole


def write_text(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path, columns, rows):
    """Write `rows`, dictionaries with these columns."""
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path, text=()):
    """The rows of a CSV file as dictionaries; values are int or float, except in the `text` columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: value if name in text else _number(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _number(text):
    return int(text) if text.isdigit() else float(text)


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
