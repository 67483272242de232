"""Optimise a picture itself: see tools/optimize.py."""

from .cli import run
from .tools.optimize import OptimizeSettings, main, optimize  # noqa: F401

if __name__ == "__main__":
    run(main, "optimize")
