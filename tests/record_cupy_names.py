"""Write cupy_names.json: the names, parameters and methods of the installed CuPy, for the stand-in in strict_cupy.py.

    python tests/record_cupy_names.py

CuPy imports without a GPU, so any machine with `pip install cupy-cuda12x` will do.
"""

import importlib
import inspect
import json
import re
import types
from pathlib import Path

from tinynst.data.files import written_whole

MODULES = ("cupy", "cupy.linalg", "cupy.random", "cupy.lib.stride_tricks")
CLASSES = ("cupy.ndarray", "cupy.random.Generator", "cupy.random.RandomState")
UFUNC_KEYWORDS = (
    "axis",
    "casting",
    "dtype",
    "keepdims",
    "order",
    "out",
    "signature",
    "subok",
    "where",
)  # NumPy's
NAMES = Path(__file__).with_name("cupy_names.json")


def record(cupy):
    """Return what cupy_names.json holds as a dict.

    Parameters are one string: `a` must be given, `a=` may be, `*a` and `**a` take the rest, a lone `/` or `*` divides
    as in Python. None: CuPy does not tell.
    """
    return {
        "version": cupy.__version__,
        "ufunc_keywords": [name for name in UFUNC_KEYWORDS if _ufunc_accepts(cupy.add, name)],
        "modules": {path: _module(importlib.import_module(path)) for path in MODULES},
        "classes": {path: _class(_find(path)) for path in CLASSES},
    }


def _find(path):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _public(owner):
    return {name: getattr(owner, name) for name in sorted(dir(owner)) if not name.startswith("_")}


def _module(module):
    kinds = {"functions": {}, "ufuncs": {}, "types": [], "others": []}
    for name, value in _public(module).items():
        if name == "annotations":  # left by `from __future__ import annotations`
            continue
        if type(value).__name__ == "ufunc":
            kinds["ufuncs"][name] = [value.nin, value.nout]
        elif isinstance(value, type):
            kinds["types"].append(name)
        elif callable(value) and not isinstance(value, types.ModuleType):
            kinds["functions"][name] = parameters(value)
        else:
            kinds["others"].append(name)
    return kinds


def _class(cls):
    kinds = {"methods": {}, "attributes": []}
    for name, value in _public(cls).items():
        if callable(value):
            kinds["methods"][name] = parameters(value, method=True)
        else:
            kinds["attributes"].append(name)
    return kinds


def _ufunc_accepts(ufunc, keyword):
    # Keywords are looked at before the operands: without a GPU a good one fails later, and not with this message.
    try:
        ufunc(1, 2, **{keyword: None})
    except Exception as error:
        return "Wrong arguments" not in str(error)
    return True


def parameters(function, method=False):
    """Return the parameters of `function` as a string (see `record`), from its signature or its docstring."""
    try:
        text = _from_signature(inspect.signature(function))
    except (TypeError, ValueError):
        text = _from_docstring(function.__doc__ or "")
    if method and text is not None:
        text = re.sub(r"^self ?", "", text)
    return text


def _from_signature(signature):
    words = []
    previous = None
    for parameter in signature.parameters.values():
        kind = parameter.kind
        if previous == inspect.Parameter.POSITIONAL_ONLY != kind:
            words.append("/")
        if kind == inspect.Parameter.KEYWORD_ONLY and previous not in (
            kind,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            words.append("*")
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(kind, "")
        words.append(stars + parameter.name + ("=" if parameter.default is not parameter.empty else ""))
        previous = kind
    if previous == inspect.Parameter.POSITIONAL_ONLY:
        words.append("/")
    return " ".join(words)


def _from_docstring(text):
    # Cython writes the signature into the docstring's first line: "ndarray.sum(self, int axis=-1) -> ndarray".
    match = re.match(r"[\w.]+\((.*)\)(?: -> .*)?$", text.split("\n")[0])
    if match is None:
        return None
    words = []
    for part in filter(None, match[1].split(", ")):
        name, equals, _ = part.partition("=")
        words.append(name.split()[-1] + equals)
    return " ".join(words)


def main():
    import cupy

    with written_whole(NAMES) as path:
        # A line for each module and class: differences between versions can be read.
        path.write_text(
            json.dumps(record(cupy), separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n"
        )


if __name__ == "__main__":
    main()
