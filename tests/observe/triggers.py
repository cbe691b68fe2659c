"""Triggers for tests that do what no trigger of tickwork does."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tickwork.triggers import Trigger

MINUTE = timedelta(minutes=1)


class Answers(Trigger):
    """A trigger that answers with whatever a function returns or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def next(self, after: datetime) -> datetime | None:
        found: datetime | None = self.answer(after)
        return found

    @property
    def fingerprint(self) -> str:
        return "answers"


class Steps(Trigger):
    """The same as `Every`, but of a class that nobody knows: it has to be asked."""

    def __init__(self, period: timedelta, start: datetime) -> None:
        self.period, self.start = period, start

    def next(self, after: datetime) -> datetime:
        return self.start + max(0, (after - self.start) // self.period + 1) * self.period

    @property
    def fingerprint(self) -> str:
        return f"steps {self.period}"
