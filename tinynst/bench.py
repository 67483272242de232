"""Measure speed and memory: see tools/bench.py."""

from .cli import run
from .tools.bench import main

if __name__ == "__main__":
    run(main, "bench")
