"""The command `tinynst stylize`: apply a trained style to photos. See tools/stylize.py."""

from . import make_callable
from .cli import run
from .tools.stylize import load_style, main, stylize

__all__ = ["load_style", "stylize"]
make_callable(__name__, stylize)

if __name__ == "__main__":
    run(main, "stylize")
