"""Apply a trained style to photos: see tools/stylize.py."""

from .cli import run
from .tools.stylize import load_style, main, stylize  # noqa: F401

if __name__ == "__main__":
    run(main, "stylize")
