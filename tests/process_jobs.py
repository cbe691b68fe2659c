"""Functions and tasks that tests run in child processes. It imports little: each child waits for it."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import threading
from pathlib import Path
from typing import NoReturn

import psutil

import tickwork
from tickwork import Context, Retry

logger = logging.getLogger("work")

made: list[str] = []
kept: list[bytearray] = []


def make() -> None:
    made.append("made")


def fail_to_make() -> NoReturn:
    raise LookupError("no licence")


def die_while_making() -> NoReturn:
    os._exit(9)


def pid_and_made() -> tuple[int, list[str]]:
    return os.getpid(), made


def pid() -> int:
    return os.getpid()


def grow() -> int:
    kept.append(bytearray(os.urandom(1 << 20)) * 100)
    return os.getpid()


def end(how: str) -> None:
    """End this process in one of several ways."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(7)
    elif how == "abort":
        os.abort()
    else:  # what the kernel does to whoever has taken all memory
        os.kill(os.getpid(), signal.SIGKILL)


def take_all_memory() -> None:
    size = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
    bytearray(1 << 30)


def wait_for(path: str) -> int:
    """Say that it runs by a file, and return the own pid when another file is there."""
    Path(f"{path}.{os.getpid()}").touch()
    while not Path(path).exists():
        threading.Event().wait(0.005)
    return os.getpid()


def talk(ctx: Context, text: str) -> None:
    ctx.log.info("%s by the context", text)
    logger.info("%s by a logger", text)
    logger.warning("%s with its own", text, extra={"job_id": "mine"})


def talk_plainly(text: str) -> None:
    logger.warning(text)


@tickwork.task(run_in="process", name="end")
def end_task(how: str) -> None:
    end(how)


@tickwork.task(run_in="process", name="memory")
def memory_task() -> None:
    take_all_memory()


@tickwork.task(run_in="process", name="wait")
def wait_task(path: str) -> int:
    return wait_for(path)


@tickwork.task(run_in="process", name="wait-briefly", timeout=2)
def wait_briefly_task(path: str) -> int:
    return wait_for(path)


@tickwork.task(run_in="process", name="talk")
def talk_task(ctx: Context, text: str) -> None:
    talk(ctx, text)


@tickwork.task(run_in="process", name="pid")
def pid_task() -> int:
    return os.getpid()


@tickwork.task(run_in="process", name="grow")
def grow_task() -> int:
    return grow()


@tickwork.task(run_in="process", name="made", retry=Retry(2, delay=0))
def made_task() -> tuple[int, list[str]]:
    return pid_and_made()
