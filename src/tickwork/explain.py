"""Why something ran, or did not: one answer from the ledger, as a sentence.

Pure: who asks has read the ledger, the schedule's row and the jobs that matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .durations import format_about
from .errors import InvalidInstant
from .jobs import JobState
from .payloads import ErrorInfo
from .policies import PROMPT_SECONDS
from .records import record
from .triggers import newest, read_instant
from .zones import end_of_gap, get_zone, resolve_wall

if TYPE_CHECKING:
    from .jobs import JobRecord
    from .policies import Policies
    from .stores.base import Answer, ScheduleRow
    from .triggers import Trigger

_MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
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


@record
class Facts:
    """What is known about a fire time and its schedule.

    Attributes:
        name: The schedule's name.
        trigger: When it fires, within its bounds.
        policies: How it treats its fire times.
        row: Where the store says it stands; None: the store has not heard of it.
        answers: The rows of the ledger that cover the time asked for, the newest first.
        jobs: The jobs of those rows, and those in their way, that the store still has, by id.
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
            "when", 'a time such as "03:00", "2026-03-29T03:00" or "2026-03-29T03:00+02:00"', text
        ) from None
    if moment.tzinfo is not None:
        return read_instant(moment, "when"), ""
    try:
        found = resolve_wall(moment, zone)
    except InvalidInstant as error:
        return end_of_gap(moment, zone), f"{moment} never was: {str(error).rpartition('; ')[2]}. "
    here = found.astimezone(get_zone(zone).info)
    if here.utcoffset() != here.replace(fold=1).utcoffset():
        return found, f"{moment} came twice; this is the first time, {here:%z}. "
    return found, ""


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
    return found if found is not None and found < asked + MINUTE else asked


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
        return _to_come(at, row, facts)
    if at <= row.declared_at:
        since = _shown(row.declared_at, facts)
        if facts.is_durable:
            return f"did not run: the schedule was declared with this trigger at {since}"
        return f"not known: the schedule began at {since}, and is kept in memory"
    if at > row.watermark:
        if _is_over(row, facts):
            return f"did not run: the schedule was finished ({facts.policies.said('max_runs')})"
        return f"is not answered yet: it was due {format_about((facts.now - at).total_seconds())} ago"
    return "is no longer in the ledger: its retention has passed"


def _to_come(at: datetime, row: ScheduleRow, facts: Facts) -> str:
    if _is_over(row, facts):
        return f"will not run: the schedule is finished ({facts.policies.said('max_runs')})"
    paused = "; the schedule is paused, so it will not run unless somebody resumes it" if row.paused else ""
    return f"still to come, in {format_about((at - facts.now).total_seconds())}{paused}"


def _after_end(at: datetime, row: ScheduleRow, facts: Facts) -> str:
    if at == row.next_at and at > facts.now:
        return _to_come(at, row, facts)
    rule = f"{format_about(row.after_seconds or 0.0)} after the end of the last job"
    if _is_over(row, facts):
        return f"no fire time; the schedule is finished ({facts.policies.said('max_runs')})"
    if row.next_at is None:
        return f"no fire time; the next one comes {rule}, which is not finished"
    return f"no fire time; the next one is {_shown(row.next_at, facts)}; each comes {rule}"


def _is_over(row: ScheduleRow, facts: Facts) -> bool:
    return facts.policies.max_runs is not None and row.runs >= facts.policies.max_runs


def _neighbours(at: datetime, facts: Facts) -> str:
    before = newest(facts.trigger, at - _LOOK_BACK, at, 1)
    following = facts.trigger.next(at)
    told = [f"before it at {_shown(before[0], facts)}"] if before else []
    told += [f"after it at {_shown(following, facts)}"] if following is not None else []
    return " and ".join(told) or "neither before nor after it"


# -- what the ledger says -------------------------------------------------------------------------------------------


def _ran(answer: Answer, at: datetime, facts: Facts) -> str:
    job = facts.jobs.get(answer.job_id or "")
    started = answer.started_at or (job.started_at if job else None)
    told = [f"{'waits' if started is None and answer.finished_at is None else 'ran'} as job {answer.job_id}"]
    noticed = (answer.answered_at - at).total_seconds()
    if noticed > PROMPT_SECONDS:
        told.append(f"noticed {format_about(noticed)} late{_because(answer)}")
    wanted = answer.wanted_at or at
    if wanted > at:
        told.append(f"put off by {format_about((wanted - at).total_seconds())} by its jitter")
    if started is not None:
        late = (started - wanted).total_seconds()
        if late > PROMPT_SECONDS and noticed <= PROMPT_SECONDS:
            told.append(f"started at {_clock(started, facts)}, {format_about(late)} late{_because(answer)}")
        else:
            told.append(f"started at {_clock(started, facts)}")
    return ", ".join(told) + _end(answer, started, job, facts)


def _end(answer: Answer, started: datetime | None, job: JobRecord | None, facts: Facts) -> str:
    if answer.finished_at is None:
        if started is not None:
            return f"; it is running, for {format_about((facts.now - started).total_seconds())} now"
        if job is not None and job.state is JobState.SCHEDULED:
            return f"; it is to begin at {_clock(job.run_at, facts)}"
        return "; it has not begun" + ("" if job is None else f": it {_WAITS.get(job.state, f'is {job.state}')}")
    took = "" if started is None else f" after {format_about((answer.finished_at - started).total_seconds())}"
    is_passive = answer.state in (JobState.CANCELLED, JobState.PARKED)
    error = ""
    if job is not None and job.error is not None and answer.state is not JobState.CANCELLED:
        error = f": {ErrorInfo.from_json(job.error).headline}"
    return f"; it {'was ' if is_passive else ''}{answer.state} at {_clock(answer.finished_at, facts)}{took}{error}"


_WAITS = {
    JobState.QUEUED: "is in the queue",
    JobState.RUNNING: "is claimed, and waits for a free worker",
}


def _skipped(answer: Answer, at: datetime, facts: Facts) -> str:
    return f"skipped: job {answer.blocked_by}{_span(answer, facts)} was not finished; {answer.decided_by} decided"


def _merged(answer: Answer, at: datetime, facts: Facts) -> str:
    return (
        f"merged into job {answer.blocked_by}{_span(answer, facts)} which waited its turn; {answer.decided_by} decided"
    )


def _span(answer: Answer, facts: Facts) -> str:
    """Return what is known of the job in the way, between commas: when it was due, how long it has run."""
    job, row = facts.jobs.get(answer.blocked_by or ""), facts.blockers.get(answer.blocked_by or "")
    told = []
    if row is not None:
        told.append(f"due at {_clock(row.first, facts)}")
    elif job is not None:
        told.append("made by hand")
    started = (row.started_at if row is not None else None) or (job.started_at if job is not None else None)
    finished = (row.finished_at if row is not None else None) or (job.finished_at if job is not None else None)
    if started is not None and started > answer.answered_at:
        pass  # it waited, too; when it ran later is not what decided
    elif started is not None and finished is not None:
        took = format_about((finished - started).total_seconds())
        told.append(f"run from {_clock(started, facts)} to {_clock(finished, facts)} ({took})")
    elif started is not None:
        told.append(f"running since {_clock(started, facts)}")
    return f", {' and '.join(told)}," if told else " of the schedule"


def _missed(answer: Answer, at: datetime, facts: Facts) -> str:
    if answer.job_id is not None:
        given_up = answer.finished_at or answer.answered_at
        late = format_about((given_up - (answer.wanted_at or at)).total_seconds())
        until = f"until {_clock(given_up, facts)}, {late} late"
        return f"missed: its job {answer.job_id} could not begin {until}; {answer.decided_by} decided"
    if answer.count == 1:
        late = format_about((answer.answered_at - at).total_seconds())
        return f"missed: noticed {late} late{_because(answer)}; {answer.decided_by} decided"
    # Several may have been noticed one after the other: the row keeps when the last of them was.
    several = f"one of {answer.count or 'many'} from {_shown(answer.first, facts)} to {_shown(answer.last, facts)}"
    noticed = f"noticed at {_clock(answer.answered_at, facts)} at the latest"
    return f"missed: {several}, {noticed}{_because(answer)}; {answer.decided_by} decided"


def _paused(answer: Answer, at: datetime, facts: Facts) -> str:
    return "did not run: the schedule was paused"


def _not_started(answer: Answer, at: datetime, facts: Facts) -> str:
    when = "" if answer.finished_at is None else f" at {_clock(answer.finished_at, facts)},"
    return f"did not run: its job {answer.job_id} was cancelled{when} before it began"


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
    here = _local(at, facts)
    return f"{here:%Y-%m-%d %H:%M:%S}{_fraction(here)} {here:%z}"


def _clock(at: datetime, facts: Facts) -> str:
    here = _local(at, facts)
    return f"{here:%H:%M:%S}{_fraction(here)}"


def _local(at: datetime, facts: Facts) -> datetime:
    """Return an instant as the zone shows it, rounded to milliseconds as durations are."""
    at += timedelta(microseconds=500)
    return at.replace(microsecond=at.microsecond // 1000 * 1000).astimezone(get_zone(facts.zone).info)


def _fraction(at: datetime) -> str:
    return f".{at.microsecond // 1000:03d}" if at.microsecond else ""
