"""The command: check the whole library, some of it by name, or a learner's own files."""

import difflib
import json
from pathlib import Path

import numpy as np

from ..cli import Parser
from ..device import HELP, select
from ..errors import UserError
from .cases import CASES
from .grade import check_folder, grades

SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def main(arguments=None):
    """Check the whole library, some of it by name, or learners' files. Status 0 when all passed, else 1."""
    about = "Check gradients against finite differences, in float64."
    parser = Parser(prog="tinynst gradcheck", description=about)
    option = parser.add_argument
    option("what", nargs="*", help="names (see --list), Python files, or a folder of them; none: everything")
    option("--list", action="store_true", help="show what can be checked by name")
    option("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    option("--device", default="cpu", help=f"{HELP} (default: %(default)s)")
    option("--plot", metavar="FILE.png", help="draw the gradient that failed first, or has the largest error")
    option("--json", action="store_true", help="print the result for programs, and nothing else")
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(case.name for case in CASES))
    if options.list:
        print("\n".join(names))
        return 0
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {options.seed}")
    for what in (what for what in options.what if what not in names):
        if not what.endswith(".py") and not Path(what).exists():
            near = difflib.get_close_matches(what, names, 1) or ["a Python file"]
            raise UserError(f"there is nothing called {what!r} to check; did you mean {near[0]}? See --list")
        if Path(what).is_dir() and (options.plot or options.json):
            raise UserError(f"--plot and --json go with names and files, not with a folder ({what})")
    if options.plot and Path(options.plot).suffix.lower() not in SUFFIXES:
        raise UserError(f"--plot {options.plot}: the name should end in {', '.join(SUFFIXES)}")
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    checks = list(_checks(options.what, names, options.seed, select(options.device), say))
    good = all(passed is True for _, passed, _ in checks)
    if options.json:
        found = [{"name": n, "passed": p, "report": r.as_json() if r else None} for n, p, r in checks]
        print(json.dumps({"passed": good, "checks": found}, indent=1))
    if options.plot:
        reports = [report for *_, report in checks if report]
        if not reports:
            raise UserError(f"--plot {options.plot}: nothing to draw, because no gradient was compared")
        worst = max(reports, key=lambda report: (report.passed is False, np.nan_to_num(report.error)))
        worst.plot(options.plot)
        say(f"{worst.title}: drawn in {options.plot}")
    return 0 if good else 1


def _checks(wanted, names, seed, xp, say):
    """Check and report one after the other. Yields (name, passed, Report or None)."""
    failed = []
    for case in [] if wanted else CASES:  # everything: a line each, with fewer elements
        report = case.check(seed, xp, samples=60)
        say(report.line(case.name, case.label))
        failed += [] if report.passed else [case.name]
        yield case.name, report.passed, report
    if failed:
        say(f"{len(failed)} of {len(CASES)} failed; see: tinynst gradcheck {' '.join(dict.fromkeys(failed))}")
    elif not wanted:
        say(f"all {len(CASES)} passed (seed {seed})")
    for what in wanted:
        if what in names:
            for case in (case for case in CASES if case.name == what):
                report = case.check(seed, xp)
                say(report)
                yield what, report.passed, report
        elif Path(what).is_dir():
            yield what, check_folder(what, seed, xp), None
        else:
            for grade in grades(what, seed, xp, may_exit=True):
                say(grade.text)
                yield grade.name, grade.passed, grade.report
