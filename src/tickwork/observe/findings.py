"""What `tickwork check` looks for, and what it says of something found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import DuplicateName, InvalidCron, InvalidOption, NotImportable, UnknownTimezone

RULES: Final[dict[str, str]] = {
    "duplicate-name": "two tasks or two schedules with one name",
    "unknown-timezone": "a zone that the zone database does not hold",
    "invalid-cron": "a cron expression that is refused",
    "invalid-option": "any other option that is refused when it is declared",
    "broken-trigger": "a trigger that raises, or whose fire times do not ascend",
    "never-fires": "a trigger without a fire time to come",
    "trigger-warning": "a trigger that is valid and probably not meant, such as a step larger than its field",
    "clock-change": "times of day that a clock change within a year moves, repeats or leaves out",
    "long-timeout": 'a timeout longer than the shortest gap between fire times, unless overlap is "allow"',
    "long-jitter": "a jitter longer than that gap, by which it is cut",
    "short-grace": "a grace so short that an idle loop misses it",
    "process-coroutine": 'a coroutine function with run_in="process"',
    "process-import": "a function that a fresh child process cannot import",
    "process-pickle": "a parameter or result whose class cannot be pickled for a child process",
    "executor-coroutine": 'a coroutine function with run_in="executor"',
    "executor-missing": 'tasks with run_in="executor" in an app that has none, nor a lifespan to set it',
    "several-workers": "an app in memory, beside signs of several web workers",
    "waiting-unknown": "unfinished jobs in the app's file whose task the app does not have",
    "waiting-misfit": "unfinished jobs in the app's file whose arguments do not fit their task any more",
}
"""Every rule, by the code that `--ignore` takes, with what it finds. Codes are stable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that will not do what it was probably meant to do.

    Attributes:
        rule: One of `RULES`.
        about: The name of the schedule or task, or where its declaration stands.
        message: What is found, with the value.
        remedy: What to do.
    """

    rule: str
    about: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """Return it as one line, without the rule."""
        return f"{self.about}: {self.message}; {self.remedy}"


_REFUSALS: Final[tuple[tuple[type[InvalidOption], str, str], ...]] = (
    (DuplicateName, "duplicate-name", 'give one of them another: name="..."'),
    (UnknownTimezone, "unknown-timezone", 'use a key such as "Asia/Seoul"'),
    (InvalidCron, "invalid-cron", "try it with `tickwork next --cron`"),
    (NotImportable, "process-import", "define it at the top level of a module"),
    (InvalidOption, "invalid-option", "correct it"),
)


def refusal(error: InvalidOption, place: str) -> Finding:
    """Return the finding of an option that was refused while the app was imported.

    Args:
        error: What was raised.
        place: File and line.
    """
    rule, remedy = next((rule, remedy) for kind, rule, remedy in _REFUSALS if isinstance(error, kind))
    message, said = in_two(error)
    if isinstance(error, DuplicateName):
        return Finding(rule, error.name, f"{message} ({place})", said or remedy)
    return Finding(rule, place, message, said or remedy)


def in_two(error: InvalidOption) -> tuple[str, str]:
    """Return what an error says has happened, and what it says is to be done, or ""."""
    text = " ".join(str(error).split())
    shown = " ".join(repr(error.got).split())
    value = text.find(shown)
    cut = text.find("; ", value + len(shown) if value >= 0 else 0)  # a "; " in the value itself divides nothing
    return (text, "") if cut < 0 else (text[:cut], text[cut + 2 :])
