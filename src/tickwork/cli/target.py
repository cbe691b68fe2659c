"""TARGET on the command line: `module:app`, `module`, or `path/file.py`; for `map` `module:function`."""

from __future__ import annotations

import importlib
import inspect
import os
import site
import sys
import sysconfig
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidTarget, nearest
from ..frames import deepest_own

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ..app import App


def load(target: str, *, show_traceback: bool = False) -> App:
    """Import what `target` names and return its app.

    Args:
        target: `module:app`, `module`, `path/file.py` or `path/file.py:app`.
        show_traceback: Print the traceback of an import that raises.

    Raises:
        InvalidTarget: It cannot be imported (the cause is what the import raised), or holds no app, or several and
            none is named.
    """
    return load_exact(target, show_traceback=show_traceback)[0]


def app_of(word: str, *, show_traceback: bool = False) -> App:
    """Return the app that `load` finds, or one without tasks for the URL of a store."""
    from ..app import App

    return App(word) if "://" in word else load(word, show_traceback=show_traceback)


def load_exact(target: str, *, folder: str = "", show_traceback: bool = False) -> tuple[App, str]:
    """Return the app and what names it from anywhere: the name of the app is there, the path of a file is absolute.

    Args:
        target: As for `load`.
        folder: The current folder under the name that the path is to have, where that holds a link; "": its own.
        show_traceback: As for `load`.

    Raises:
        InvalidTarget: As for `load`.
    """
    from ..app import App

    where, name = _split(target)
    module = _import(target, where, show_traceback)
    exact = os.path.abspath(os.path.join(folder, where)) if _is_path(where) else where
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if name:
        if name in apps:
            return apps[name], f"{exact}:{name}"
        found = getattr(module, name, None)
        if found is not None:
            raise InvalidTarget(target, f"{name!r} is a {type(found).__name__}, not a tickwork.App")
        near = nearest(name, list(apps))
        raise InvalidTarget(target, f"no {name!r} in it" + (f"; did you mean {near!r}?" if near else ""))
    distinct = {id(app): key for key, app in reversed(apps.items())}  # by its first name
    if len(distinct) == 1:
        ((key, app),) = ((key, apps[key]) for key in distinct.values())
        return app, f"{exact}:{key}"
    if not apps:
        raise InvalidTarget(target, "no tickwork.App in it; make one at its top level: app = App()")
    names = ", ".join(f"{where}:{key}" for key in reversed(distinct.values()))
    raise InvalidTarget(target, f"it holds several apps; name one: {names}")


def load_function(target: str, *, show_traceback: bool = False) -> Callable[..., Any]:
    """Import what `target` names and return its function, or its task.

    Args:
        target: `module:function` or `path/file.py:function`; a function of a class is `module:Class.function`.
        show_traceback: Print the traceback of an import that raises.

    Raises:
        InvalidTarget: It cannot be imported, names no function, or one that is not there.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not all(part.isidentifier() for part in name.split(".")):
        where, name = target, ""
    module = _import(target, where, show_traceback)
    if not name:
        known = [key for key, value in vars(module).items() if _is_own_function(value, module)]
        inside = f"it has {', '.join(known)}" if known else "it has none"
        raise InvalidTarget(target, f"name a function in it, {where}:function; {inside}")
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = nearest(part, [key for key in vars(found) if not key.startswith("_")])
            raise InvalidTarget(target, f"no {name!r} in it" + (f"; did you mean {near!r}?" if near else ""))
        found = getattr(found, part)
    if not callable(found):
        raise InvalidTarget(target, f"{name!r} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _is_own_function(value: object, module: ModuleType) -> bool:
    is_function = inspect.isroutine(value) or getattr(type(value), "__tickwork_task__", False)
    return is_function and getattr(value, "__module__", module.__name__) == module.__name__


def folder_of(target: str) -> Path:
    """Return the folder that holds the target's code.

    Raises:
        InvalidTarget: It is the path of a file that is not there.
    """
    where, _ = _split(target)
    return _file(target, where).parent if _is_path(where) else Path.cwd()


def identity_of(target: str, app: App, folder: str) -> str:
    """Return a text that is the same for every spelling of a target: where its code lies, and the name of its app.

    Symbolic links stay, so that `/srv/app/current` is the same app after a deployment.

    Args:
        target: What was loaded from it is `app`.
        app: The app.
        folder: The absolute path of the folder in which that was.
    """
    where, name = _split(target)
    is_path = _is_path(where)
    module = sys.modules[Path(where).stem if is_path else where]
    name = next((key for key, value in vars(module).items() if value is app), name)
    path = where.removesuffix(".py") if is_path else where.replace(".", os.sep)
    return f"{os.path.normpath(os.path.join(folder, path))}:{name}"


def _split(target: str) -> tuple[str, str]:
    where, colon, name = target.rpartition(":")
    # A colon may belong to a drive: C:\jobs\app.py
    if not colon or not name.isidentifier():
        return target, ""
    return where, name


def _is_path(where: str) -> bool:
    return where.endswith(".py") or os.sep in where or "/" in where


def _file(target: str, where: str) -> Path:
    path = Path(where).resolve()
    if path.is_dir():
        raise InvalidTarget(target, "it is a folder; name a file in it")
    if not path.is_file():
        raise InvalidTarget(target, "no such file")
    return path


def _import(target: str, where: str, show_traceback: bool) -> ModuleType:
    path = _file(target, where) if _is_path(where) else None
    if path is not None:
        folder, name = path.parent, path.stem
        if path.suffix != ".py" or not name.isidentifier():
            raise InvalidTarget(target, f"{path.name!r} cannot be imported; rename the file, such as to my_jobs.py")
        _check_free(target, name)
    else:
        folder, name = Path.cwd(), where
        if not all(part.isidentifier() for part in name.split(".")):
            raise InvalidTarget(target, "neither a module nor a .py file")
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidTarget(target, f"no module named {error.name!r} in {folder} or on sys.path") from None
        raise _import_failed(target, error, show_traceback) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(target, error, show_traceback) from error
    loaded = getattr(module, "__file__", None)
    if path is not None and (loaded is None or Path(loaded).resolve() != path):
        raise _taken(target, name, str(loaded or "a built-in module"))
    return module


def _check_free(target: str, name: str) -> None:
    """Refuse a file that would hide a module which others import: its folder comes first on `sys.path`."""
    if name in sys.stdlib_module_names:
        raise _taken(target, name, "a standard module")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()}
    found = PathFinder.find_spec(name, [path for path in sys.path if path in paths])
    if found is not None and found.origin is not None:  # a folder without __init__.py gives way to a file
        raise _taken(target, name, found.origin)


def _taken(target: str, name: str, by: str) -> InvalidTarget:
    return InvalidTarget(target, f"the module name {name!r} is taken by {by}; rename the file")


def _import_failed(target: str, error: BaseException, show_traceback: bool) -> InvalidTarget:
    if show_traceback:
        traceback.print_exception(error)
    if isinstance(error, SyntaxError) and error.filename:
        return InvalidTarget(target, f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})")
    message = " ".join(str(error).split())  # one line, whatever it holds
    if isinstance(error, SystemExit):
        said = f"it ends the program when it is imported: sys.exit({error.code!r})"
    else:
        said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = place_of(error)
    return InvalidTarget(target, f"{said} ({place})" if place else said)


def place_of(error: BaseException) -> str:
    """Return file and line of the last frame in code of the user's, or of the last one at all, or ""."""
    line = deepest_own(traceback.extract_tb(error.__traceback__))
    return "" if line is None else f"{line.filename}, line {line.lineno}"
