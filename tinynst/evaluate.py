"""Measure quality as the paper does: a style net, or super-resolution."""

from .cli import Parser, run
from .tools import evaluate_style, evaluate_superres

TASKS = {
    "style": (evaluate_style, evaluate_style.EvaluateStyleSettings),
    "superres": (evaluate_superres, evaluate_superres.EvaluateSuperresSettings),
}


def main(arguments=None):
    """The command `python -m tinynst.evaluate`; `arguments` are strings (None: those of the command line)."""
    parser = Parser(prog="tinynst evaluate", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, (module, settings) in TASKS.items():
        sub = tasks.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        settings.add_options(sub)
    given = vars(parser.parse_args(arguments))
    module, settings = TASKS[given.pop("task")]
    module.evaluate(settings(**given))


if __name__ == "__main__":
    run(main, "evaluate")
