"""Do something when a module is imported, whoever imports it and when, without importing it oneself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def when_imported(name: str, then: Callable[[], object]) -> None:
    """Call a function as soon as a module has been loaded; at once when it is loaded already.

    What it raises is raised by the import.
    """
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Finder(name, then))


class _Finder:
    """Finds nothing itself: it lets the others find the one module, once, and adds to how that is loaded."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how the module is loaded; None for any other."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._add_to(spec)
                return spec
        return None

    def _add_to(self, spec: ModuleSpec) -> None:
        loader, then = spec.loader, self._then
        assert loader is not None, "a module, not a folder without __init__.py"
        load = loader.exec_module

        def load_and_tell(module: ModuleType) -> None:
            load(module)
            then()

        loader.exec_module = load_and_tell  # type: ignore[method-assign]
