"""Measure quality: what the paper measures, for a style net and for super-resolution."""

from .cli import Parser, run
from .tools import evaluate_style, evaluate_superres

TASKS = {"style": evaluate_style, "superres": evaluate_superres}


def main(arguments=None):
    """The command `python -m tinynst.evaluate`; `arguments` is a list of strings (None: the command line's)."""
    parser = Parser(prog="tinynst evaluate", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, task in TASKS.items():
        task.add_options(tasks.add_parser(name, help=task.__doc__.splitlines()[0], description=task.__doc__))
    s = parser.parse_args(arguments)
    TASKS[s.task].evaluate(s)


if __name__ == "__main__":
    run(main, "evaluate")
