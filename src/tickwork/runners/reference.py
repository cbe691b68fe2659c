"""Functions by reference: the name under which another process finds the same function.

A function travels to a child process as (module, qualified name), never as code. `reference` checks, without
importing anything, that the name leads back to the very function; `resolve` is the way back.

The main module needs a rule of its own, because a child is not started with the parent's script. A file run
as a script is imported under its stem, with its folder first on `sys.path`; a module run by `python -m` under
its real name. Neither is `__main__` there, so what stands under `if __name__ == "__main__":` does not run.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# The names a main module has in its own process; the second is what multiprocessing's spawn gives it.
MAIN_NAMES = ("__main__", "__mp_main__")

# Decorators around decorators: deeper than anybody stacks them, and an end for objects that wrap themselves.
MAX_STEPS = 20


class Reference(NamedTuple):
    """Where a function is found.

    Attributes:
        module: The name to import; for a script the stem of its file.
        qualname: The dotted path inside the module.
        path: The absolute path of the script, when the module is one; else None.
        steps: The attributes that lead from the object of that name to the function: `("fn",)` for a task,
            `("__wrapped__",)` for a function behind a decorator.
    """

    module: str
    qualname: str
    path: str | None = None
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the usual notation, such as "reports.pdf:render"."""
        return f"{self.module}:{self.qualname}"


class _NoName(Exception):
    """The main module has no name by which another process could import it; the text says why."""


def reference(fn: Callable[..., Any]) -> Reference:
    """Return the name under which another process finds `fn`.

    A task stands for its function. Nothing is imported.

    Raises:
        NotImportable: No name leads to it: a lambda, a nested function, a method of an instance, a partial,
            a callable object, something defined in an interactive session, or a name that now means
            something else.
    """
    fn = _plain(fn)
    module_name, qualname = _names(fn)
    module = sys.modules.get(module_name)
    if module is None:
        raise _refused(fn, f"its module {module_name!r} is not loaded")
    steps = _steps(fn, module, qualname)
    if module_name in MAIN_NAMES:
        try:
            name, path = _main_name(module)
        except _NoName as error:
            raise _refused(fn, str(error)) from None
        return Reference(name, qualname, path, steps)
    return Reference(module_name, qualname, None, steps)


def resolve(found: Reference) -> Callable[..., Any]:
    """Import the module and return the function that `found` leads to.

    Raises:
        NotImportable: The module is there, but the name is not, or is no function.
        Exception: Whatever the import of the module raises.
    """
    target = _plain(resolve_any(found))
    if not callable(target):
        raise _refused(str(found), f"it is a {type(target).__name__}, which cannot be called")
    return target  # type: ignore[no-any-return]


def resolve_any(found: Reference) -> Any:
    """Import the module and return what `found` leads to, whatever it is.

    Raises:
        NotImportable: The module is there, but the name is not.
        Exception: Whatever the import of the module raises.
    """
    target: Any = _load(found)
    try:
        for name in (*found.qualname.split("."), *found.steps):
            target = getattr(target, name)
    except AttributeError as error:
        raise _refused(str(found), str(error)) from error
    return target


def task_name(fn: Callable[..., Any]) -> str:
    """Return "module.qualname" of a function or task, with `__main__` replaced by the name it is known by.

    It never refuses: what cannot be imported is still named, as for a message or a log.
    """
    fn = _plain(fn)
    while isinstance(fn, partial):
        fn = fn.func
    qualname = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__qualname__
    module = getattr(fn, "__module__", None) or type(fn).__module__
    if module in MAIN_NAMES and module in sys.modules:
        with suppress(_NoName):  # in an interactive session __main__ is the only name there is
            module = _main_name(sys.modules[module])[0]
    return f"{module}.{qualname}"


def main_module() -> tuple[str, str | None] | None:
    """Return name and path by which another process imports this one's main module, or None if it cannot."""
    try:
        return _main_name(sys.modules["__main__"])
    except (KeyError, _NoName):
        return None


def import_main(name: str, path: str | None) -> ModuleType:
    """Import what `main_module` of another process named.

    Raises:
        ImportError: Another module of the same name is in the way.
    """
    if path is None:
        return import_module(name)
    folder = os.path.dirname(path)
    if name not in sys.modules and sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    module = import_module(name)
    loaded = getattr(module, "__file__", None)
    if loaded is None or os.path.realpath(loaded) != os.path.realpath(path):
        raise ImportError(
            f"the script {path!r} is hidden by another module named {name!r} ({loaded}); rename the script"
        )
    return module


def _plain(fn: Any) -> Any:
    while getattr(type(fn), "__tickwork_task__", False):
        fn = fn.fn
    return fn


def _names(fn: Any) -> tuple[str, str]:
    if isinstance(fn, partial):
        raise _refused(fn, "it is a partial; pass its arguments with the call")
    module = getattr(fn, "__module__", None)
    qualname = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
    if not isinstance(qualname, str):
        raise _refused(fn, f"it is an instance of {type(fn).__qualname__}, not a function")
    owner = getattr(fn, "__self__", None)
    if owner is not None and not isinstance(owner, type | ModuleType):
        raise _refused(fn, f"it is a method of an instance of {type(owner).__qualname__}")
    if "<lambda>" in qualname:
        raise _refused(fn, "it is a lambda")
    if "<locals>" in qualname:
        raise _refused(fn, "it is defined inside another function")
    if not isinstance(module, str):
        raise _refused(fn, "it names no module")
    return module, qualname


def _steps(fn: Any, module: ModuleType, qualname: str) -> tuple[str, ...]:
    """Return the attributes from the object named `qualname` to `fn`, in the order they are followed."""
    target: Any = module
    for name in qualname.split("."):
        target = getattr(target, name, None)
        if target is None:
            raise _refused(fn, f"module {module.__name__!r} has no {qualname!r}")
    steps: tuple[str, ...] = ()
    while not _same(target, fn):
        step = "fn" if getattr(target, "fn", None) is not None else "__wrapped__"
        target = getattr(target, step, None)
        steps += (step,)
        if target is None or len(steps) > MAX_STEPS:
            raise _refused(fn, f"{module.__name__}.{qualname} is another object")
    return steps


def _same(target: Any, fn: Any) -> bool:
    if target is fn:
        return True
    # Class.method makes a new object at each access; two of them are equal when class and function are.
    return isinstance(getattr(fn, "__self__", None), type) and bool(target == fn)


def _main_name(module: ModuleType) -> tuple[str, str | None]:
    spec = module.__spec__ if hasattr(module, "__spec__") else None
    if spec is not None and spec.name not in MAIN_NAMES:
        return spec.name, None
    if spec is not None:
        raise _NoName("it is defined in the __main__ of a folder or a zip file")
    file = getattr(module, "__file__", None)
    if not file or file.startswith("<"):
        raise _NoName("it is defined in an interactive session or by python -c")
    path = file if os.path.isabs(file) else os.path.abspath(file)
    stem, extension = os.path.splitext(os.path.basename(path))
    if extension != ".py" or "." in stem:
        raise _NoName(f"its script {path!r} cannot be imported under its name, which should be NAME.py")
    if stem in sys.stdlib_module_names:
        raise _NoName(f"its script {path!r} has the name of a standard module; rename it")
    return stem, path


def _load(found: Reference) -> ModuleType:
    if main_module() == (found.module, found.path):  # it is the main module of this very process
        return sys.modules["__main__"]
    return import_main(found.module, found.path)


def _refused(fn: object, reason: str) -> Exception:
    from ..errors import NotImportable  # it imports asyncio, which children do without

    return NotImportable(fn, reason)
