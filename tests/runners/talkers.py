"""Functions that log, run by tests in child processes."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import Any, NoReturn

from .functions import until_there

logger = logging.getLogger("mine")


def say(level: int, text: str, *args: Any, **options: Any) -> int:
    """Log one line as what the parent gives, and return the own pid."""
    logger.log(level, text, *args, **options)
    return os.getpid()


def say_by(name: str, level: int, text: str) -> None:
    logging.getLogger(name).log(level, text)


class Thing:
    """What only children should have to know."""

    def __str__(self) -> str:
        return "a thing"

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError("it stays here")


def say_things() -> None:
    logger.warning("%s of %d", Thing(), 7, extra={"thing": Thing(), "at": datetime(2026, 1, 1, tzinfo=UTC)})
    logger.warning(Thing())
    nested: list[Any] = []
    nested.append(nested)
    logger.warning("%s", nested, extra={"kept": {"a": [1, (2.5, None)]}})


def say_an_error() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("it went %s", "badly")


def say_badly() -> None:
    logger.warning("%d", Thing())
    logger.warning("next")


def say_and_die(text: str) -> NoReturn:
    logger.warning(text)
    os._exit(3)


def say_many(count: int) -> None:
    for number in range(count):
        logger.warning("line %d", number)


def say_in_turn(listener: str) -> None:
    """Log and print alternately; what is logged comes in the order of the lines, from any thread."""
    logger.warning("one")
    thread = threading.Thread(target=logger.warning, args=("two",))
    thread.start()
    thread.join()
    logger.warning("three")


def say_after_the_call(go: str, done: str) -> None:
    """Return; when the file `go` is there, log."""

    def later() -> None:
        until_there(go)
        logger.warning("after the call")
        logger.info("less than a warning")
        open(done, "w").close()

    threading.Thread(target=later, daemon=True).start()


def set_up() -> None:
    logging.basicConfig(level=logging.DEBUG, format="here: %(message)s", stream=sys.stderr)


def set_up_and_say(text: str) -> None:
    set_up()
    logger.debug(text)


def clear() -> None:
    logging.root.handlers.clear()


def levels(*names: str | None) -> list[int]:
    return [logging.getLogger(name).level for name in names]


class _Speaks:
    def __init__(self) -> None:
        self.itself = self  # so that only the collector finds it

    def __del__(self) -> None:
        logger.warning("collected")


def say_amid_writing(count: int) -> None:
    """Log from a signal handler while the main thread logs, as often as lets that one go on."""

    def alarm(*_: object) -> None:
        logger.warning("alarm")
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    try:
        for number in range(count):
            logger.warning("%s %d", "x" * 1000, number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    _Speaks()
    gc.collect()


def say_in_a_fork() -> int:
    pid = os.fork()
    if pid == 0:
        logger.warning("from the fork")
        sys.stderr.flush()
        os._exit(0)
    return os.waitpid(pid, 0)[1]
