"""Functions that the tests run in child processes."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from tickwork.runners import child

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

started_with: list[str] = []
kept: list[bytes] = []


class Task:
    """What tickwork's decorators leave in place of a function."""

    __tickwork_task__ = True

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn


def doubled(fn: Callable[P, int]) -> Callable[P, int]:
    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> int:
        return 2 * fn(*args, **kwargs)

    return wrapper


def wrapping(task: Task) -> Any:
    @functools.wraps(task.fn)
    def wrapper(value: int) -> Any:
        return task.fn(value)

    wrapper.__wrapped__ = task  # type: ignore[assignment]
    return wrapper


@Task
def tasked(value: int) -> int:
    return value + 1


@doubled
def decorated(value: int) -> int:
    return value + 1


@wrapping
@Task
def decorated_task(value: int) -> int:
    return value + 1


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def same(value: Any) -> Any:
    return value


def process_id() -> int:
    return os.getpid()


def modules() -> list[str]:
    return sorted(sys.modules)


def path_and_folder() -> tuple[list[str], str]:
    return sys.path, os.getcwd()


async def coroutine_function() -> None: ...


class Machine:
    def method(self) -> int:
        return 1

    @classmethod
    def built(cls) -> str:
        return cls.__name__

    @staticmethod
    def fixed() -> str:
        return "fixed"


class SubMachine(Machine):
    pass


# -- errors


class Custom(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> tuple[type[Custom], tuple[int]]:
        return Custom, (self.code,)


class Stubborn(Exception):
    """It pickles and does not unpickle: pickle calls the class with `args`, one too few."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_value_error(text: str) -> NoReturn:
    raise ValueError(text)


def raise_custom(code: int) -> NoReturn:
    raise Custom(code)


def raise_stubborn() -> NoReturn:
    raise Stubborn(7, "does not come back")


def raise_mute() -> NoReturn:
    raise Mute


def raise_local() -> NoReturn:
    class Local(Exception):
        pass

    raise Local("nobody else knows this class")


def raise_chained() -> NoReturn:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def raise_by_name(name: str) -> NoReturn:
    kinds: dict[str, BaseException] = {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "StopIteration": StopIteration(1),
        "CancelledError": asyncio.CancelledError(),
    }
    raise kinds[name]


def return_generator() -> Any:
    return (number for number in range(3))


class Unreadable:
    """It pickles, and raises when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], NoReturn], tuple[str]]:
        return raise_value_error, ("unreadable",)


# -- ways to end


def exit_with(code: int) -> NoReturn:
    os._exit(code)


def kill_itself(number: int) -> NoReturn:
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable")


def read_null() -> None:
    ctypes.string_at(0)


def hold(path: str) -> NoReturn:
    """Tell the own pid by a file and never return."""
    Path(path).write_text(str(os.getpid()))
    for_ever()


def for_ever() -> NoReturn:
    """Wait for what never comes."""
    while True:
        threading.Event().wait()


def hold_the_interpreter(path: str) -> NoReturn:
    """The same inside a C call that keeps the interpreter lock."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)
    raise AssertionError("unreachable")


def wait_for(path: str) -> int:
    """Wait until a file is there, and return the own pid."""
    until_there(path)
    return os.getpid()


def until_there(path: str | Path) -> None:
    while not Path(path).exists():
        time.sleep(0.005)


def meet(folder: str, count: int) -> int:
    """Return the own pid once `count` processes are in here at the same time."""
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < count:
        time.sleep(0.005)
    return os.getpid()


def socket_of_the_child() -> socket.socket:
    assert child._child is not None
    return child._child._sock


def close_what_is_not_its_own() -> NoReturn:
    os.closerange(3, 256)
    for_ever()


def exit_while_another_holds_the_socket(path: str) -> NoReturn:
    socket_of_the_child().set_inheritable(True)
    other = subprocess.Popen(["sleep", "60"], close_fds=False)
    Path(path).write_text(str(other.pid))
    os._exit(3)


def disconnect_later(go: str, done: str) -> int:
    """Return; when the file `go` is there, hang up while the process lives on."""

    def wait() -> None:
        until_there(go)
        socket_of_the_child().shutdown(socket.SHUT_RDWR)
        Path(done).touch()
        for_ever()

    threading.Thread(target=wait).start()
    return os.getpid()


def write_rubbish() -> NoReturn:
    socket_of_the_child().sendall(b"rubbish, and more of it" * 10)
    for_ever()


# -- children of children


def terminate_a_program() -> int:
    with subprocess.Popen(["sleep", "60"]) as program:
        program.terminate()
        return program.wait()


def terminate_a_fork() -> int:
    pid = os.fork()
    if pid == 0:
        for_ever()
    os.kill(pid, signal.SIGTERM)
    return os.waitpid(pid, 0)[1]


# -- the rest


def context() -> dict[str, Any] | None:
    return child.current_context()


request_id: ContextVar[Any] = ContextVar("request_id", default="none")
renamed: ContextVar[Any] = ContextVar("another name", default="none")


def variables(_item: object = None) -> tuple[Any, Any]:
    """Return the values of both, and leave others."""
    found = request_id.get(), renamed.get()
    request_id.set("left behind")
    renamed.set("left behind")
    return found


def process_of(_item: object) -> int:
    return os.getpid()


def tell(*values: Any) -> str:
    for value in values:
        child.notify("value", value)
    return "told"


def tell_from_thread(value: Any) -> None:
    thread = threading.Thread(target=child.notify, args=("value", value))
    thread.start()
    thread.join()


def speak(text: str) -> None:
    print(text)  # noqa: T201 - what is printed is what is tested


def grow(size: int) -> int:
    kept.append(bytes(bytearray(os.urandom(1024) * (size // 1024))))
    return os.getpid()


def initialize() -> None:
    started_with.append("initialized")


def initialized() -> list[str]:
    return started_with


def fail_to_initialize() -> NoReturn:
    raise LookupError("no licence")


def exit_at_start() -> NoReturn:
    os._exit(9)


def wait_at_first() -> None:
    """Tell the own pid by a file and never return; where that file is there, return."""
    path = Path(os.environ["TICKWORK_TEST_FOLDER"]) / "first"
    if not path.exists():
        hold(str(path))


class Block:
    """Memory that travels beside the pickle, as numpy's arrays do."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[type[Block], tuple[pickle.PickleBuffer]]:
        return Block, (pickle.PickleBuffer(self.data),)


def look_at(blocks: list[Block]) -> tuple[list[int], list[bool], list[int]]:
    """Return sizes, whether each can be written to, and the addresses modulo 16."""
    views = [memoryview(block.data) for block in blocks]
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer(view)) % 16 for view in views if not view.readonly]
    return [view.nbytes for view in views], [not view.readonly for view in views], addresses


def upper(block: Block) -> Block:
    data = bytearray(block.data)
    data[:] = data.upper()
    return Block(data)


def length(content: bytes | str) -> int:
    return len(content)
