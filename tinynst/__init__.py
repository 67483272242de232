"""Perceptual losses for real-time style transfer and super-resolution, from scratch in NumPy and CuPy.

    from tinynst import load_style, stylize, show
    show("photo.jpg", stylize(load_style("starry_night"), "photo.jpg"))

A name is imported when it is first used, so that `import tinynst` is quick.
"""

import importlib
import sys
import types

__version__ = "0.1.0"

_DEFINED_IN = {
    "VGG16": "networks",
    "style_net": "networks",
    "super_resolution_net": "networks",
    "StyleSettings": "training.style",
    "SuperResSettings": "training.superres",
    "load_style": "tools.stylize",
    "load_superres": "tools.superres",
    "enlarge": "tools.superres",
    "show": "tools.show",
    "check": "gradcheck",
    "use": "swap",
    "save": "swap",
}
_SUBMODULES = (
    "ops",
    "losses",
    "optim",
    "networks",
    "gradcheck",
    "stylize",
    "train",
    "train_superres",
    "superres",
)
__all__ = [*_DEFINED_IN, *_SUBMODULES]


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _DEFINED_IN:
        return getattr(importlib.import_module(f".{_DEFINED_IN[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return [*__all__, "__version__"]


class _CallableModule(types.ModuleType):
    """A module that can be called: `tinynst.train` is the module of the command and, called, the function."""

    def __call__(self, *arguments, **options):
        return self._called(*arguments, **options)


def make_callable(module_name, function):
    """Let the module of this name be called as `function`: `from tinynst import train; train(settings)`."""
    module = sys.modules[module_name]
    module.__class__, module._called = _CallableModule, function
