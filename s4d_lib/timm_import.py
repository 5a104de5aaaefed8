"""timm → registry     our models are registered as soon as timm is imported, before this library or after it.

Importing timm takes seconds, so nobody here imports it to register with it: a finder waits at the head of
`sys.meta_path` until somebody else does.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec


def register_with_timm() -> None:
    """Register now if timm is imported already, else as soon as it is."""
    if sys.modules.get("timm"):
        _register()
    else:
        sys.meta_path.insert(0, _WhenTimmIsImported())


def _register() -> None:
    try:
        import_module("s4d_lib.registry")  # registers as it is imported
    except Exception as error:  # whoever imports timm must get it, whatever is wrong here
        warnings.warn(f"the models of s4d_lib are not in timm's registry: {error!r}", stacklevel=2)


class _WhenTimmIsImported(MetaPathFinder):
    """Leaves the search for timm to the finders after it, and has the models registered once timm has run."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "timm":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        if spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    """A loader like the one it is given, with one more step at its end."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> object:
        return self._loader.create_module(spec)

    def exec_module(self, module: object) -> None:
        self._loader.exec_module(module)
        # From here on timm is a module like any other: nobody meets the stand-in.
        module.__loader__ = module.__spec__.loader = self._loader
        _register()
