"""`map_files`, `amap_files`: a function over the files of a folder.

counts = await tickwork.map_files("data", count_rows, "*.csv", run_in="process")
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ..options import one_of
from .file_place import FilePlace, Files
from .files import check_directory
from .run import Batch
from .stream import Outcomes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Unpack

    from ..errors import ItemError
    from .options import BatchOptions, OnError

    Read = Literal["bytes", "text"] | None

R = TypeVar("R")


@overload
async def map_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], Coroutine[Any, Any, R]],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    on_error: Literal["collect"] = "collect",
    **options: Unpack[BatchOptions],
) -> dict[Path, R | ItemError]: ...
@overload
async def map_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], Coroutine[Any, Any, R]],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    on_error: Literal["raise", "skip"],
    **options: Unpack[BatchOptions],
) -> dict[Path, R]: ...
@overload
async def map_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], R],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    on_error: Literal["collect"] = "collect",
    **options: Unpack[BatchOptions],
) -> dict[Path, R | ItemError]: ...
@overload
async def map_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], R],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    on_error: Literal["raise", "skip"],
    **options: Unpack[BatchOptions],
) -> dict[Path, R]: ...
async def map_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], Any],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    on_error: OnError = "collect",
    **options: Unpack[BatchOptions],
) -> dict[Path, Any]:
    """Call a function with each file of a folder, in parallel, and return the results by path, in the order of paths.

    The folder is walked off the loop while the function runs. See `find_files` for what is found and in which order.

    Args:
        directory: The folder. The paths begin with it, so they are relative where it is.
        fn: Takes a path, or what the file holds.
        pattern: What names look like, "*.csv"; with a "/", what the path below the directory looks like.
        recursive: Look into the folders below as well.
        read: What `fn` is given: "bytes", or "text" (UTF-8), read off the loop; None: the path.
        on_error: As in `map`, but "collect" unless told: a file, folder or link that cannot be read does not stop the
            others, and an `ItemError` says why.
        **options: See `BatchOptions`. A `timeout` does not count the reading.

    Raises:
        InvalidOption: An option is wrong.
        OSError: The directory is not there, is no directory, or cannot be read.
        Exception: As in `map`.
    """
    results: dict[Path, Any] = {}
    async with amap_files(
        directory, fn, pattern, recursive=recursive, read=read, on_error=on_error, **options
    ) as outcomes:
        async for outcome in outcomes:
            results[outcome.item] = outcome.value if outcome.error is None else outcome.error
    return results


@overload
def amap_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], Coroutine[Any, Any, R]],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    ordered: bool = True,
    on_error: OnError = "collect",
    **options: Unpack[BatchOptions],
) -> Outcomes[Path, R]: ...
@overload
def amap_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], R],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    ordered: bool = True,
    on_error: OnError = "collect",
    **options: Unpack[BatchOptions],
) -> Outcomes[Path, R]: ...
def amap_files(
    directory: str | os.PathLike[str],
    fn: Callable[[Any], Any],
    pattern: str = "*",
    *,
    recursive: bool = True,
    read: Read = None,
    ordered: bool = True,
    on_error: OnError = "collect",
    **options: Unpack[BatchOptions],
) -> Outcomes[Path, Any]:
    """Call a function with each file of a folder, in parallel, and hand out what becomes of them while others run.

    See `map_files` for the arguments, and `amap` for what is returned: the item of an outcome is the path.
    """
    one_of("read", read, (None, "bytes", "text"))
    files = Files(directory, pattern, recursive=recursive)
    batch = Batch(
        fn,
        files.paths(),
        on_error,
        options,
        wrap=partial(FilePlace, files=files, read=read),
        read=read,
        check=partial(check_directory, directory),
    )
    return Outcomes(batch, ordered=ordered)
