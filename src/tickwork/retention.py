"""How long an app's file keeps what has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .durations import format_seconds, seconds
from .errors import InvalidOption

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Retention", "retention"]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept after their end, in seconds.

    Attributes:
        results: Results of jobs.
        jobs: The jobs themselves, without parked ones: those stay until a person decides.
        ledger: What became of fire times.
    """

    results: float = 3_600.0
    jobs: float = 7 * 86_400.0
    ledger: float = 30 * 86_400.0


DEFAULT = Retention()

MIN_SECONDS = 1.0
"""Whoever awaits a job in another process looks for its result within some hundredths of a second, when all is well."""


def retention(
    keep_results: float | str | timedelta,
    keep_jobs: float | str | timedelta,
    keep_ledger: float | str | timedelta,
    *,
    is_kept: bool,
) -> Retention:
    """Return what the options of an app mean.

    Args:
        keep_results: How long results are kept; at the most as long as jobs, which is what becomes of the default.
        keep_jobs: How long jobs are kept.
        keep_ledger: How long the ledger is kept.
        is_kept: Whether the app keeps anything: memory counts, and knows no ages.

    Raises:
        InvalidDuration: One cannot be read, is less than a second, or more than a hundred years.
        InvalidOption: One is given for an app in memory, or results are to be kept longer than their jobs.
    """
    given = {"keep_results": keep_results, "keep_jobs": keep_jobs, "keep_ledger": keep_ledger}
    found = Retention(*(seconds(value, option, minimum=MIN_SECONDS) for option, value in given.items()))
    if not is_kept:
        defaults = (DEFAULT.results, DEFAULT.jobs, DEFAULT.ledger)
        for (option, value), read, default in zip(
            given.items(), (found.results, found.jobs, found.ledger), defaults, strict=True
        ):
            if read != default:
                remedy = 'it keeps the last 1,000; to keep by age, give it a file: App("sqlite:///jobs.db")'
                raise InvalidOption(option, "left out for an app in memory", value, remedy=remedy)
        return found
    if found.results > found.jobs:
        if found.results != DEFAULT.results:
            expected = f"at most keep_jobs ({format_seconds(found.jobs)}), since a result goes with its job"
            raise InvalidOption("keep_results", expected, keep_results)
        return Retention(found.jobs, found.jobs, found.ledger)
    return found
