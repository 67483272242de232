"""The command: check the whole library, some of it by name, or a learner's own file."""

import difflib
import json
from pathlib import Path

import numpy as np

from ..cli import Parser
from ..device import select
from ..errors import UserError
from .cases import CASES, check_case
from .learner import check_file, grades
from .show import line


def main(arguments=None):
    """Check the whole library, some of it by name, or learners' files. Status 0 when all passed, else 1."""
    parser = Parser(prog="tinynst gradcheck", description="Check gradients against differences, in float64.")
    parser.add_argument(
        "what", nargs="*", help="names (see --list), Python files, or a folder of them; none: everything"
    )
    parser.add_argument("--list", action="store_true", help="show what can be checked by name")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the inputs, the upstream gradient and the sampling"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        help="draw the first gradient that failed, else the one with the largest error",
    )
    parser.add_argument("--json", action="store_true", help="print the result for machines, and nothing else")
    parser.add_argument(
        "--mutants",
        action="store_true",
        help="plant bugs in the library's own code and see what is said of them",
    )
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {options.seed}")
    names = list(dict.fromkeys(case.name for case in CASES))
    if options.list:
        print("\n".join(names))
        return 0
    if options.mutants:
        return _mutants(options)
    for what in options.what:
        if what not in names and not _is_file(what):
            near = difflib.get_close_matches(what, names, 1)
            meant = (
                f"did you mean {near[0]}?"
                if near
                else f"choose from {', '.join(names)}, or give a Python file"
            )
            raise UserError(f"there is nothing called {what!r} to check; {meant}")
    if options.plot and not _can_be_drawn(options.plot):
        raise UserError(f"--plot {options.plot}: the name should end in .png, .jpg, .pdf or .svg")
    folder = next((what for what in options.what if what not in names and Path(what).is_dir()), None)
    if folder and (options.plot or options.json):
        raise UserError(f"--plot and --json go with names and files, not with a folder ({folder})")
    xp = select(options.device)
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    checks = list(_checks(options.what, names, options.seed, xp, say))
    good = all(check["passed"] is True for check in checks)
    if options.json:
        print(json.dumps({"passed": good, "checks": [_plain(check) for check in checks]}, indent=1))
    if options.plot:
        _plot([check["report"] for check in checks if check["report"]], options.plot, say)
    return 0 if good else 1


def _checks(wanted, names, seed, xp, say):
    """Check and tell one after the other. Yields {"name", "passed", "report": Report or None}."""
    if not wanted:
        yield from _all(seed, xp, say)
    for what in wanted:
        if what in names:
            for case in CASES:
                if case.name == what:
                    report = check_case(case, seed, xp)
                    say(report)
                    yield {"name": case.name, "passed": report.passed, "report": report}
        elif Path(what).is_dir():
            yield {"name": what, "passed": check_file(what, seed, xp), "report": None}
        else:
            for grade in grades(what, seed, xp):
                say(grade.text)
                yield {"name": grade.name, "passed": grade.passed, "text": grade.text, "report": grade.report}


def _all(seed, xp, say):
    """One line for each case, with fewer elements."""
    failed = []
    for case in CASES:
        report = check_case(case, seed, xp, samples=60)
        say(line(case.label, report, case.name))
        if report.passed is not True:
            failed.append(case.name)
        yield {"name": case.name, "passed": report.passed, "report": report}
    if failed:
        say(
            f"{len(failed)} of {len(CASES)} did not pass; see: tinynst gradcheck {' '.join(dict.fromkeys(failed))}"
        )
    else:
        say(f"all {len(CASES)} passed (seed {seed})")


def _mutants(options):
    """The figures of the collection of bugs. Status 0 when all were caught."""
    if options.what or options.json or options.plot or options.device != "cpu":
        raise UserError(
            "--mutants checks its own collection on the CPU: leave out names, --json, --plot and --device"
        )
    from .mutants import figures  # compiles the library's sources anew: only when it is wanted

    planted, caught, _ = figures(options.seed)
    return 0 if caught == planted else 1


def _plot(reports, path, say):
    if not reports:
        raise UserError(f"--plot {path}: there is nothing to draw, for no gradient was compared yet")
    wrong = [report for report in reports if report.passed is False]
    worst = wrong[0] if wrong else max(reports, key=lambda report: np.nan_to_num(report.error))
    worst.plot(path)
    say(f"{worst.title}: drawn in {path}")


def _plain(check):
    """For JSON, which does not know a Report."""
    return {**check, "report": check["report"].as_json() if check["report"] else None}


def _can_be_drawn(path):
    return Path(path).suffix.lower() in (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def _is_file(what):
    return what.endswith(".py") or Path(what).exists()
