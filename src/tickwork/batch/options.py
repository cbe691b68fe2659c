"""The options of a batch, checked before any work begins."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..durations import seconds
from ..errors import InvalidOption, nearest
from ..options import as_executor, one_of, positive
from ..policies import MAX_DEATHS
from ..retry import Retry, exceptions_of, retry_of
from ..runners.options import Processes, processes_of, usable_processors
from ..workers import RUN_IN, Place, RunIn, is_async, place_of
from .progress import check_progress

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from datetime import timedelta

    from ..app import App
    from ..pool import Pool
    from ..tasks import TaskOptions
    from .progress import BatchProgress

LOOP_WORKERS = 20
"""As many as a `Pool` has: what runs on the loop waits for others most of the time."""
MOST_THREADS = 32
"""Threads take turns: more than a few dozen of them only help those who wait."""

Results = Literal["json", "discard"]
OnError = Literal["raise", "collect", "skip"]


class BatchOptions(TypedDict, total=False):
    """The options that `map`, `amap` and `map_files` share.

    Attributes:
        workers: How many items run at a time. Left out: 20 on the loop; in processes as many as there are processors
            that this process may use; in threads four more than that, at most 32. In an executor it is how many chunks
            are handed over to it at a time: twice what a pool of the standard library has, else 20; give a cluster
            twice what it has. With a `timeout` it is no more than what such a pool has, and should be no more than
            what a cluster has: the time that an item waits for its turn there counts.
        run_in: Where the function runs: "loop", "thread", "process" or "executor". Left out: coroutine functions on the
            loop, others in the executor where one is given, else in a thread. A function for a process stands at the
            top level of a module.
        chunk_size: How many items go to a worker together. Left out, or "auto": so many as take some 20 ms
            (in other processes 100 ms), fewer
            towards the end; one, where an item takes that long.
        timeout: How long an item may take: seconds, "30s", timedelta. Left out: no limit. In a process the child is
            killed, and the items of its chunk that had not come back run again; a thread cannot be stopped: the item
            has failed, and its thread is free when the function returns. In an executor each item goes alone then, and
            has its time from when it is handed over.
        retry: How often an item is tried, `Retry(3)` or 3 for short. Left out: once.
        retry_on: Exception classes against which another attempt may help. Left out: any `Exception`.
        max_deaths: An item under which so many processes died has failed. Left out: 3.
        progress: Who is told how far it is. Left out, or False: nobody. True: a bar on a terminal, a line of the log
            every five seconds elsewhere, `Context.progress` inside a job. A function: that one, with a `BatchProgress`.
        checkpoint: A file that remembers which items have ended well, so that the same call goes on where it was
            stopped, by a crash, a kill or Ctrl-C, and runs none of them again. Those that failed do. Left out: none.
        version: What results of an older version of the function must not be mixed with: another text than the one the
            checkpoint was made with is refused. With a checkpoint, a lambda, a function inside another one, a method of
            an instance and a partial of what has no fingerprint need one: their name does not tell what they do.
        results: "json": the checkpoint keeps results, by the function's return hint. "discard": it does not, and the
            value of every item is None. Left out: "json".
        dead: A file that lists the items which failed for good, a line of JSON for each; `dead_items` brings them back.
            Left out: none.
        executor: Any `concurrent.futures.Executor`, such as a Dask client's `get_executor()`: the items run there. It
            is not shut down.
        pool: A `Pool` or an `App` that runs, whose child processes run the items: they are warm, and stay so. `run_in`
            may be left out then. Left out: processes of its own.
        processes: These processes of its own: their number, or `Processes(...)` with an initializer, say. `run_in` may
            be left out then.
    """

    workers: int | None
    run_in: RunIn | None
    chunk_size: int | Literal["auto"]
    timeout: float | str | timedelta | None
    retry: Retry | int | None
    retry_on: type[BaseException] | Sequence[type[BaseException]]
    max_deaths: int
    progress: bool | Callable[[BatchProgress], object]
    checkpoint: str | os.PathLike[str] | None
    version: str | None
    results: Results
    dead: str | os.PathLike[str] | None
    executor: Executor | None
    pool: Pool | App | None
    processes: int | Processes | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Checked options: what a batch is going to do.

    Attributes:
        fn: The function.
        place: Where it runs.
        workers: How many items run at a time.
        chunk_size: None: it is found.
        timeout: Seconds for an item; None: no limit.
        retry: None: one attempt.
        retry_on: Against what another attempt may help.
        max_deaths: With so many dead processes an item has failed.
        on_error: What becomes of an item that has failed.
        progress: Who is told.
        checkpoint: The file that remembers; None: there is none.
        version: What the results in it depend on.
        results: Whether it keeps them.
        dead: The file for what failed; None: there is none.
        pool: Whose processes run it; None: its own.
        processes: These, where it is its own that run it.
        executor: Where it runs, with this place.
    """

    fn: Callable[[Any], Any]
    place: Place
    workers: int
    chunk_size: int | None
    timeout: float | None
    retry: Retry | None
    retry_on: tuple[type[BaseException], ...]
    max_deaths: int
    on_error: OnError
    progress: bool | Callable[[BatchProgress], object]
    checkpoint: str | os.PathLike[str] | None
    version: str | None
    results: Results
    dead: str | os.PathLike[str] | None
    pool: Pool | App | None
    processes: Processes | None
    executor: Executor | None


def plan_of(fn: Callable[[Any], Any], on_error: object, options: BatchOptions) -> Plan:
    """Check the options of a batch.

    Raises:
        InvalidOption: One is unknown, has a wrong value, or does not go with another.
        NotImportable: The function is for a process, which could not import it.
    """
    for name in options:
        if name not in BatchOptions.__annotations__:
            near = nearest(name, [*BatchOptions.__annotations__, "on_error"])
            raise InvalidOption(
                "option", "one that map knows", name, remedy=f"did you mean {near!r}?" if near else "leave it out"
            )
    run_in = one_of("run_in", options.get("run_in"), (None, *RUN_IN))
    executor = as_executor("executor", options.get("executor"))
    if getattr(type(fn), "__tickwork_task__", False):
        task: Any = fn
        if task.wants_context:
            raise InvalidOption(
                "fn", "a function of one argument, the item", fn, remedy="a Context belongs to a job: enqueue the task"
            )
        fn, options = task.fn, _with_those_of_task(task.options_, options)
        if executor is None:  # which says where, as `run_in` does
            run_in = run_in or task.options_.run_in
    _check_function(fn)
    pool, processes = options.get("pool"), options.get("processes")
    if pool is not None and not hasattr(type(pool), "processes"):
        raise InvalidOption("pool", "a Pool or an App", pool)
    if processes is not None:
        if pool is not None:
            raise InvalidOption("processes", "left out", processes, remedy="the pool has its own")
        processes = processes_of(processes)
    if (pool is not None or processes is not None) and run_in is None and not is_async(fn):
        run_in = "process"
    place = _place(fn, run_in, executor)
    if place == "process":
        from ..runners.calls import look_up

        look_up(fn)
    elif pool is not None:
        raise InvalidOption(
            "pool", "left out", pool, remedy='only its processes are used, by a function with run_in="process"'
        )
    elif processes is not None:
        raise InvalidOption("processes", "left out", processes, remedy='they run functions with run_in="process"')
    timeout = options.get("timeout")
    workers = None if (given := options.get("workers")) is None else positive("workers", given)
    if place == "executor":
        workers = _handed_over(executor, workers, timeout)
    elif place == "process":
        workers, processes = _children(pool, processes, workers)
    elif workers is None:
        workers = min(usable_processors() + 4, MOST_THREADS) if place == "thread" else LOOP_WORKERS
    chunk_size = options.get("chunk_size", "auto")
    return Plan(
        fn=fn,
        place=place,
        workers=workers,
        chunk_size=None if chunk_size == "auto" else _chunk_size(chunk_size),
        timeout=None if timeout is None else seconds(timeout, "timeout"),
        retry=retry_of(options.get("retry")),
        retry_on=exceptions_of(options.get("retry_on", Exception)),
        max_deaths=positive("max_deaths", options.get("max_deaths", MAX_DEATHS)),
        on_error=one_of("on_error", on_error, ("raise", "collect", "skip")),
        progress=check_progress(options.get("progress", False)),
        checkpoint=options.get("checkpoint"),
        version=_with_checkpoint("version", options),
        results=one_of("results", _with_checkpoint("results", options) or "json", ("json", "discard")),
        dead=options.get("dead"),
        pool=pool,
        processes=processes,
        executor=executor,
    )


def _with_those_of_task(task: TaskOptions, options: BatchOptions) -> BatchOptions:
    """Return the options of a batch, with the task's own where it has none."""
    own: BatchOptions = {"timeout": task.timeout, "retry": task.retry, "retry_on": task.retry_on}
    return {**own, **options}


def _with_checkpoint(name: str, options: BatchOptions) -> Any:
    value = options.get(name)
    if value is not None and options.get("checkpoint") is None:
        raise InvalidOption(name, "left out where there is no checkpoint", value)
    return value


def _check_function(fn: Any) -> None:
    """Refuse what cannot be called with one argument."""
    if not callable(fn):
        raise InvalidOption("fn", "a function", fn)
    try:
        inspect.signature(fn).bind(None)
    except TypeError as error:
        raise InvalidOption("fn", "a function of one argument, the item", fn, remedy=f"here: {error}") from None
    except ValueError:  # written in C, without a signature
        pass


def _place(fn: Callable[[Any], Any], run_in: RunIn | None, executor: Executor | None) -> Place:
    place = place_of(fn, run_in)
    if executor is None:
        if place == "executor":
            raise InvalidOption("executor", 'given for run_in="executor"', None, remedy="use map(..., executor=...)")
        return place
    if run_in is None:
        if place == "loop":  # as in a pool: an executor has no loop
            return place
        place = "executor"
    if place != "executor":
        raise InvalidOption(
            "executor", "left out", executor, remedy='it runs plain functions, with run_in="executor" or none'
        )
    from ..runners.executor import ExecutorRunner

    ExecutorRunner(executor).carried(fn)  # refuses what it cannot run
    return place


def _handed_over(executor: Executor | None, given: int | None, timeout: object) -> int:
    """Return how many chunks an executor has at a time."""
    most = getattr(executor, "_max_workers", None)  # of those of the standard library
    if not isinstance(most, int):
        return given or LOOP_WORKERS
    if timeout is None:
        return given or 2 * most
    return min(given or most, most)  # the time that an item has would also pass while it waits for its turn


def _children(
    pool: Pool | App | None, processes: Processes | None, workers: int | None
) -> tuple[int, Processes | None]:
    """Return how many processes run a batch, and the options of those that are its own."""
    if pool is not None:
        return workers or pool.process_options.max_processes, None
    if processes is None:
        processes = Processes(workers)
    return workers or processes.max_processes, processes


def _chunk_size(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InvalidOption("chunk_size", '"auto" or a whole number of at least 1', given)
    return given
