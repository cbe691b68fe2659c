"""The file that `Pool.save` writes and `Pool.load` takes: waiting jobs as JSON, functions by name.

The file appears whole or not at all: it is written beside its place, synced, and given its name, never over another.
A load first renames the file, so that of two processes only one has it.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidPayload, NotImportable
from .payloads import Codec
from .runners.reference import Reference, reference, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments and options: what a saved entry stands for."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run_in: str
    timeout: float | None


def entry_of(call: Call) -> dict[str, Any]:
    """Return the call as plain JSON data.

    Raises:
        NotImportable: The function has no name that a later process could import.
        InvalidPayload: An argument cannot be written as JSON.
    """
    found = reference(call.fn)
    codec = Codec(call.fn, name=f"{found.module}.{found.qualname}")
    return {
        "function": {key: value for key, value in found._asdict().items() if value},
        "payload": json.loads(codec.encode(call.args, call.kwargs)),
        "run_in": call.run_in,
        "timeout": call.timeout,
    }


def call_of(entry: Any) -> Call:
    """Return the call that an entry stands for; imports the function's module.

    Raises:
        NotImportable: The function is not there any more.
        InvalidPayload: The arguments do not fit it, or the entry is none.
    """
    try:
        found = Reference(**entry["function"])
        found = found._replace(steps=tuple(found.steps))
        payload, run_in, timeout = entry["payload"], entry["run_in"], entry["timeout"]
    except (TypeError, KeyError) as error:
        raise InvalidPayload("entry", f"not an entry of a saved pool: {error!r}") from error
    name = f"{found.module}.{found.qualname}"
    try:
        fn = resolve(found)
    except NotImportable:
        raise
    except Exception as error:
        raise NotImportable(name, f"{type(error).__name__}: {error}") from error
    args, kwargs = Codec(fn, name=name).decode(json.dumps(payload))
    return Call(fn, args, kwargs, run_in, timeout)


class Snapshot:
    """The file, and the moves around it. Call them under `to_its_end`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)

    async def write(self, entries: list[dict[str, Any]], *, kept: bool) -> None:
        """Write the entries.

        Args:
            entries: What `entry_of` gave.
            kept: They stay in the pool as well; such a file may be overwritten by the next one of its kind.

        Raises:
            FileExistsError: The path holds entries that exist nowhere else.
            OSError: The file could not be written; nothing has changed.
        """
        import aiofiles  # only who saves pays for it
        import aiofiles.os

        # Another snapshot of the kind may be overwritten; anything else is the only place where its jobs are.
        overwrites = kept and await aiofiles.os.path.exists(self.path) and (await self._read(self.path))[1]
        text = json.dumps({"tickwork": "pool", "version": VERSION, "kept": kept, "entries": entries}, indent=1)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            async with aiofiles.open(beside, "w", encoding="utf-8") as file:
                await file.write(text)
                await file.flush()
                await aiofiles.os.wrap(os.fsync)(file.fileno())
            if overwrites:
                await aiofiles.os.replace(beside, self.path)
            else:
                await aiofiles.os.wrap(_move_to_free_place)(beside, self.path)
        except BaseException:
            await aiofiles.os.wrap(_remove)(beside)
            raise
        await aiofiles.os.wrap(_sync_folder)(self.path.parent)

    async def claim(self) -> tuple[Snapshot, list[Any]]:
        """Take the file out of everybody's reach and read it.

        Returns:
            The claimed file, to be removed when its entries have a place or given back; and the entries.

        Raises:
            FileNotFoundError: There is none, or another process has claimed it.
            InvalidPayload: It is not a file of a saved pool; it is left as it was.
        """
        import aiofiles.os

        claimed = Snapshot(self.path.with_name(f"{self.path.name}.claimed-{os.getpid()}-{secrets.token_hex(4)}"))
        try:
            await aiofiles.os.rename(self.path, claimed.path)
        except FileNotFoundError:
            left = await aiofiles.os.wrap(_names)(self.path)
            raise FileNotFoundError(
                f"no saved pool at {str(self.path)!r}"
                + (f"; claimed by a load that may have died: {', '.join(left)}" if left else "")
            ) from None
        try:
            return claimed, (await self._read(claimed.path))[0]
        except BaseException:
            await claimed.give_back(self)
            raise

    async def give_back(self, original: Snapshot) -> None:
        """Undo a claim.

        Raises:
            FileExistsError: The place is taken meanwhile; the jobs stay in the claimed file.
        """
        import aiofiles.os

        await aiofiles.os.wrap(_move_to_free_place)(self.path, original.path)

    async def remove(self) -> None:
        """Remove the file."""
        import aiofiles.os

        await aiofiles.os.remove(self.path)

    @staticmethod
    async def _read(path: Path) -> tuple[list[Any], bool]:
        import aiofiles

        async with aiofiles.open(path, "rb") as file:
            text = await file.read()
        try:
            content = json.loads(text)
            if content["tickwork"] != "pool" or content["version"] != VERSION:
                raise ValueError(f"version {content['version']!r} of {content['tickwork']!r}")
            return list(content["entries"]), bool(content["kept"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidPayload(str(path), f"not a file of a saved pool: {error!r}") from error


def _move_to_free_place(source: Path, path: Path) -> None:
    """Rename a file, but never over another one.

    A rename replaces what is there, and a look before it comes too early when two processes save at once; a hard
    link is refused when its name is taken.
    """
    taken = FileExistsError(
        f"{str(path)!r} already holds saved jobs; load them first or save to another path"
        + ("" if source.name.startswith(".") else f" (these are in {str(source)!r})")
    )
    try:
        os.link(source, path)
    except FileExistsError:
        raise taken from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise taken from None
        source.rename(path)
    else:
        source.unlink()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _names(path: Path) -> list[str]:
    return sorted(str(found) for found in path.parent.glob(f"{path.name}.claimed-*"))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
