"""Imports run one way, and what is only needed to compute loads no files, no pictures and no command line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tinynst"
RANKS = "errors device ops layers networks losses optim training".split()
CORE = ("ops", "layers", "networks", "losses", "optim")
NOT_IN_CORE = {"argparse", "h5py", "PIL", "tqdm", "matplotlib"}


def imports(path, everywhere=False):
    """Return the full names that the file imports, at module level or `everywhere`."""
    tree, package = ast.parse(path.read_text()), ["tinynst", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*module, *filter(None, [node.module])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def part(module):
    """Return "ops" for "tinynst.ops.conv.conv2d", None for a module outside the package."""
    names = module.split(".")
    return names[1] if names[0] == "tinynst" and len(names) > 1 else None


FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.split("/")[0].removesuffix(".py") in [*RANKS, "data"]]
)
def test_imports_run_one_way(name):
    own = name.split("/")[0].removesuffix(".py")
    found = imports(FILES[name])
    below = set(RANKS[: RANKS.index(own) + 1]) if own in RANKS else {"data", "device", "errors"}
    if own == "training":
        below |= {"data", "samples", "settings", "cli"}
    if name == "data/styles.py":
        below |= {"losses", "networks"}
    assert {part(module) for module in found} - {None, "__version__"} <= below
    if own in CORE:
        assert not {module.split(".")[0] for module in found} & NOT_IN_CORE


def test_only_device_imports_cupy():
    found = {
        name for name, path in FILES.items() if any(m.split(".")[0] == "cupy" for m in imports(path, True))
    }
    assert found == {"device.py"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("tinynst", "h5py matplotlib cupy PIL"),
        (
            "tinynst.networks, tinynst.losses, tinynst.optim",
            "h5py matplotlib cupy PIL tqdm argparse tinynst.data tinynst.cli",
        ),
    ],
)
def test_what_is_not_loaded(modules, absent):
    code = f"import sys, {modules}; print(*[name for name in {absent.split()} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("\n", "")
