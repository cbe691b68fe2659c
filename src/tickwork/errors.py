"""Every error that tickwork raises on purpose.

    TickworkError
    ├── InvalidOption (ValueError)          an option has a wrong value
    │   ├── InvalidDuration                 "5 parsecs"
    │   ├── InvalidCron                     "61 * * * *"
    │   ├── InvalidInstant                  a datetime without a zone, a time that is none
    │   ├── UnknownTimezone                 "Europe/Berlni"
    │   ├── DuplicateName                   two tasks or schedules with one name
    │   └── NotImportable                   a lambda for a process
    ├── InvalidPayload (ValueError)         an argument that JSON cannot carry, or that does not fit
    ├── NotText (ValueError)                a file of a batch is not UTF-8
    ├── UnknownTask (LookupError)
    ├── UnknownSchedule (LookupError)
    ├── UnknownJob (LookupError)
    │   └── NotCommitted                    the transaction that enqueues it is not committed
    ├── UnknownBatch (LookupError)
    ├── WrongBatch (ValueError)             other items, or another task, than the batch of that id has
    ├── BatchIncomplete (RuntimeError)      whoever enqueued the items of a batch has left off
    ├── InvalidTarget (ValueError)          `tickwork run TARGET`: nothing usable there
    ├── NotRunning (RuntimeError)           the app or pool is not started, or already stopped
    ├── IllegalMove (RuntimeError)          a job state that does not follow from the last one
    ├── WrongState (RuntimeError)           a person wants something that a job in its state cannot do
    ├── QueueFull (asyncio.QueueFull)
    ├── KeyInDoubt (RuntimeError)           a transaction that has not ended enqueues a job with the same key
    ├── NotTransactional (RuntimeError)     jobs are kept where no transaction of the caller's reaches
    ├── DuplicateJob (ValueError)           a store knows the id of a new job already
    ├── StoreUnavailable (RuntimeError)     the file of a store cannot be opened, read or written
    │   ├── StoreMoved                      its jobs were moved to another store
    │   └── CheckpointUnavailable           that of a batch
    ├── CheckpointMismatch (ValueError)     the checkpoint is that of another batch
    ├── ProcessDied (RuntimeError)          a child process ended under a job
    │   └── ExecutorProcessDied             a process of an executor did
    ├── ExecutorFailed (RuntimeError)       an executor took no call, or gave one up
    ├── ProcessNotStarted (RuntimeError)    the initializer of child processes raised, or one ended at its start
    ├── RemoteError                         a child process raised what cannot be raised here
    ├── ItemError                           an item of a batch failed
    ├── VirtualTimeError (RuntimeError)     `tickwork.testing` cannot do what a test asks
    ├── SystemSchedulerError                crontab and schtasks: `tickwork.system`
    │   ├── SchedulerNotFound (FileNotFoundError)   its program is not installed
    │   ├── SchedulerDenied (PermissionError)       it does not let this user
    │   ├── SchedulerTimedOut (TimeoutError)        its program, or the lock, took too long
    │   ├── SchedulerConflict (RuntimeError)        somebody else wrote at the same time
    │   ├── SchedulerCommandFailed (RuntimeError)   its program failed; argv, status, output
    │   ├── EntryNotFound (LookupError)
    │   ├── EntryExists (ValueError)
    │   ├── ForeignEntry (ValueError)               the entry is not ours, or edited by hand
    │   ├── InvalidEntry (ValueError)               an id or a word that no entry can carry
    │   ├── UnsupportedSchedule (ValueError)        a schedule that it cannot say exactly
    │   ├── PlanRefused (ValueError)                several of an app
    │   └── CrontabCorrupt (ValueError)             markers that do not balance
    └── JobError                            what `await job.result()` raises
        ├── JobFailed                       cause: the original, where it is in this process
        ├── JobCancelled
        ├── JobTimedOut (TimeoutError)      the job's own timeout, not the waiter's
        ├── JobParked                       nobody can run it as it stands
        ├── LeaseLost                       its transaction came too late
        ├── JobSaved                        it left the pool for a file
        └── ResultExpired

`RetryAfter` and `GiveUp`, which jobs raise, stand in `tickwork.retry`.
RemoteTraceback is not raised: it is the `__cause__` of what a child process raised.

A message says what happened, with which value, and what to do. The constructor takes the values and keeps
them as attributes, so that a handler never has to parse a text.
"""

from __future__ import annotations

import asyncio
from typing import Any


def _rebuild(cls: type[TickworkError], message: str, attributes: dict[str, Any]) -> TickworkError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    return error


class TickworkError(Exception):
    """The root of every error of tickwork."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes by message and attributes: constructors take other arguments."""
        return _rebuild, (type(self), str(self), self.__dict__.copy())


class InvalidOption(TickworkError, ValueError):
    """An option has a value that it cannot have.

    Attributes:
        option: The option's name.
        expected: What would be right, in words.
        got: The value as given.
    """

    option: str
    expected: str
    got: object

    def __init__(self, option: str, expected: str, got: object, *, remedy: str = "") -> None:
        self._say(
            option, expected, got, f"{option} must be {expected}, got {got!r}" + (f"; {remedy}" if remedy else "")
        )

    def _say(self, option: str, expected: str, got: object, message: str) -> None:
        self.option, self.expected, self.got = option, expected, got
        super().__init__(message)


class InvalidDuration(InvalidOption):
    """A duration that cannot be read, or is not in range.

    Attributes:
        reason: What is wrong with it.
    """

    def __init__(self, option: str, got: object, reason: str) -> None:
        super().__init__(
            option,
            'a duration such as "30s", "1h30m", a number of seconds or a timedelta',
            got,
            remedy=reason,
        )
        self.reason = reason


class InvalidCron(InvalidOption):
    """A cron expression that is refused.

    Attributes:
        expression: The expression as given.
        field: The name of the field at fault ("minute", "hour", "day", "month", "weekday", "second",
            "year"), or None when the whole expression is.
        reason: What is wrong, and what to write instead.
    """

    expression: object
    field: str | None
    reason: str

    def __init__(self, expression: object, field: str | None, reason: str) -> None:
        self.expression, self.field, self.reason = expression, field, reason
        where = f" (field {field!r})" if field else ""
        shown = repr(expression)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        self._say("cron", "a cron expression", expression, f"invalid cron expression {shown}{where}: {reason}")


class InvalidInstant(InvalidOption):
    """A date or time that cannot be used: naive, unreadable, or out of range."""


class UnknownTimezone(InvalidOption):
    """A zone that the zone database does not hold.

    Attributes:
        key: The key as given.
        suggestion: The nearest known key, or None.
    """

    key: object
    suggestion: str | None

    def __init__(self, key: object, suggestion: str | None = None) -> None:
        self.key, self.suggestion = key, suggestion
        super().__init__(
            "timezone",
            'an IANA key such as "Asia/Seoul"',
            key,
            remedy=f"did you mean {suggestion!r}?" if suggestion else "",
        )


class DuplicateName(InvalidOption):
    """Two tasks, or two schedules, with the same name."""

    kind: str
    name: str

    def __init__(self, kind: str, name: str, remedy: str) -> None:
        self.kind, self.name = kind, name
        self._say(f"{kind} name", "unique", name, f"two {kind}s are named {name!r}; {remedy}")


class NotImportable(InvalidOption):
    """A function that a child process, or a later load, could not import."""

    def __init__(
        self, function: object, reason: str, *, remedy: str = "define it at the top level of a module"
    ) -> None:
        self.function: str = (
            function if isinstance(function, str) else getattr(function, "__qualname__", repr(function))
        )
        self.reason = reason
        message = f"function {self.function!r} cannot be imported by name: {reason}; {remedy}"
        self._say("function", "importable by name", self.function, message)


class InvalidPayload(TickworkError, ValueError):
    """An argument or result that cannot travel as JSON, or that does not fit the signature.

    Attributes:
        where: The task and the argument, such as "reports.daily(day)", or "result of reports.daily".
        reason: What is wrong and what to do.
    """

    where: str
    reason: str

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}")


class NotText(TickworkError, ValueError):
    """A file that was to be read as text is not UTF-8.

    Attributes:
        path: The file.
        position: Where the first wrong byte stands, counted from 0.
    """

    path: str
    position: int

    def __init__(self, path: str, position: int, byte: int, reason: str) -> None:
        self.path, self.position = path, position
        super().__init__(
            f"file {path!r} is not UTF-8 text: byte 0x{byte:02x} at position {position} ({reason}); "
            'take read="bytes" and decode it as what it is'
        )


class UnknownTask(TickworkError, LookupError):
    """No task has this name."""

    def __init__(self, name: object, *, known: list[str] | None = None, remedy: str = "") -> None:
        self.name = name
        near = nearest(str(name), known or [])
        hint = f"did you mean {near!r}?" if near else remedy
        hint = hint or "import its module before start() or pass App(tasks=[...])"
        super().__init__(f"no task named {name!r} is registered; {hint}")


class UnknownSchedule(TickworkError, LookupError):
    """No schedule has this name."""

    def __init__(self, name: object, known: list[str]) -> None:
        self.name = name
        near = nearest(str(name), known)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
        super().__init__(f"no schedule named {name!r}; {hint}")


class UnknownJob(TickworkError, LookupError):
    """The store holds no job with this id: it never did, or retention removed it."""

    def __init__(self, job_id: object) -> None:
        self.job_id = job_id
        super().__init__(f"no job {job_id!r} in the store; it never existed or its retention has passed")


class NotCommitted(UnknownJob):
    """The transaction that enqueues the job is not committed, or was rolled back: so far there is no such job."""

    def __init__(self, job_id: object) -> None:
        self.job_id = job_id
        TickworkError.__init__(
            self,
            f"no job {job_id!r} in the store: the transaction that enqueues it is not committed, or was rolled back; "
            "ask for the job after the commit",
        )


class UnknownBatch(TickworkError, LookupError):
    """The store holds no batch with this id: it never did, or retention removed it with its jobs."""

    batch_id: object

    def __init__(self, batch_id: object) -> None:
        self.batch_id = batch_id
        super().__init__(
            f"no batch {batch_id!r} in the store; it never existed or the retention of its jobs has passed"
        )


class WrongBatch(TickworkError, ValueError):
    """Items were to go into a batch that is another one, or takes no more; it stays as it was.

    Attributes:
        batch_id: Its id.
        reason: What does not fit.
    """

    batch_id: str
    reason: str

    def __init__(self, batch_id: str, reason: str, remedy: str) -> None:
        self.batch_id, self.reason = batch_id, reason
        super().__init__(f"batch {batch_id!r} {reason}; {remedy}")


class BatchIncomplete(TickworkError, RuntimeError):
    """All jobs of a batch have ended, and not all of its items were enqueued: whoever did that has left off.

    Attributes:
        batch_id: Its id.
        size: How many items were enqueued.
    """

    batch_id: str
    size: int

    def __init__(self, batch_id: str, size: int) -> None:
        self.batch_id, self.size = batch_id, size
        super().__init__(
            f"batch {batch_id!r} is not complete: whoever enqueued its items left off after {size:,}; go on with the "
            f"same items, await task.map(items, id={batch_id!r}), or cancel it"
        )


class InvalidTarget(TickworkError, ValueError):
    """What a command was given as TARGET holds no app, or no function, that can be used."""

    target: str
    reason: str

    def __init__(self, target: str, reason: str) -> None:
        self.target, self.reason = target, reason
        super().__init__(f"cannot use target {target!r}: {reason}")


class NotRunning(TickworkError, RuntimeError):
    """The app or the pool is not in the state that this call needs."""


class IllegalMove(TickworkError, RuntimeError):
    """A job was asked to go into a state that does not follow from the one it is in."""

    job_id: str
    current: str
    wanted: str

    def __init__(self, job_id: str, current: str, wanted: str) -> None:
        self.job_id, self.current, self.wanted = job_id, current, wanted
        super().__init__(f"job {job_id} is {current} and cannot become {wanted}")


class WrongState(TickworkError, RuntimeError):
    """A job cannot be retried, cancelled or deleted as it stands; nothing was changed.

    Attributes:
        job_id: The job's id.
        state: The state it is in.
        wanted: What was to be done with it: "retried", "cancelled" or "deleted".
    """

    job_id: str
    state: str
    wanted: str

    def __init__(self, job_id: str, state: str, wanted: str, reason: str, remedy: str) -> None:
        self.job_id, self.state, self.wanted = job_id, str(state), wanted
        super().__init__(f"job {job_id} is {state} and cannot be {wanted}: {reason}; {remedy}")


class KeyInDoubt(TickworkError, RuntimeError):
    """A transaction that has not ended enqueues a job with the same idempotency key. Nothing was enqueued.

    Attributes:
        task: The name of the task.
    """

    task: str

    def __init__(self, task: str) -> None:
        self.task = task
        super().__init__(
            f"a transaction that has not ended enqueues a job of {task!r} with the same key, so that nobody knows yet "
            "whether there is one; end that transaction first, or try again"
        )


class NotTransactional(TickworkError, RuntimeError):
    """What would be part of a transaction in the database of the jobs was asked of an app that has no such database.

    Attributes:
        what: What was asked.
    """

    what: str

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        super().__init__(
            f"{what} takes an app that keeps its jobs in PostgreSQL, and {reason}; "
            'let it keep them there: App("postgresql://...")'
        )


class StoreUnavailable(TickworkError, RuntimeError):
    """A store cannot do its work: its file cannot be opened, read or written. Nothing was changed.

    Attributes:
        where: The file.
        reason: What is wrong.
    """

    where: str
    reason: str

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        self.where, self.reason = where, reason
        super().__init__(f"store {where}: {reason}" + (f"; {remedy}" if remedy else ""))


class StoreMoved(StoreUnavailable):
    """The jobs of a store were moved to another one (`tickwork store move`): nothing begins here any more.

    Attributes:
        where: The store.
        reason: What is wrong.
        target: Where its jobs are now, without a password.
    """

    target: str

    def __init__(self, where: str, target: str) -> None:
        self.target = target
        super().__init__(where, f"its jobs were moved to {target}", "let the app open that")


class CheckpointUnavailable(StoreUnavailable):
    """The checkpoint of a batch cannot be opened, read or written. What was recorded before is kept.

    Attributes:
        where: The file.
        reason: What is wrong.
    """

    where: str
    reason: str

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        self.where, self.reason = where, reason
        TickworkError.__init__(self, f"checkpoint {where}: {reason}" + (f"; {remedy}" if remedy else ""))


class CheckpointMismatch(TickworkError, ValueError):
    """A checkpoint is that of another batch: of another function, version, way with results, or of other items.

    Attributes:
        where: The file.
        difference: What differs.
    """

    where: str
    difference: str

    def __init__(self, where: str, difference: str) -> None:
        self.where, self.difference = where, difference
        super().__init__(
            f"checkpoint {where} is that of another batch: {difference}; "
            "name another file, or remove this one to start from nothing"
        )


class DuplicateJob(TickworkError, ValueError):
    """A job was to be enqueued under an id that the store knows already."""

    job_id: str

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id!r} is in the store already; give every new job an id of its own")


class QueueFull(TickworkError, asyncio.QueueFull):
    """A bounded queue has no room and the call does not wait.

    Attributes:
        limit: How many entries the queue holds.
    """

    def __init__(self, what: str, limit: int, remedy: str) -> None:
        self.limit = limit
        super().__init__(f"the {what} is full ({limit} entries); {remedy}")


class Killed(BaseException):
    """A test lets the attempt die here, as its whole process would. Nobody is to catch it.

    Attributes:
        checkpoint: The point that the job named.
    """

    checkpoint: str

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        super().__init__(f"killed by the test at checkpoint {checkpoint!r}")


class ProcessDied(TickworkError, RuntimeError):
    """The child process that ran a job ended before it answered.

    Attributes:
        function: What it was running.
        pid: The process id of the child; None: unknown.
        exit_code: Its exit status; negative: the number of the signal that ended it; None: unknown.
    """

    function: str
    pid: int | None
    exit_code: int | None

    def __init__(self, function: str, pid: int, exit_code: int | None) -> None:
        self.function, self.pid, self.exit_code = function, pid, exit_code
        how = (
            "for an unknown reason"
            if exit_code is None
            else f"by signal {-exit_code}"
            if exit_code < 0
            else f"with exit status {exit_code}"
        )
        super().__init__(f"process {pid} ended {how} while it ran {function!r}")


class ProcessNotStarted(TickworkError, RuntimeError):
    """A child process was not made ready for the job: its initializer raised, or it ended while it started.

    The cause is what happened. The job has not begun there: this is no death that counts against it.

    Attributes:
        initializer: Where it is found, "module:qualname"; None: the pool has none.
        reason: What happened, in words.
    """

    initializer: str | None
    reason: str

    def __init__(self, initializer: str | None, reason: str) -> None:
        self.initializer, self.reason = initializer, reason
        super().__init__(f"a child process could not be started for the job: {reason}")


class ExecutorProcessDied(ProcessDied):
    """A process of an executor ended while a job was there; it may have been another job that ended it.

    A `ProcessPoolExecutor` is broken for good by that, and all its jobs get this error.

    Attributes:
        reason: What the executor says.
    """

    function: str
    pid: int | None
    exit_code: int | None
    reason: str

    def __init__(self, function: str, reason: str) -> None:
        self.function, self.pid, self.exit_code, self.reason = function, None, None, reason
        TickworkError.__init__(self, f"a process of the executor died under {function!r}: {reason}")


class ExecutorFailed(TickworkError, RuntimeError):
    """An executor did not take a call, or gave it up: it is shut down, broken, or has lost its cluster.

    Attributes:
        function: What was to run.
        reason: What the executor says.
    """

    function: str
    reason: str

    def __init__(self, function: str, reason: str, remedy: str) -> None:
        self.function, self.reason = function, reason
        super().__init__(f"the executor did not run {function!r}: {reason}; {remedy}")


class RemoteError(TickworkError):
    """A function raised something in its child process that cannot be raised here.

    Its exception cannot be pickled, does not unpickle, or means something else where it would arrive
    (SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration).

    Attributes:
        function: What was running.
        error_type: The qualified name of the exception's class.
        error_message: Its text.
        traceback: The formatted traceback, as text.
    """

    function: str
    error_type: str
    error_message: str

    def __init__(self, function: str, error_type: str, error_message: str, traceback: str) -> None:
        self.function, self.error_type, self.error_message = function, error_type, error_message
        self.traceback = traceback
        super().__init__(f"{function!r} raised {error_type} in its process: {error_message}")


class RemoteTraceback(Exception):
    """The traceback of a child process as text; the `__cause__` of what it raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Return the text set apart, as it stands inside another traceback."""
        return f'\n"""\n{self.text}"""'


_ITEM_NOTE = "raised for item "


class ItemError(TickworkError):
    """An item of a batch failed; its cause is what the function raised.

    Attributes:
        index: The place of the item among all, counted from 0.
        item: The item.
        error: What the function raised, or what ended it: `TimeoutError`, `ProcessDied`, `InvalidPayload`.
        attempts: How often it was tried.
    """

    index: int
    item: Any
    error: BaseException
    attempts: int

    def __init__(self, index: int, item: object, error: BaseException, attempts: int = 1) -> None:
        self.index, self.item, self.error, self.attempts = index, item, error, attempts
        tries = "" if attempts == 1 else f", tried {attempts} times"
        super().__init__(f"item {index} ({short(item)}{tries}) failed: {type(error).__qualname__}: {error}")
        self.__cause__: BaseException | None = error

    @property
    def traceback(self) -> str:
        """The traceback as text, that of a child process included."""
        from traceback import format_exception

        return "".join(format_exception(self.error))

    def original(self) -> Exception:
        """Return what to raise for it: what the function raised, with a note that names the item.

        Itself where that would be taken for something else than an error: SystemExit, CancelledError, StopIteration.
        """
        if not isinstance(self.error, Exception) or isinstance(self.error, StopIteration | StopAsyncIteration):
            return self
        notes = getattr(self.error, "__notes__", [])
        notes[:] = [note for note in notes if not note.startswith(_ITEM_NOTE)]  # several items may raise one exception
        self.error.add_note(f"{_ITEM_NOTE}{self.index} ({short(self.item)})")
        return self.error


def short(value: object, most: int = 80) -> str:
    """Return the repr of a value, cut where it is long; what raises in it is named instead."""
    from reprlib import Repr  # only failures need it

    brief = Repr()
    brief.maxstring = brief.maxother = brief.maxlong = most
    try:
        text = brief.repr(value[:most] if isinstance(value, bytes | bytearray) else value)
    except Exception as error:
        return f"<{type(value).__qualname__} whose repr raises {type(error).__qualname__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."


class VirtualTimeError(TickworkError, RuntimeError):
    """A test asks of virtual time, or of an app under test, what cannot be done as things stand."""


class SystemSchedulerError(TickworkError):
    """Something about the schedulers of the operating system, crontab and schtasks."""


class SchedulerNotFound(SystemSchedulerError, FileNotFoundError):
    """The program of a scheduler is not there.

    Attributes:
        program: What was to be started.
    """

    program: str

    def __init__(self, program: str, remedy: str) -> None:
        self.program = program
        super().__init__(f"there is no program {program!r}; {remedy}")


class SchedulerDenied(SystemSchedulerError, PermissionError):
    """A scheduler does not let this user do that.

    Attributes:
        action: What was tried.
        reason: What the scheduler or the operating system says.
    """

    action: str
    reason: str

    def __init__(self, action: str, reason: str, remedy: str) -> None:
        self.action, self.reason = action, reason
        super().__init__(f"not allowed: {action}: {reason}; {remedy}")


class SchedulerTimedOut(SystemSchedulerError, TimeoutError):
    """The program of a scheduler, or the wait for the lock of a crontab, took too long.

    Attributes:
        action: What was waited for.
        timeout: The limit, in seconds.
    """

    action: str
    timeout: float

    def __init__(self, action: str, timeout: float, remedy: str) -> None:
        self.action, self.timeout = action, timeout
        super().__init__(f"{action} took longer than {timeout:g} s; {remedy}")


class SchedulerConflict(SystemSchedulerError, RuntimeError):
    """What was read back is not what was written: somebody without the lock wrote at the same time.

    Attributes:
        what: What is different.
    """

    what: str

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        super().__init__(f"{what}; {remedy}")


class SchedulerCommandFailed(SystemSchedulerError, RuntimeError):
    """The program of a scheduler failed in a way that has no error of its own.

    Attributes:
        argv: The program and its arguments.
        returncode: Its exit status; negative: the number of the signal that ended it; None: it did not start.
        stdout: What it printed, as bytes.
        stderr: What it complained, as bytes.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: bytes
    stderr: bytes

    def __init__(
        self, argv: tuple[str, ...], returncode: int | None, stdout: bytes = b"", stderr: bytes = b"", *, note: str = ""
    ) -> None:
        self.argv, self.returncode, self.stdout, self.stderr = argv, returncode, stdout, stderr
        said = note or (stderr.strip() or stdout.strip()).decode(errors="replace") or "it says nothing"
        how = "did not start" if returncode is None else f"ended with exit status {returncode}"
        super().__init__(f"{' '.join(argv)!r} {how}: {said if len(said) <= 500 else said[:497] + '...'}")


class EntryNotFound(SystemSchedulerError, LookupError):
    """No entry of ours has this id.

    Attributes:
        id: The id as given.
        suggestion: The nearest known id, or None.
    """

    id: str
    suggestion: str | None

    def __init__(self, id: str, known: list[str], where: str) -> None:
        self.id, self.suggestion = id, nearest(id, known)
        hint = f"did you mean {self.suggestion!r}?" if self.suggestion else f"known: {', '.join(known) or 'none'}"
        super().__init__(f"there is no entry {id!r} in {where}; {hint}")


class EntryExists(SystemSchedulerError, ValueError):
    """An entry with this id is there already.

    Attributes:
        id: The id.
    """

    id: str

    def __init__(self, id: str, where: str) -> None:
        self.id = id
        super().__init__(f"there is an entry {id!r} in {where} already; pass replace=True to replace it")


class ForeignEntry(SystemSchedulerError, ValueError):
    """What was to be changed was made, or was edited, by somebody else.

    Attributes:
        id: The id or name of the entry.
        reason: Who is taken for its owner, and why.
    """

    id: str
    reason: str

    def __init__(self, id: str, reason: str, remedy: str) -> None:
        self.id, self.reason = id, reason
        super().__init__(f"entry {id!r} {reason}; {remedy}")


class InvalidEntry(SystemSchedulerError, ValueError):
    """A part of an entry that the scheduler cannot carry exactly.

    Attributes:
        part: "id", "schedule", "argument", "log", "user", ...
        got: The value as given.
        reason: What is wrong with it, and what to do.
    """

    part: str
    got: object
    reason: str

    def __init__(self, part: str, got: object, reason: str) -> None:
        self.part, self.got, self.reason = part, got, reason
        super().__init__(f"{part} {short(got)} cannot be part of an entry: {reason}")


class UnsupportedSchedule(SystemSchedulerError, ValueError):
    """A schedule that the scheduler of the operating system cannot say exactly; nothing is approximated.

    Attributes:
        schedule: The trigger or the text, as given.
        reason: Why not, and what to do.
    """

    schedule: object
    reason: str

    def __init__(self, schedule: object, where: str, reason: str) -> None:
        self.schedule, self.reason = schedule, reason
        super().__init__(f"{where} cannot say {short(schedule)} exactly: {reason}")


class PlanRefused(SystemSchedulerError, ValueError):
    """Schedules of an app that the scheduler of the operating system cannot have; nothing was changed.

    Attributes:
        refused: Why not, for each by its id.
    """

    refused: dict[str, str]

    def __init__(self, where: str, refused: dict[str, str]) -> None:
        self.refused = refused
        told = [f"{id} ({reason})" for id, reason in list(refused.items())[:3]]
        told += [f"{len(refused) - 3} more"] if len(refused) > 3 else []
        remedy = "leave them out with skip_unsupported=True (--skip-unsupported), and let the app run them"
        super().__init__(f"{where} cannot have all of them, and nothing was changed: {'; '.join(told)}; {remedy}")


class CrontabCorrupt(SystemSchedulerError, ValueError):
    """The markers in a crontab do not balance, so nobody can say which lines are ours; it is left as it is.

    Attributes:
        line_no: The line at fault, counted from 1.
        reason: What is wrong there.
    """

    line_no: int
    reason: str

    def __init__(self, line_no: int, reason: str) -> None:
        self.line_no, self.reason = line_no, reason
        super().__init__(
            f"line {line_no} of the crontab: {reason}; put it right with `crontab -e`, nothing was changed"
        )


class JobError(TickworkError):
    """What became of a job that has no result to give.

    Attributes:
        job_id: The job's id.
        task: The name of its task or function.
    """

    job_id: str
    task: str

    def __init__(self, job_id: str, task: str, message: str) -> None:
        self.job_id, self.task = job_id, task
        super().__init__(f"job {job_id} ({task}) {message}")


class JobFailed(JobError):
    """The job's attempts are used up; `__cause__` is the original where it was raised in this process.

    Attributes:
        error_type: The qualified name of the original exception's class.
        error_message: Its text.
        traceback: The formatted traceback, as text.
    """

    error_type: str
    error_message: str
    traceback: str

    def __init__(self, job_id: str, task: str, error_type: str, error_message: str, traceback: str) -> None:
        self.error_type, self.error_message, self.traceback = error_type, error_message, traceback
        super().__init__(job_id, task, f"failed: {error_type}: {error_message}")


class JobCancelled(JobError):
    """The job was cancelled, before or while it ran."""

    def __init__(self, job_id: str, task: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(job_id, task, "was cancelled" + (f": {reason}" if reason else ""))


class JobTimedOut(JobError, TimeoutError):
    """The job ran longer than its own timeout.

    Attributes:
        timeout: The limit, in seconds.
    """

    def __init__(self, job_id: str, task: str, timeout: float) -> None:
        self.timeout = timeout
        super().__init__(job_id, task, f"ran longer than its timeout of {timeout:g} s")


class JobParked(JobError):
    """Nobody can run the job as it stands; it waits for a person or for another version of the code."""

    def __init__(self, job_id: str, task: str, reason: str) -> None:
        self.reason = reason
        super().__init__(job_id, task, f"is parked: {reason}")


class LeaseLost(JobError):
    """The lease of the job was over before its transaction: nothing of that is done, and the job goes on elsewhere."""

    def __init__(self, job_id: str, task: str) -> None:
        super().__init__(
            job_id, task, "has lost its lease: what its transaction did is rolled back; it goes on elsewhere, if at all"
        )


class JobSaved(JobError):
    """The job left the pool unstarted, for a file written by `Pool.save`."""

    def __init__(self, job_id: str, task: str, path: str) -> None:
        self.path = path
        super().__init__(job_id, task, f"was saved to {path!r} before it started; Pool.load runs it")


class ResultExpired(JobError):
    """The job succeeded, and its result is no longer kept."""

    def __init__(self, job_id: str, task: str, said: str = "succeeded, but its result is no longer kept") -> None:
        super().__init__(job_id, task, said)


def nearest(word: str, known: list[str]) -> str | None:
    """Return the known word that looks most like `word`, or None when none does."""
    from difflib import get_close_matches  # 3 ms that only a mistake has to pay

    lowered = {entry.lower(): entry for entry in known}
    found = get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else None
