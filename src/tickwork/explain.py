"""Why something ran, or did not: one answer from the ledger, as a sentence.

Pure: who asks has read the ledger, the schedule's row and the jobs that matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .durations import format_seconds
from .errors import InvalidInstant
from .payloads import ErrorInfo
from .policies import PROMPT_SECONDS
from .triggers import newest, read_instant
from .zones import end_of_gap, get_zone, resolve_wall

if TYPE_CHECKING:
    from .jobs import JobRecord
    from .policies import Policies
    from .stores.base import Answer, ScheduleRow
    from .triggers import Trigger

_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
_LOOK_BACK = timedelta(days=400)
"""How far back the fire time before one is looked for: a yearly schedule has one within."""


@dataclass(frozen=True, slots=True)
class Why:
    """What became of a fire time, and why.

    Attributes:
        sentence: The answer; what `str` gives.
        answer: The row of the ledger, where there is one.
    """

    sentence: str
    answer: Answer | None

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a fire time and its schedule.

    Attributes:
        name: The schedule's name.
        trigger: When it fires, within its bounds.
        policies: How it treats its fire times.
        row: Where the store says it stands; None: the store has not heard of it.
        answers: The rows of the ledger that cover the time asked for, the newest first.
        jobs: The jobs of those rows that the store still has, by id.
        blockers: The rows of jobs that stood in the way, by job id.
        is_durable: Whether the store outlives the process.
        zone: The IANA key of the zone in which times are told.
        now: The instant of the question (UTC).
    """

    name: str
    trigger: Trigger
    policies: Policies
    row: ScheduleRow | None
    answers: list[Answer]
    jobs: dict[str, JobRecord]
    blockers: dict[str, Answer]
    is_durable: bool
    zone: str
    now: datetime


def read_time(text: str, zone: str, now: datetime) -> tuple[datetime, str]:
    """Return the instant that a person means, and a remark where clocks never showed it.

    Args:
        text: "03:00" or "03:00:30": the last such time of day; an ISO 8601 text, read in the zone unless it has an
            offset.
        zone: The IANA key.
        now: The instant of the question.

    Raises:
        InvalidInstant: It cannot be read.
    """
    here = now.astimezone(get_zone(zone).info)
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text.strip()):
        for back in range(3):
            day = here.date() - timedelta(days=back)
            found, remark = _read_wall(f"{day}T{text.strip():0>5}", text, zone)
            if found <= now:
                return found, remark
    return _read_wall(text.strip(), text, zone)


def _read_wall(iso: str, text: str, zone: str) -> tuple[datetime, str]:
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        raise InvalidInstant(
            "TIME", 'a time such as "03:00" or "2026-03-29T03:00"', text, remedy="add an offset where you mean one"
        ) from None
    if moment.tzinfo is not None:
        return read_instant(moment, "TIME"), ""
    try:
        return resolve_wall(moment, zone), ""
    except InvalidInstant as error:
        return end_of_gap(moment, zone), f"{moment} never was: {str(error).rpartition('; ')[2]}. "


def sought(asked: datetime, trigger: Trigger) -> datetime:
    """Return the fire time that is meant by an instant told to the minute: the first in that minute, or itself."""
    if asked.second or asked.microsecond:
        return asked
    try:
        found = trigger.next(asked - _MICROSECOND)
    except BaseException as error:  # the ledger may know more
        if isinstance(error, KeyboardInterrupt):
            raise
        return asked
    return found if found is not None and found < asked + _MINUTE else asked


def why(at: datetime, facts: Facts) -> Why:
    """Say what became of a fire time of a schedule."""
    if facts.answers:
        answer = facts.answers[0]
        return Why(f"{facts.name}, {_shown(at, facts)}: {_OUTCOMES[answer.outcome](answer, at, facts)}", answer)
    try:
        told = _without_answer(at, facts)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        told = f"nothing is recorded, and the trigger raised {error!r}"
    return Why(f"{facts.name}, {_shown(at, facts)}: {told}", None)


# -- no row in the ledger -------------------------------------------------------------------------------------------


def _without_answer(at: datetime, facts: Facts) -> str:
    row = facts.row
    if row is None:
        return "the store has not heard of this schedule"
    if facts.policies.after == "end":
        return _after_end(at, row, facts)
    if facts.trigger.next(at - _MICROSECOND) != at:
        return f"no fire time; {facts.trigger!r} fires {_neighbours(at, facts)}"
    if at > facts.now:
        if row.paused:
            return "will be paused, unless somebody resumes the schedule"
        if _is_over(row, facts):
            return f"will not run: the schedule is finished ({facts.policies.said('max_runs')})"
        return f"is still to come, in {_duration((at - facts.now).total_seconds())}"
    if at <= row.declared_at:
        since = "was declared with this trigger" if facts.is_durable else "began, since its ledger is in memory"
        return f"before {_shown(row.declared_at, facts)}, when the schedule {since}"
    if at > row.watermark:
        if _is_over(row, facts):
            return f"did not run: the schedule was finished ({facts.policies.said('max_runs')})"
        return f"is not answered yet: it was due {_duration((facts.now - at).total_seconds())} ago"
    return "is no longer in the ledger: its retention has passed"


def _after_end(at: datetime, row: ScheduleRow, facts: Facts) -> str:
    period = _duration(row.after_seconds or 0.0)
    if row.next_at is None:
        return f"no fire time; the next one comes {period} after the end of the job under way"
    return f"no fire time; the next one is {_shown(row.next_at, facts)}, {period} after the last end"


def _is_over(row: ScheduleRow, facts: Facts) -> bool:
    return facts.policies.max_runs is not None and row.runs >= facts.policies.max_runs


def _neighbours(at: datetime, facts: Facts) -> str:
    before = newest(facts.trigger, at - _LOOK_BACK, at, 1)
    following = facts.trigger.next(at)
    told = [f"before it at {_shown(before[0], facts)}"] if before else []
    told += [f"after it at {_shown(following, facts)}"] if following is not None else ["never after it"]
    return " and ".join(told)


# -- what the ledger says -------------------------------------------------------------------------------------------


def _ran(answer: Answer, at: datetime, facts: Facts) -> str:
    job = facts.jobs.get(answer.job_id or "")
    told = [f"ran as job {answer.job_id}"]
    noticed = (answer.answered_at - at).total_seconds()
    if noticed > PROMPT_SECONDS:
        told.append(f"noticed {_duration(noticed)} late{_because(answer)}")
    wanted = answer.wanted_at or at
    if wanted > at:
        told.append(f"to start {_duration((wanted - at).total_seconds())} later by its jitter")
    started = answer.started_at or (job.started_at if job else None)
    if started is not None:
        late = (started - wanted).total_seconds()
        if late > PROMPT_SECONDS and noticed <= PROMPT_SECONDS:
            told.append(f"started at {_clock(started, facts)}, {_duration(late)} late{_because(answer)}")
        else:
            told.append(f"started at {_clock(started, facts)}")
    return ", ".join(told) + _end(answer, started, job, facts)


def _end(answer: Answer, started: datetime | None, job: JobRecord | None, facts: Facts) -> str:
    if answer.finished_at is None:
        if started is not None:
            return f"; it is running, for {_duration((facts.now - started).total_seconds())} now"
        return f"; it has not begun: the job is {job.state}" if job is not None else "; it has not begun"
    took = "" if started is None else f" after {_duration((answer.finished_at - started).total_seconds())}"
    said = f"; it {answer.state} at {_clock(answer.finished_at, facts)}{took}"
    error = None if job is None or job.error is None else _error(job.error)
    return said.replace("it cancelled", "it was cancelled").replace("it parked", "it was parked") + (
        f": {error}" if error else ""
    )


def _error(stored: str) -> str:
    info = ErrorInfo.from_json(stored)
    return f"{info.type}: {info.message}"


def _skipped(answer: Answer, at: datetime, facts: Facts) -> str:
    blocker = f"job {answer.blocked_by} of the schedule{_span(answer, facts)}"
    return f"skipped: {blocker} was not finished; {answer.decided_by} decided"


def _merged(answer: Answer, at: datetime, facts: Facts) -> str:
    return (
        f"merged into job {answer.blocked_by}{_span(answer, facts)}, which waited its turn; {answer.decided_by} decided"
    )


def _span(answer: Answer, facts: Facts) -> str:
    """Return what is known of the job in the way: when it was due, how long it has run."""
    blocker = facts.blockers.get(answer.blocked_by or "")
    if blocker is None:
        return ""
    told = f", due at {_clock(blocker.first, facts)}"
    if blocker.started_at is not None and blocker.finished_at is not None:
        took = _duration((blocker.finished_at - blocker.started_at).total_seconds())
        told += f" and run from {_clock(blocker.started_at, facts)} to {_clock(blocker.finished_at, facts)} ({took}),"
    return told


def _missed(answer: Answer, at: datetime, facts: Facts) -> str:
    if answer.job_id is not None:
        return f"missed: job {answer.job_id} could not begin in time; {answer.decided_by} decided"
    late = _duration((answer.answered_at - at).total_seconds())
    others = "" if answer.count == 1 else f", one of {answer.count or 'many'} from {_shown(answer.first, facts)} on"
    return f"missed: noticed {late} late{_because(answer)}{others}; {answer.decided_by} decided"


def _paused(answer: Answer, at: datetime, facts: Facts) -> str:
    return "did not run: the schedule was paused"


def _not_started(answer: Answer, at: datetime, facts: Facts) -> str:
    when = "" if answer.finished_at is None else f" at {_clock(answer.finished_at, facts)}"
    return f"did not run: its job {answer.job_id} was cancelled before it began{when}"


_OUTCOMES = {
    "ran": _ran,
    "skipped": _skipped,
    "merged": _merged,
    "missed": _missed,
    "paused": _paused,
    "not_started": _not_started,
}


def _because(answer: Answer) -> str:
    return f" because {answer.late_because}" if answer.late_because else ""


def _shown(at: datetime, facts: Facts) -> str:
    return f"{_local(at, facts):%Y-%m-%d %H:%M:%S}{_fraction(at)} {_local(at, facts):%z}"


def _clock(at: datetime, facts: Facts) -> str:
    return f"{_local(at, facts):%H:%M:%S}{_fraction(at)}"


def _local(at: datetime, facts: Facts) -> datetime:
    return at.astimezone(get_zone(facts.zone).info)


def _fraction(at: datetime) -> str:
    return f".{at.microsecond // 1000:03d}" if at.microsecond else ""


def _duration(value: float) -> str:
    return format_seconds(round(value, 3 if value < 60 else 0))
