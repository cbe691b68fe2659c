"""Tasks: functions with options, and the decorators that make them.

A decorated function stays callable as it was. Beside that it is a `Task`: it has a name, which is its durable
identity, options, the schedules that were declared on it, and `enqueue`.

    @every("30s")                       # a task with a schedule
    async def poll() -> None: ...

    @task(run_in="process", timeout=30) # a task to be enqueued
    def thumbnail(path: Path) -> Path: ...

Nothing is registered by decorating: an app collects tasks, by its own decorators or by `include`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    get_args,
    overload,
)

from .context import Context
from .durations import seconds
from .errors import DuplicateName, InvalidOption, NotImportable, NotRunning, nearest
from .limits import Labels, Limit, Limits, Rate, as_limit, as_rate, check_key, check_template
from .options import one_of, text
from .options import priority as check_priority
from .policies import Policies, check_trigger
from .retry import Retry, exceptions_of, retry_of
from .runners.reference import import_main, reference, task_name
from .triggers import At, Between, Cron, Every, Trigger, parse_every, read_instant
from .workers import RUN_IN, place_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Sequence
    from datetime import time, timedelta

    from .handle import Job
    from .job_batch import JobBatch
    from .payloads import Codec
    from .policies import AfterPolicy, CatchUpPolicy, FirstPolicy, OverlapPolicy
    from .triggers import DstRule
    from .workers import Place, RunIn

Delivery = Literal["at_least_once", "at_most_once"]

_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)

C = ParamSpec("C")
"""The parameters of the function itself."""
V = TypeVar("V")
"""What calling the function gives: the result, or a coroutine of it."""
P = ParamSpec("P")
"""The parameters of `enqueue`: the function's without an injected `Context`."""
R = TypeVar("R")
"""The type of the result."""

MAX_BATCH_ID = 200
"""Characters: a batch's id stands in every one of its jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How jobs of a task run.

    Attributes:
        run_in: "loop", "thread", "process" or "executor"; None: coroutine functions on the loop, others in a thread.
        timeout: Seconds that an attempt may run; None: no limit.
        queue: The named queue its jobs wait in.
        priority: Higher runs first.
        retry: How often a job is tried; None: once.
        retry_on: Against which exceptions another attempt may help.
        delivery: "at_least_once": a job whose worker died runs again. "at_most_once": it has failed then.
        key: The idempotency key of its jobs, with names of parameters in braces; None: they have none.
        limit: How many run at once; None: any number.
        rate: How many start in a while; None: any number.
    """

    run_in: RunIn | None = None
    timeout: float | None = None
    queue: str = "default"
    priority: int = 0
    retry: Retry | None = None
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    delivery: Delivery = "at_least_once"
    key: str | None = None
    limit: Limit | None = None
    rate: Rate | None = None

    def __post_init__(self) -> None:
        if self.delivery == "at_most_once" and self.retry is not None:
            raise InvalidOption(
                "retry",
                'left out with delivery="at_most_once"',
                self.retry,
                remedy="a second attempt would be once too often",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueOptions:
    """What `task.options(...)` changes for the jobs enqueued through it; None: as the task says."""

    run_at: datetime | None = None
    delay: float | None = None
    queue: str | None = None
    priority: int | None = None
    key: str | None = None
    connection: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A schedule as declared on a task, before an app has it."""

    trigger: Trigger
    name: str | None
    policies: Policies

    def __post_init__(self) -> None:
        check_trigger(self.trigger, self.policies)

    def in_timezone(self, key: str) -> Trigger:
        """Return the trigger within the bounds of the policies; what was declared without a zone uses this one."""
        trigger, bounds = self.trigger.in_timezone(key), self.policies
        if bounds.after == "end" or (bounds.start_at is None and bounds.end_at is None):
            return trigger  # what comes after an end is bounded where it is decided
        return Between(trigger, start_at=bounds.start_at, end_at=bounds.end_at)


AS_IT_SAYS = EnqueueOptions()
"""Shared by all jobs that are enqueued as their task says."""


class Binding(Protocol):
    """A started app, as its tasks see it."""

    async def enqueue_task(
        self,
        task: AnyTask,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: EnqueueOptions,
        *,
        wait: bool,
    ) -> Any:
        """Enqueue a job and return its handle."""

    async def enqueue_calls(
        self,
        task: AnyTask,
        calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        options: EnqueueOptions,
        *,
        wait: bool,
    ) -> list[Any]:
        """Enqueue a job for each call and return their handles."""

    async def map_task(
        self,
        task: AnyTask,
        items: Iterable[Any] | AsyncIterable[Any],
        call_of: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]],
        options: EnqueueOptions,
        *,
        batch_id: str | None,
    ) -> Any:
        """Enqueue a job for each item as one batch, and return its handle."""

    def enqueue_from_thread(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], options: EnqueueOptions
    ) -> Any:
        """Do the same from another thread, waiting there."""


class Task(Generic[C, V, P, R]):
    """A function with a name and options; call it as before, or `enqueue` it.

    Attributes:
        fn: The function.
        name: The durable identity: `module.qualname`, with `__main__` replaced by the file's stem.
        aliases: Names under which older jobs may still wait.
        options_: How its jobs run.
        place: Where, with the default filled in.
        schedules: The schedules declared on it.
        labels: What makes the keys of its jobs; None: they have none.
    """

    __tickwork_task__ = True
    """Tells a child process to look behind the decorator."""

    def __init__(
        self,
        fn: Callable[C, V],
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        options: TaskOptions | None = None,
    ) -> None:
        if isinstance(fn, type) or not callable(fn):
            raise InvalidOption("fn", "a function", fn)
        functools.update_wrapper(cast("Any", self), fn)
        self.__qualname__: str = getattr(fn, "__qualname__", repr(fn))
        self.fn = fn
        self.name: str = task_name(fn) if name is None else text("name", name)
        if isinstance(aliases, str):
            raise InvalidOption("aliases", "a list of names", aliases)
        self.aliases: tuple[str, ...] = tuple(text("aliases", alias) for alias in aliases)
        self.options_: TaskOptions = TaskOptions() if options is None else options
        self.wants_context: bool = _wants_context(fn)
        self.schedules: list[ScheduleSpec] = []
        self._apps: list[Binding] = []
        self._codec: Codec | None = None
        self.place: Place = place_of(fn, self.options_.run_in)  # refuses what could never run
        self.labels: Labels | None = self._make_labels(self.options_)
        if self.options_.run_in == "process" and "<" in self.__qualname__:
            raise NotImportable(fn, "it is a lambda or defined inside another function")

    def __call__(self, *args: C.args, **kwargs: C.kwargs) -> V:
        """Call the function, here and now, as if it had not been decorated."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Be refused as a method: a job has no instance to be called on."""
        if instance is None:
            return self
        raise InvalidOption("fn", "a function", self.name, remedy="a method cannot be a task; decorate a function")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes by import name."""
        found = reference(self)
        return _find_task, (found.module, found.qualname, found.path)

    def _make_labels(self, options: TaskOptions) -> Labels | None:
        if options.key is None and options.limit is None and options.rate is None:
            return None
        return Labels(
            self.fn,
            self.name,
            skip_first=self.wants_context,
            key=options.key,
            limit=options.limit,
            rate=options.rate,
        )

    @property
    def limits(self) -> Limits:
        """What holds for its jobs, as a store is told."""
        return Limits(self.options_.limit, self.options_.rate)

    @property
    def codec(self) -> Codec:
        """The codec of its arguments and its result."""
        if self._codec is None:
            from .payloads import Codec

            self._codec = Codec(self.fn, name=self.name, skip_first=self.wants_context)
        return self._codec

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job that calls the function with these arguments, and return its handle.

        Waits while the store is full. A cancelled call has enqueued nothing.

        Raises:
            NotRunning: No started app, or more than one, includes this task; name it: `app.enqueue(task, ...)`.
            InvalidPayload: An argument does not fit the function, or cannot be written as JSON.
            QueueFull: The store is full and this is called inside a job, where waiting could wait for itself.
        """
        return await self._app().enqueue_task(self, args, kwargs, AS_IT_SAYS, wait=True)  # type: ignore[no-any-return]

    async def enqueue_nowait(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue like `enqueue`, and raise `QueueFull` where that would wait for room."""
        return await self._app().enqueue_task(self, args, kwargs, AS_IT_SAYS, wait=False)  # type: ignore[no-any-return]

    async def enqueue_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[Job[R]]:
        """Enqueue a job for each call, all or none, and return their handles in the same order.

        One transaction takes them all, so that a durable store costs little more for a thousand than for one.

        Args:
            calls: For each job its arguments: a tuple or list of positional ones, or a mapping of named ones.

        Raises:
            InvalidPayload: An argument does not fit; nothing is enqueued.
            QueueFull: They are more than the store may ever hold, or it is full and this is called inside a job.
        """
        return await self._app().enqueue_calls(self, list(map(_call, calls)), AS_IT_SAYS, wait=True)

    async def map(self, items: Iterable[Any] | AsyncIterable[Any], *, id: str | None = None) -> JobBatch[R]:
        """Enqueue a job for each item as one batch, and return its handle: jobs that are counted and awaited together.

        The items go into the store part by part, in bounded memory, so that they may be any number; this returns when
        all are there, and waits while the store is full. A batch that is not complete, because this was cancelled or
        failed or its process died, says so; its jobs run all the same. The same call again, with its `id`, goes on
        where it stopped: what is there is compared, and no item is enqueued twice.

        Args:
            items: A list, an iterator or an async one. Each item is the first argument of a job, a tuple as well.
            id: The id of the batch, a printable text of up to 200 characters; None: a new one. With the id of a batch
                that is complete, and the same items, that one is returned.

        Raises:
            NotRunning: As `enqueue` does.
            InvalidPayload: An item does not fit the function, or cannot be written as JSON. Those before it are in the
                batch, as a note of the error tells.
            InvalidOption: The items are a text, or the task has a `key`: the jobs of a batch have none.
            WrongBatch: The batch has other items, is of another task, or was cancelled.
            QueueFull: The store is full and this is called inside a job.
        """
        return await self._app().map_task(self, items, _one, AS_IT_SAYS, batch_id=id)  # type: ignore[no-any-return]

    async def map_calls(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]] | AsyncIterable[Sequence[Any] | Mapping[str, Any]],
        *,
        id: str | None = None,
    ) -> JobBatch[R]:
        """Do what `map` does for functions of several arguments.

        Args:
            calls: For each job its arguments, as `enqueue_many` takes them: a tuple or list of positional ones, or a
                mapping of named ones.
            id: As in `map`.
        """
        return await self._app().map_task(self, calls, _call, AS_IT_SAYS, batch_id=id)  # type: ignore[no-any-return]

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue from a thread that is not the loop's, and wait there until the job is stored."""
        return self._app().enqueue_from_thread(self, args, kwargs, AS_IT_SAYS)  # type: ignore[no-any-return]

    def options(
        self,
        *,
        delay: float | str | timedelta | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        key: str | None = None,
        connection: Any = None,
    ) -> TaskWithOptions[P, R]:
        """Return the task with other options, for `.enqueue(...)`.

        Args:
            delay: Not before this long from now: "30s", seconds, timedelta.
            at: Not before this instant (an aware datetime); not together with `delay`.
            priority: Higher runs first.
            queue: The queue to wait in.
            key: The idempotency key, as it is: while a job of the task with this key is unfinished, `enqueue` makes no
                other one and returns its handle, in all processes. It takes the place of the task's own `key`.
            connection: A connection to the app's PostgreSQL database with a transaction of yours: the job exists
                exactly when that commits. An `AsyncConnection` of psycopg, a `Connection` of asyncpg, an
                `AsyncConnection` or `AsyncSession` of SQLAlchemy; one that blocks for `enqueue_sync`. There is no wait
                for room. What it raises, and a cancelled call, leave the transaction as its driver does: aborted, as a
                rule.
        """
        if delay is not None and at is not None:
            raise InvalidOption("at", "given without delay", at, remedy="use one of the two")
        return TaskWithOptions(
            self,
            EnqueueOptions(
                run_at=None if at is None else At(at).next(_LONG_AGO),
                delay=None if delay is None else seconds(delay, "delay", allow_zero=True),
                queue=None if queue is None else text("queue", queue),
                priority=None if priority is None else check_priority("priority", priority),
                key=None if key is None else check_key(key),
                connection=connection,
            ),
        )

    def bind(self, app: Binding) -> None:
        """Take enqueues to this app from now on. Called when it starts."""
        self._apps.append(app)

    def unbind(self, app: Binding) -> None:
        """No longer do so. Called when the app stops."""
        if app in self._apps:
            self._apps.remove(app)

    def _app(self) -> Binding:
        if len(self._apps) == 1:
            return self._apps[0]
        found = "no started app includes" if not self._apps else f"{len(self._apps)} started apps include"
        raise NotRunning(f"{found} task {self.name!r}; say which: app.enqueue(task, ...) with a started app")


AnyTask = Task[Any, Any, Any, Any]


class TaskWithOptions(Generic[P, R]):
    """A task and options for the jobs enqueued through it; made by `Task.options`."""

    __slots__ = ("_options", "_task")

    def __init__(self, task: AnyTask, options: EnqueueOptions) -> None:
        self._task, self._options = task, options

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Do what `Task.enqueue` does, with these options."""
        return await self._task._app().enqueue_task(self._task, args, kwargs, self._options, wait=True)  # type: ignore[no-any-return]

    async def enqueue_nowait(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Do what `Task.enqueue_nowait` does, with these options."""
        return await self._task._app().enqueue_task(self._task, args, kwargs, self._options, wait=False)  # type: ignore[no-any-return]

    async def enqueue_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[Job[R]]:
        """Do what `Task.enqueue_many` does, with these options."""
        return await self._task._app().enqueue_calls(self._task, list(map(_call, calls)), self._options, wait=True)

    async def map(self, items: Iterable[Any] | AsyncIterable[Any], *, id: str | None = None) -> JobBatch[R]:
        """Do what `Task.map` does, with these options."""
        return await self._task._app().map_task(self._task, items, _one, self._options, batch_id=id)  # type: ignore[no-any-return]

    async def map_calls(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]] | AsyncIterable[Sequence[Any] | Mapping[str, Any]],
        *,
        id: str | None = None,
    ) -> JobBatch[R]:
        """Do what `Task.map_calls` does, with these options."""
        return await self._task._app().map_task(self._task, calls, _call, self._options, batch_id=id)  # type: ignore[no-any-return]

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Do what `Task.enqueue_sync` does, with these options."""
        return self._task._app().enqueue_from_thread(self._task, args, kwargs, self._options)  # type: ignore[no-any-return]


def _one(item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with one item."""
    return (item,), {}


def _call(arguments: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments of one call."""
    if isinstance(arguments, Mapping):
        return (), dict(arguments)
    if isinstance(arguments, list | tuple):
        return tuple(arguments), {}
    rule = "tuples or lists of positional arguments, or mappings of named ones"
    raise InvalidOption("calls", rule, arguments, remedy="a single argument is a tuple, too: (value,)")


class Decorator(Protocol):
    """Turns a function, or a task that has one, into a task."""

    # The overloads overlap on purpose: the first that fits is the most exact one.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Task[C, V, P, R], /
    ) -> Task[C, V, P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Task[Concatenate[Context, P], Coroutine[Any, Any, R], P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], R], /) -> Task[Concatenate[Context, P], R, P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R, P, R]: ...


class TaskSettings(TypedDict, total=False):
    """What every decorator takes about the task.

    Attributes:
        name: Its durable identity; left out: `module.qualname`. On a function that is a task already, the name of the
            schedule.
        aliases: Former names, under which jobs may still wait.
        run_in: "loop", "thread", "process", "executor"; left out: coroutine functions on the loop, others in a thread.
        timeout: How long a job may run: "30s", seconds, timedelta; left out: no limit.
        queue: The named queue its jobs wait in: "default".
        priority: Higher runs first: 0.
        retry: How often a job is tried, and when: `Retry(5)`, or 5 for short; left out: once.
        retry_on: Exception classes against which another attempt may help; left out: any `Exception`.
        delivery: "at_least_once", or "at_most_once" for what must rather be lost than be done twice.
        key: The idempotency key of its jobs: "report:{user_id}". While a job with this key is unfinished, `enqueue`
            makes no other one and returns its handle. Jobs that a schedule makes have none: `overlap` is theirs.
        limit: How many jobs run at once, in all processes: `Limit(3)`, `Limit(at_once=3, key="{host}")`, a number, or
            a key of which one job runs at a time: "{host}".
        rate: How many jobs start in a while, in all processes: `Rate(10, per="1m", key="{host}")`.
    """

    name: str | None
    aliases: Sequence[str]
    run_in: RunIn | None
    timeout: float | str | timedelta | None
    queue: str
    priority: int
    retry: Retry | int | None
    retry_on: type[BaseException] | Sequence[type[BaseException]]
    delivery: Delivery
    key: str | None
    limit: Limit | str | int | None
    rate: Rate | None


class PolicySettings(TypedDict, total=False):
    """How a schedule treats its fire times; see `Policies`.

    Attributes:
        overlap: While the last job of the schedule is unfinished: "skip" the fire time, "queue" one job behind it,
            "replace" it, or "allow" both.
        catch_up: Which fire times missed while down, blocked or asleep become jobs: "latest", "none", "all".
        max_catch_up: How many "all" makes at the most: 100.
        grace: How late a start may be: "5m", seconds, timedelta; left out: no limit.
        jitter: By how much a start is put off at random, at the most: "30s", seconds, timedelta.
        first: "later": at the first fire time; "now": also when the app starts (durable stores: the first time).
        after: "end": the period counts from the end of the last job; for `every("30s")` and the like.
        start_at: Nothing is due before this instant: an aware datetime, or ISO text with an offset.
        end_at: Nothing is due after this instant.
        max_runs: The schedule is finished after this many jobs; manual ones do not count.
        expect_within: A job should succeed at least this often: "26h"; `App.health` tells when none has.
    """

    overlap: OverlapPolicy
    catch_up: CatchUpPolicy
    max_catch_up: int
    grace: float | str | timedelta | None
    jitter: float | str | timedelta
    first: FirstPolicy
    after: AfterPolicy | None
    start_at: datetime | str | None
    end_at: datetime | str | None
    max_runs: int | None
    expect_within: float | str | timedelta | None


class Settings(TaskSettings, PolicySettings, total=False):
    """What the decorators that schedule take."""


_DEFAULT_POLICIES = Policies()


def policies_of(settings: PolicySettings) -> Policies:
    """Return the policies that settings ask for.

    Raises:
        InvalidOption: A value out of its range, a name that is none, or two that contradict each other.
    """
    if not settings:
        return _DEFAULT_POLICIES
    _check_names(settings, PolicySettings)
    given: dict[str, Any] = dict(settings)
    if given.get("grace") is not None:
        given["grace"] = seconds(given["grace"], "grace", allow_zero=True)
    if "jitter" in given:
        given["jitter"] = seconds(given["jitter"], "jitter", allow_zero=True)
    if given.get("expect_within") is not None:
        given["expect_within"] = seconds(given["expect_within"], "expect_within")
    for bound in ("start_at", "end_at"):
        if given.get(bound) is not None:
            given[bound] = read_instant(given[bound], bound)
    return Policies(**given)


def _check_names(settings: Mapping[str, Any], known: type) -> None:
    if known.__annotations__.keys() >= settings.keys():
        return
    names = sorted(known.__annotations__)
    for name in settings:
        if name not in names:
            near = nearest(name, names)
            raise InvalidOption(
                "option", f"one of {', '.join(names)}", name, remedy=f"did you mean {near!r}?" if near else ""
            )


class Declarations:
    """The decorators. Each is a method, so that an app can also register what they make; see `tickwork.App`."""

    def _made(self, task: AnyTask, spec: ScheduleSpec | None) -> None:
        """Hear of a task that was made, or of a schedule added to one."""

    def task(self, **settings: Unpack[TaskSettings]) -> Decorator:
        """Make a task of the function.

        Args:
            **settings: See `TaskSettings`.

        Raises:
            InvalidOption: An option has no meaning.
            NotImportable: A lambda or a nested function with `run_in="process"`.
        """
        _check_names(settings, TaskSettings)
        return self._decorator(None, settings)

    def schedule(self, trigger: Trigger, **settings: Unpack[Settings]) -> Decorator:
        """Make a task of the function, and run it whenever the trigger fires.

        Args:
            trigger: Any trigger: `Every`, `Cron`, `At`, their unions, or one of your own.
            **settings: See `TaskSettings` and `PolicySettings`.
        """
        if not isinstance(trigger, Trigger):
            raise InvalidOption("trigger", "a trigger such as Every(...) or Cron(...)", trigger)
        _check_names(settings, Settings)
        policies = policies_of(cast("PolicySettings", _part(settings, PolicySettings)))
        about_task = cast("TaskSettings", _part(settings, TaskSettings))
        return self._decorator(ScheduleSpec(trigger, settings.get("name"), policies), about_task)

    def every(
        self,
        period: str | float | timedelta,
        *,
        at: str | time | Sequence[str | time] | None = None,
        timezone: str | None = None,
        anchor: datetime | None = None,
        **settings: Unpack[Settings],
    ) -> Decorator:
        """Run the function every so often: `every("30s")`, `every("day", at="05:00")`, `every("monday", at="09:30")`.

        Args:
            period: "30s", "1h30m", seconds, a timedelta: elapsed time on a grid from the Unix epoch. Or "day",
                "hour" or a weekday, with `at`: the wall clock of the zone.
            at: "HH:MM" or "HH:MM:SS", or several; ":MM" for "hour".
            timezone: IANA key; None: the app's.
            anchor: Moves the grid: fire times are whole periods away from this instant.
            **settings: See `TaskSettings` and `PolicySettings`.
        """
        trigger: Trigger
        if anchor is None:
            trigger = parse_every(period, at=at, timezone=timezone)
        elif at is None:
            trigger = Every(period, anchor=anchor)
        else:
            raise InvalidOption("anchor", "given without at", anchor, remedy="the wall clock has no grid to move")
        return self.schedule(trigger, **settings)

    def cron(
        self,
        expression: str,
        *,
        timezone: str | None = None,
        dst: DstRule = "cron",
        seconds: Literal["first", "last"] | None = None,
        **settings: Unpack[Settings],
    ) -> Decorator:
        """Run the function by a cron expression; see `Cron` for what it may hold.

        Args:
            expression: Five fields: "0 5 * * mon-fri".
            timezone: IANA key; None: the app's.
            dst: What happens at clock changes: "cron", "skip" or "both".
            seconds: "first" or "last", for six and seven fields.
            **settings: See `TaskSettings` and `PolicySettings`.
        """
        name = settings.get("name")
        # What is wrong is refused where it stands, before a function is there; only H has to wait for its seed.
        trigger = Cron(expression, timezone=timezone, dst=dst, seconds=seconds, name=name or "seed")
        decorator = self.schedule(trigger, **settings)
        if name or not trigger.is_hashed:
            return decorator

        def decorate(fn: Any) -> Any:
            seed = fn.name if isinstance(fn, Task) else task_name(fn)
            seeded = Cron(expression, timezone=timezone, dst=dst, seconds=seconds, name=seed)
            return self.schedule(seeded, **settings)(fn)

        return decorate

    def at(self, when: datetime | str, *, timezone: str | None = None, **settings: Unpack[Settings]) -> Decorator:
        """Run the function once, at an instant.

        Args:
            when: An aware datetime, or ISO text with an offset; without one, `timezone` says what it means.
            timezone: IANA key for a `when` without an offset.
            **settings: See `TaskSettings` and `PolicySettings`.
        """
        return self.schedule(At(when, timezone=timezone), **settings)

    def _decorator(self, spec: ScheduleSpec | None, settings: TaskSettings) -> Decorator:
        options = _options(settings)
        name, aliases = settings.get("name"), settings.get("aliases", ())

        def decorate(fn: Any) -> Any:
            if isinstance(fn, Task):
                made: AnyTask = fn
                if spec is None:
                    raise InvalidOption("fn", "a function", fn, remedy=f"{fn.name!r} is a task already")
                if options != _DEFAULT_OPTIONS or aliases:
                    raise InvalidOption(
                        "options",
                        "given once",
                        options,
                        remedy="put them on the decorator next to the function",
                    )
                if spec.name is None and made.schedules:
                    raise DuplicateName("schedule", made.name, 'give the second one a name: name="..."')
            else:
                made = Task(fn, name=name, aliases=aliases, options=options)
            if spec is not None:
                made.schedules.append(spec)
            try:
                self._made(made, spec)
            except BaseException:
                if spec is not None:
                    made.schedules.remove(spec)
                raise
            return made

        return decorate


_plain = Declarations()
task: Final = _plain.task
schedule: Final = _plain.schedule
every: Final = _plain.every
cron: Final = _plain.cron
at: Final = _plain.at


def _part(settings: Settings, kind: type) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in kind.__annotations__}


_DEFAULT_OPTIONS = TaskOptions()
_OPTIONS = frozenset(TaskSettings.__annotations__) - {"name", "aliases"}


def _options(settings: TaskSettings) -> TaskOptions:
    if _OPTIONS.isdisjoint(settings):
        return _DEFAULT_OPTIONS
    timeout = settings.get("timeout")
    return TaskOptions(
        run_in=one_of("run_in", settings.get("run_in"), (None, *RUN_IN)),
        timeout=None if timeout is None else seconds(timeout, "timeout"),
        queue=text("queue", settings.get("queue", "default")),
        priority=check_priority("priority", settings.get("priority", 0)),
        retry=retry_of(settings.get("retry")),
        retry_on=exceptions_of(settings.get("retry_on", Exception)),
        delivery=one_of("delivery", settings.get("delivery", "at_least_once"), get_args(Delivery)),
        key=check_template("key", settings.get("key")),
        limit=as_limit(settings.get("limit")),
        rate=as_rate(settings.get("rate")),
    )


def check_batch_id(given: object) -> str:
    """Return an id that a caller gives a batch."""
    if len(text("id", given)) > MAX_BATCH_ID:
        raise InvalidOption("id", f"at most {MAX_BATCH_ID} characters long", given)
    return str(given)


def _find_task(module: str, qualname: str, path: str | None) -> Any:
    """Import a task by name; the other half of `Task.__reduce__`."""
    found: Any = import_module(module) if path is None else import_main(module, path)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def _wants_context(fn: Callable[..., Any]) -> bool:
    """Return whether the first parameter is annotated `Context`."""
    try:
        first = next(iter(inspect.signature(fn).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    if first is None or first.annotation is inspect.Parameter.empty:
        return False
    annotation = first.annotation
    if isinstance(annotation, str):
        # Postponed annotations: names that exist for type checkers only must not matter here.
        namespace = getattr(inspect.unwrap(fn), "__globals__", {})
        try:
            annotation = eval(annotation, dict(namespace))
        except Exception:
            return annotation.strip("'\"") in ("Context", "tickwork.Context")
    return annotation is Context
