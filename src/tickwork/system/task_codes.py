"""Exit statuses of `schtasks /hresult` as errors: numbers, because its texts are in the language of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import EntryExists, EntryNotFound, InvalidEntry, SchedulerCommandFailed, SchedulerDenied
from .task_reading import decode

if TYPE_CHECKING:
    from ..errors import SystemSchedulerError
    from .command import Completed

__all__ = ["failure", "is_missing"]

_MISSING: Final = (0x80070002, 0x80070003)  # no such task, no such folder
# Access is denied; elevation is required; a privilege is not held; this kind of logon has not been granted.
_DENIED: Final = (0x80070005, 0x800702E4, 0x80070522, 0x80070569)
_EXISTS: Final = 0x800700B7
_MALFORMED: Final = {
    0x80041316: "an element that it does not expect",
    0x80041317: "an element of another namespace",
    0x80041318: "a value out of range",
    0x80041319: "an element that is missing",
    0x8004131A: "malformed XML",
    0x8004131D: "too many elements",
}
_RIGHTS: Final = 'run as administrator; a task of one\'s own with logon="interactive" needs no more rights'
_SERVICE: Final = "the service of Task Scheduler does not run; start it: sc start Schedule"
_NOTES: Final = {
    **dict.fromkeys((0x80041315, 0x80070422, 0x80070426, 0x800706BA), _SERVICE),
    0x80041326: "the task is switched off; switch it on in Task Scheduler",
}


def normal(returncode: int) -> int:
    """Return an exit status as an HRESULT.

    Some shells pass on its low part alone. An error of Windows itself is known by that part; 1 is what `schtasks` says
    of any failure when it is not asked for the HRESULT.
    """
    code = returncode & 0xFFFFFFFF
    return 0x80070000 | code if 1 < code < 0x10000 else code


def is_missing(completed: Completed) -> bool:
    """Return whether a program failed because there is no such task."""
    return normal(completed.returncode) in _MISSING


def failure(completed: Completed, action: str, name: str, *, where: str, codec: str) -> SystemSchedulerError:
    """Return the error for a `schtasks` that has failed.

    Args:
        completed: What it left.
        action: What it was to do, for messages: "to create a task".
        name: The name of the task.
        where: The folder.
        codec: The code page of its texts, which are shown and never judged by.
    """
    code = normal(completed.returncode)
    said = decode(completed.stderr.strip() or completed.stdout.strip(), codec).strip()
    if code in _MISSING:
        return EntryNotFound(name, [], where)
    if code == _EXISTS:
        return EntryExists(name, where)
    if code in _DENIED:
        return SchedulerDenied(action, said or "access is denied", _RIGHTS)
    if code in _MALFORMED:
        return InvalidEntry("definition", name, f"Task Scheduler finds {_MALFORMED[code]}: {said or 'it says no more'}")
    note = ": ".join(part for part in (_NOTES.get(code), said) if part)
    return SchedulerCommandFailed(completed.argv, completed.returncode, completed.stdout, completed.stderr, note=note)
