"""TARGET on the command line: `module:app`, `module`, or `path/file.py`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidTarget, nearest

if TYPE_CHECKING:
    from types import ModuleType

    from ..app import App


def load(target: str, *, show_traceback: bool = False) -> App:
    """Import what `target` names and return its app.

    Args:
        target: `module:app`, `module`, `path/file.py` or `path/file.py:app`.
        show_traceback: Print the traceback of an import that raises.

    Raises:
        InvalidTarget: It cannot be imported, or holds no app, or several and none is named.
    """
    from ..app import App

    where, name = _split(target)
    module = _import(target, where, show_traceback)
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if name:
        if name in apps:
            return apps[name]
        found = getattr(module, name, None)
        if found is not None:
            raise InvalidTarget(target, f"{name!r} is a {type(found).__name__}, not a tickwork.App")
        near = nearest(name, list(apps))
        raise InvalidTarget(target, f"no {name!r} in it" + (f"; did you mean {near!r}?" if near else ""))
    distinct = {id(app): key for key, app in apps.items()}
    if len(distinct) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise InvalidTarget(target, "no tickwork.App in it; make one at its top level: app = App()")
    names = ", ".join(f"{where}:{key}" for key in distinct.values())
    raise InvalidTarget(target, f"it holds several apps; name one: {names}")


def folder_of(target: str) -> Path:
    """Return the folder that holds the target's code."""
    where, _ = _split(target)
    return Path(where).resolve().parent if _is_path(where) else Path.cwd()


def _split(target: str) -> tuple[str, str]:
    where, colon, name = target.rpartition(":")
    # A colon may belong to a drive: C:\jobs\app.py
    if not colon or not name.isidentifier():
        return target, ""
    return where, name


def _is_path(where: str) -> bool:
    return where.endswith(".py") or os.sep in where or "/" in where


def _import(target: str, where: str, show_traceback: bool) -> ModuleType:
    if _is_path(where):
        path = Path(where).resolve()
        if path.is_dir():
            raise InvalidTarget(target, "it is a folder; name a file in it")
        if not path.is_file():
            raise InvalidTarget(target, "no such file")
        folder, name = path.parent, path.stem
        if not name.isidentifier():
            raise InvalidTarget(target, f"{name!r} cannot be a module's name; rename the file")
    else:
        path, folder, name = None, Path.cwd(), where
        if not all(part.isidentifier() for part in name.split(".")):
            raise InvalidTarget(target, "neither a module nor a .py file")
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidTarget(target, f"no module named {error.name!r} in {folder} or on sys.path") from None
        raise _import_failed(target, error, show_traceback) from None
    except (Exception, SystemExit) as error:
        raise _import_failed(target, error, show_traceback) from None
    loaded = getattr(module, "__file__", None)
    if path is not None and (loaded is None or Path(loaded).resolve() != path):
        raise InvalidTarget(target, f"its name {name!r} is taken by {loaded or 'a built-in module'}; rename the file")
    return module


def _import_failed(target: str, error: BaseException, show_traceback: bool) -> InvalidTarget:
    if show_traceback:
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    library, own = str(Path(__file__).parent.parent), ""
    for frame in frames:
        if not frame.filename.startswith(("<", library)) and frame.filename != importlib.__file__:
            own = f" ({frame.filename}, line {frame.lineno})"
    if isinstance(error, SyntaxError) and error.filename:
        own = f" ({error.filename}, line {error.lineno})"
        return InvalidTarget(target, f"SyntaxError: {error.msg}{own}")
    return InvalidTarget(target, f"{type(error).__name__}: {error}{own}")
