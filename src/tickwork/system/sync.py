"""What an app should have in a scheduler of the operating system, held against what is there: a plan.

    wanted (the app's schedules) ─┐
                                  ├──► steps: add, change, remove, keep, leave what was edited by hand
    found  (the app's entries)   ─┘

Pure. A plan is made, shown, and carried out elsewhere; whoever carries it out makes it again on what is there then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ForeignEntry, PlanRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .crontab_text import Owner

__all__ = ["Found", "Plan", "Request", "Step", "Want", "make_plan"]

Kind = Literal["add", "change", "remove", "same", "kept", "edited", "foreign", "refused"]
Mode = Literal["sync", "install", "uninstall"]

_SIGNS: dict[Kind, str] = {
    "add": "+",
    "change": "~",
    "remove": "-",
    "same": "=",
    "kept": ".",
    "edited": "!",
    "foreign": "!",
    "refused": "x",
}


@dataclass(frozen=True, slots=True)
class Want:
    """An entry as the scheduler is to have it.

    Attributes:
        id: What it is called.
        schedule: When it starts, in the scheduler's own words, or the trigger where it cannot be said.
        about: Whose schedule or task it is, where the id does not tell.
        token: What is equal exactly when two entries are.
        payload: What the scheduler is given.
        refused: Why it cannot be said, or "".
        is_unwritable: Whether that is no matter of the schedule, but of a path or a name in what it runs, or of a zone
            that is not known: an entry that is there is left.
    """

    id: str
    schedule: str
    about: str
    token: object
    payload: Any = None
    refused: str = ""
    is_unwritable: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of the app that the scheduler has.

    Attributes:
        id: What it is called.
        schedule: When it starts, in the scheduler's own words.
        token: As of a `Want`.
        is_edited: Whether somebody has changed it by hand.
        is_ours: Whether tickwork made it.
        note: What else is to be said, such as "switched off".
    """

    id: str
    schedule: str
    token: object
    is_edited: bool = False
    is_ours: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one entry.

    Attributes:
        kind: "add"; "change"; "remove"; "same", it stays as it is; "kept", the app no longer has it and it is left;
            "edited", somebody has edited it and it is left; "foreign", somebody else has one of this name; "refused",
            the scheduler cannot say it.
        id: What it is called.
        schedule: When it starts, or is to.
        was: When it has started so far, where that changes; else None.
        about: Whose schedule or task it is, where the id does not tell.
        reason: What else is to be said.
    """

    kind: Kind
    id: str
    schedule: str
    was: str | None = None
    about: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """Return it as a line: `~ sync  0 * * * * -> */30 * * * *`."""
        return self.line()

    def line(self, width: int = 0) -> str:
        """Return it as a line, with the id in so many columns."""
        when = self.schedule if self.was is None else f"{self.was} -> {self.schedule}"
        reason = f"refused: {self.reason}" if self.kind == "refused" else f"({self.reason})" if self.reason else ""
        return "  ".join(part for part in (f"{_SIGNS[self.kind]} {self.id:{width}}", when, self.about, reason) if part)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        owner: The app.
        wants: Its entries, as they should be.
        mode: "sync"; "install", which removes nothing; "uninstall", which removes everything.
        force: Whether what was edited by hand, or is another folder's, is changed and removed, too.
        skip_unsupported: Whether what cannot be said is left out; else it stops everything.
        logs: The folder of their logs; None: they have none.
    """

    owner: Owner
    wants: tuple[Want, ...] = ()
    mode: Mode = "sync"
    force: bool = False
    skip_unsupported: bool = False
    logs: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done to a scheduler of the operating system; `print(plan)` shows it.

    Attributes:
        where: Which scheduler: "the crontab of alice".
        request: What was asked for.
        steps: What becomes of each entry of the app.
        others: How many lines, or tasks, of others stay as they are.
        noun: What those are called.
        foreign: Who else has entries under this app id; "": nobody.
    """

    where: str
    request: Request
    steps: tuple[Step, ...]
    others: int
    noun: str
    foreign: str = ""

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(step for step in self.steps if step.kind in ("add", "change", "remove"))

    @property
    def is_equal(self) -> bool:
        """Whether the scheduler has what the app says, and nothing is left to do or to look at."""
        fine = ("same", "kept", "refused") if self.request.skip_unsupported else ("same", "kept")
        return not self.foreign and all(step.kind in fine for step in self.steps)

    @property
    def is_left(self) -> bool:
        """Whether something is left as it is that should be otherwise, because somebody else has a say in it."""
        return any(step.kind in ("edited", "foreign") for step in self.steps)

    @property
    def counts(self) -> dict[str, int]:
        """How many steps there are of each kind."""
        counts = dict.fromkeys(_SIGNS, 0)
        for step in self.steps:
            counts[step.kind] += 1
        return {str(kind): count for kind, count in counts.items()}

    @property
    def summary(self) -> str:
        """What comes to what, in a line."""
        counts = self.counts
        said = [
            f"{counts['add']} to add",
            f"{counts['change']} to change",
            f"{counts['remove']} to remove",
            f"{counts['same']} unchanged",
        ]
        rare = {
            "kept": "no longer in the app",
            "edited": "edited by hand",
            "foreign": "of others",
            "refused": "refused",
        }
        said += [f"{counts[kind]} {word}" for kind, word in rare.items() if counts[kind]]
        noun = self.noun[:-1] if self.others == 1 else self.noun
        return ", ".join([*said, f"{self.others} other {noun} untouched"])

    def check(self) -> None:
        """Refuse a plan that must not be carried out.

        Raises:
            ForeignEntry: The entries are those of another app or folder, and it is not forced.
            PlanRefused: Schedules cannot be said, and they are not to be skipped.
        """
        app = self.request.owner.app or ""
        if self.foreign and not self.request.force:
            remedy = "give one of them another app id (--app-id), or pass force=True (--force) where the app has moved"
            raise ForeignEntry(app, self.foreign, remedy)
        refused = {step.id: step.reason for step in self.steps if step.kind == "refused"}
        if refused and not self.request.skip_unsupported:
            raise PlanRefused(self.where, refused)

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON takes it: a stable form, for programs."""
        owner = self.request.owner
        return {
            "where": self.where,
            "app": owner.app,
            "target": owner.target,
            "dir": owner.dir,
            "equal": self.is_equal,
            "foreign": self.foreign or None,
            "steps": [
                {
                    "step": step.kind,
                    "id": step.id,
                    "schedule": step.schedule,
                    "was": step.was,
                    "about": step.about or None,
                    "reason": step.reason or None,
                }
                for step in self.steps
            ],
            "counts": self.counts,
            "others": self.others,
        }

    def lines(self) -> list[str]:
        """Return it as lines, in columns; what stays as it is only counts."""
        shown = [step for step in self.steps if step.kind != "same" or step.reason]
        width = max((len(step.id) for step in shown), default=0)
        foreign = [f"! {self.request.owner.app}  {self.foreign}"] if self.foreign else []
        return [*foreign, *(step.line(width) for step in shown), self.summary]

    def __str__(self) -> str:
        """Return it as a text, with the summary as its last line."""
        return "\n".join(self.lines())


def make_plan(
    request: Request, found: Sequence[Found], *, where: str, owners: Iterable[Owner], others: int, noun: str
) -> Plan:
    """Return what is to be done.

    Args:
        request: What is asked for.
        found: The entries of the app, as they are.
        where: Which scheduler it is.
        owners: What is written beside the entries of this app id.
        others: How many lines, or tasks, are not the app's.
        noun: What those are called.
    """
    there = {entry.id: entry for entry in found}
    sayable = [want for want in request.wants if not want.refused]
    refused = {want.id: want for want in request.wants if want.refused}
    steps = [_for_wanted(want, there.get(want.id), request) for want in sayable]
    steps += [Step("refused", want.id, want.schedule, None, want.about, want.refused) for want in refused.values()]
    named = {want.id for want in sayable}
    steps += [
        step for entry in found if entry.id not in named and (step := _for_rest(entry, request, refused)) is not None
    ]
    return Plan(where, request, tuple(steps), others, noun, _foreign(request.owner, owners))


def _for_wanted(want: Want, entry: Found | None, request: Request) -> Step:
    if entry is None:
        return Step("add", want.id, want.schedule, None, want.about)
    if not entry.is_ours:
        return Step("foreign", want.id, entry.schedule, None, want.about, entry.note)
    was = None if entry.schedule == want.schedule else entry.schedule
    if entry.is_edited and entry.token != want.token and not request.force:
        return Step("edited", want.id, entry.schedule, None, want.about, "edited by hand")
    if entry.is_edited:
        return Step("change", want.id, want.schedule, was, want.about, "edited by hand")
    if entry.token == want.token:
        return Step("same", want.id, want.schedule, None, want.about, entry.note)
    return Step("change", want.id, want.schedule, was, want.about, "" if was is not None else "what it runs")


def _for_rest(entry: Found, request: Request, refused: dict[str, Want]) -> Step | None:
    """Return what becomes of an entry that is not to be, or None for what is nobody's business here."""
    if not entry.is_ours:
        return None
    why = "of a schedule that cannot be said any more" if entry.id in refused else "no longer in the app"
    is_unwritable = entry.id in refused and refused[entry.id].is_unwritable
    if is_unwritable:
        why = "left as it was made"
    if request.mode == "install" or is_unwritable:
        return Step("kept", entry.id, entry.schedule, None, "", why)
    if entry.is_edited and not request.force:
        return Step("edited", entry.id, entry.schedule, None, "", "edited by hand")
    return Step("remove", entry.id, entry.schedule, None, "", "" if request.mode == "uninstall" else why)


def _foreign(owner: Owner, owners: Iterable[Owner]) -> str:
    """Return who else has entries under this app id; what is not told on either side is no difference."""
    for other in owners:
        if owner.dir and other.dir and owner.dir != other.dir:
            return f"is an app in {other.dir!r} there, and this one is in {owner.dir!r}"
        if owner.target and other.target and owner.target != other.target:
            return f"is {other.target!r} there, and this one is {owner.target!r}"
    return ""
