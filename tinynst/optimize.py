"""Optimise a picture itself: see tools/optimize.py."""

from .cli import run
from .tools.optimize import main

if __name__ == "__main__":
    run(main, "optimize")
