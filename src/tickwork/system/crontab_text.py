"""A crontab as bytes: what stands in which line, which lines are ours, and how one is added or taken away.

    # >>> tickwork app=billing v1 target=billing.jobs:app dir=/srv/billing >>> managed by tickwork
    # tickwork id=report sha=3b1f0c9d2e44
    30 3 * * 1-5 /srv/billing/.venv/bin/python /srv/billing/report.py
    # <<< tickwork app=billing <<<

A block for each app, at the top of the file: the variables that other people set apply to all lines below them, and the
block itself sets none, so that neither side changes the other. An entry is known by its exact id and by nothing else;
`sha` is the beginning of the SHA-256 of its line, and tells a line that somebody has edited. Every byte outside of our
own lines stays as it is: lines end at LF only, and nothing is decoded but to be shown.

Everything here is pure: bytes in, bytes out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from ..errors import CrontabCorrupt, InvalidEntry
from .cron_quote import check_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["ID", "NO_APP", "CronLine", "Owner", "Table", "check_id", "fingerprint"]

ID = r"[a-z0-9][a-z0-9._-]{0,63}"
"""What an id, and an app's, looks like: so that none can be taken for an option, a pattern or a path."""

_BEGIN = re.compile(
    rb"# >>> tickwork(?: app=(%b))? v1(?: target=([^\n]*?))?(?: dir=([^\n]*?))? >>>(?: .*)?" % ID.encode()
)
_END = re.compile(rb"# <<< tickwork(?: app=(%b))? <<<" % ID.encode())
_ENTRY = re.compile(rb"# tickwork id=(%b) sha=([0-9a-f]{12})" % ID.encode())
_OURS = re.compile(rb"[ \t]*#[ \t]*(?:>>>|<<<)[ \t]*tickwork\b")
_VARIABLE = re.compile(rb"[ \t]*(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s=\"']+)[ \t]*=")
_JOB = re.compile(rb"[ \t]*(@[A-Za-z_]+|[^ \t#@][^ \t]*(?:[ \t]+[^ \t]+){4})[ \t]+([^ \t].*)", re.S)

Kind = Literal["blank", "comment", "variable", "job", "marker", "unknown"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose block it is.

    Attributes:
        app: The id of an app; None: entries that were added one by one.
        dir: The folder of the app; "": not told.
        target: What its entries run, such as "billing.jobs:app"; "": not told.
    """

    app: str | None = None
    dir: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        if self.app is not None:
            check_id(self.app, "app")
        for part, text, ends in (("dir", self.dir, (" >>>",)), ("target", self.target, (" >>>", " dir="))):
            check_text(text, part)
            for end in ends:
                if end in text:
                    raise InvalidEntry(part, text, f'it holds "{end}", which ends it in the marker')


NO_APP = Owner()
"""Entries that were added one by one."""


@dataclass(frozen=True, slots=True)
class CronLine:
    """A job in a crontab, whoever wrote it.

    Attributes:
        id: The id of an entry of ours; None: somebody else's.
        app: The app whose block it stands in, if any.
        schedule: The five fields, or a word such as "@daily", as they stand there; "" where an entry of ours has been
            edited to something that is no job.
        command: What follows. Bytes that are no UTF-8 are escaped as `os.fsdecode` does.
        line_no: The number of the line, counted from 1.
        raw: The line, without its LF.
        is_edited: Whether an entry of ours is no longer what was written.
    """

    id: str | None
    app: str | None
    schedule: str
    command: str
    line_no: int
    raw: bytes
    is_edited: bool = False

    @property
    def is_managed(self) -> bool:
        """Whether it is an entry of ours."""
        return self.id is not None


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines `begin` to `end` (both markers included, counted from 0)."""

    owner: Owner
    begin: int
    end: int
    entries: dict[str, int]  # id -> its comment line

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self.begin <= index <= self.end


class Table:
    """The lines of a crontab. A change makes a new one.

    Args:
        content: What `crontab -l` prints.

    Raises:
        CrontabCorrupt: The markers do not balance, or an id stands twice in one block.
    """

    __slots__ = ("_blocks", "_lines")

    def __init__(self, content: bytes = b"") -> None:
        self._lines: tuple[bytes, ...] = tuple(content.split(b"\n"))
        self._blocks: dict[str | None, _Block] = _find_blocks(self._lines)

    def render(self) -> bytes:
        """Return the content: of an unchanged table, byte for byte what it was made of."""
        return b"\n".join(self._lines)

    @property
    def owners(self) -> tuple[Owner, ...]:
        """Whose blocks there are, from the top."""
        return tuple(block.owner for block in self._blocks.values())

    def lines(self) -> list[CronLine]:
        """Return all jobs, from the top: ours, and everybody else's."""
        ours = {block.entries[id] + 1: (id, block) for block in self._blocks.values() for id in block.entries}
        found = []
        for index, raw in enumerate(self._lines):
            if index in ours:
                id, block = ours[index]
                found.append(self._entry(id, block))
            elif kind_of(raw) == "job":
                app = next((block.owner.app for block in self._blocks.values() if index in block), None)
                found.append(CronLine(None, app, *_parts(raw), index + 1, raw))
        return found

    def ids(self, app: str | None = None) -> list[str]:
        """Return the ids in the block of an app."""
        return list(self._blocks[app].entries) if app in self._blocks else []

    def get(self, id: str, app: str | None = None) -> CronLine | None:
        """Return the entry with exactly this id, or None."""
        block = self._blocks.get(app)
        return None if block is None or id not in block.entries else self._entry(id, block)

    def put(self, id: str, line: bytes, owner: Owner = NO_APP) -> Table:
        """Return the table with an entry: in the place of the one with its id, else as the last of its block.

        A block that is not there yet is made at the top of the file. A block whose folder is another gets the new one.
        """
        return self.update({id: line}, (), owner)

    def drop(self, id: str, app: str | None = None) -> Table:
        """Return the table without an entry, and without its block when nothing else stands in it."""
        return self.update({}, (id,), self._blocks[app].owner)

    def update(self, puts: Mapping[str, bytes], drops: Collection[str], owner: Owner) -> Table:
        """Return the table with some entries put, as `put` does, and others dropped, as `drop` does."""
        block = self._blocks.get(owner.app)
        if block is None:
            pairs = [part for id, line in puts.items() for part in _pair(id, line)]
            return _made([_begin(owner), *pairs, _end(owner), *self._lines]) if pairs else self
        owner = Owner(owner.app, owner.dir, owner.target or block.owner.target)
        begin = _begin(owner) if block.owner != owner else self._lines[block.begin]
        inside = list[bytes]()
        index = block.begin + 1
        entries = {comment: id for id, comment in block.entries.items()}
        while index < block.end:
            id = entries.get(index)
            if id is None:
                inside.append(self._lines[index])
                index += 1
                continue
            after = index + 1 + (index + 1 < block.end and index + 1 not in entries)
            if id in puts:
                inside += _pair(id, puts[id])
            elif id not in drops:
                inside += self._lines[index:after]
            index = after
        inside += [part for id, line in puts.items() if id not in block.entries for part in _pair(id, line)]
        whole = [begin, *inside, self._lines[block.end]] if inside else []
        return _made([*self._lines[: block.begin], *whole, *self._lines[block.end + 1 :]])

    def without_block(self, app: str | None) -> Table:
        """Return the table without the markers of a block that holds no entry of ours; what else is in it stays."""
        block = self._blocks.get(app)
        if block is None or block.entries:
            return self
        return _made([line for index, line in enumerate(self._lines) if index not in (block.begin, block.end)])

    def count_others(self, app: str | None) -> int:
        """Return how many lines that are not blank are neither the app's entries nor the markers of its block."""
        block = self._blocks.get(app)
        ours = 0
        if block is not None:
            spans = (self._span(id, block) for id in block.entries)
            ours = 2 + sum(bool(line.strip()) for span in spans for line in self._lines[span])
        return sum(bool(line.strip()) for line in self._lines) - ours

    def drop_lines(self, numbers: Sequence[int]) -> Table:
        """Return the table without some lines (counted from 1); those of entries of ours go with their comments."""
        gone = {number - 1 for number in numbers}
        for block in self._blocks.values():
            gone |= {comment for comment in block.entries.values() if comment + 1 in gone}
            inside = range(block.begin + 1, block.end)
            if inside and gone.issuperset(inside):
                gone |= {block.begin, block.end}
        return _made([line for index, line in enumerate(self._lines) if index not in gone])

    def hidden_return(self) -> int | None:
        r"""Return the number of a line that ends in `\r` written out, or None.

        Debian's `crontab -l` shows a carriage return so. Written back, it would be the two characters.
        """
        return next((index + 1 for index, line in enumerate(self._lines) if line.endswith(rb"\r")), None)

    def _entry(self, id: str, block: _Block) -> CronLine:
        comment = block.entries[id]
        span = self._span(id, block)
        raw = self._lines[comment + 1] if span.stop - span.start == 2 else b""
        entry = _ENTRY.fullmatch(self._lines[comment])
        assert entry is not None
        schedule, command = _parts(raw)
        is_edited = fingerprint(raw) != entry[2]
        return CronLine(id, block.owner.app, schedule, command, comment + 2, raw, is_edited)

    def _span(self, id: str, block: _Block) -> slice:
        """Return where an entry stands: its comment, and the line below unless that has been taken away."""
        comment = block.entries[id]
        below = comment + 1
        has_line = below < block.end and not _ENTRY.fullmatch(self._lines[below])
        return slice(comment, comment + 1 + has_line)


def kind_of(line: bytes) -> Kind:
    """Return what a line is to a cron daemon."""
    text = line.strip(b" \t\r")
    if not text:
        return "blank"
    if text.startswith(b"#"):
        return "marker" if _OURS.match(line) or _ENTRY.fullmatch(line) else "comment"
    if _VARIABLE.match(line):
        return "variable"
    return "job" if _JOB.fullmatch(line) else "unknown"


def fingerprint(line: bytes) -> bytes:
    """Return what tells an edited line: the first 12 hexadecimal digits of its SHA-256."""
    return sha256(line).hexdigest()[:12].encode()


def check_id(id: object, part: str = "id") -> str:
    """Return an id that is one.

    Raises:
        InvalidEntry: It is none.
    """
    if not isinstance(id, str) or not re.fullmatch(ID, id):
        reason = "it must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit"
        raise InvalidEntry(part, id, reason)
    return id


def _made(lines: Sequence[bytes]) -> Table:
    return Table(b"\n".join(lines))


def _pair(id: str, line: bytes) -> list[bytes]:
    return [b"# tickwork id=%b sha=%b" % (id.encode(), fingerprint(line)), line]


def _begin(owner: Owner) -> bytes:
    app = "" if owner.app is None else f" app={owner.app}"
    place = (f" target={owner.target}" if owner.target else "") + (f" dir={owner.dir}" if owner.dir else "")
    return os.fsencode(f"# >>> tickwork{app} v1{place} >>> managed by tickwork, which notices what is edited here")


def _end(owner: Owner) -> bytes:
    return f"# <<< tickwork{'' if owner.app is None else f' app={owner.app}'} <<<".encode()


def _parts(raw: bytes) -> tuple[str, str]:
    if kind_of(raw) != "job" or (job := _JOB.fullmatch(raw)) is None:
        return "", os.fsdecode(raw)
    return os.fsdecode(b" ".join(job[1].split())), os.fsdecode(job[2])


def _find_blocks(lines: Sequence[bytes]) -> dict[str | None, _Block]:
    blocks: dict[str | None, _Block] = {}
    owner: Owner | None = None
    begin, entries = 0, dict[str, int]()
    for index, line in enumerate(lines):
        if _OURS.match(line):
            if start := _BEGIN.fullmatch(line):
                if owner is not None:
                    raise CrontabCorrupt(index + 1, "a block of tickwork begins inside of another")
                owner, begin, entries = _owner(start, index), index, {}
                if owner.app in blocks:
                    raise CrontabCorrupt(index + 1, f"a second block of tickwork for {_shown(owner.app)}")
            elif stop := _END.fullmatch(line):
                if owner is None or owner.app != _text(stop[1]):
                    raise CrontabCorrupt(index + 1, "a block of tickwork ends that has not begun")
                blocks[owner.app] = _Block(owner, begin, index, entries)
                owner = None
            else:
                raise CrontabCorrupt(index + 1, "a marker of tickwork that this version cannot read")
        elif owner is not None and (entry := _ENTRY.fullmatch(line)):
            id = entry[1].decode()
            if id in entries:
                raise CrontabCorrupt(index + 1, f"the id {id!r} stands twice in one block")
            entries[id] = index
    if owner is not None:
        raise CrontabCorrupt(begin + 1, "a block of tickwork begins here and does not end")
    return blocks


def _owner(start: re.Match[bytes], index: int) -> Owner:
    try:
        return Owner(_text(start[1]), os.fsdecode(start[3] or b""), os.fsdecode(start[2] or b""))
    except InvalidEntry as error:
        raise CrontabCorrupt(index + 1, f"a marker of tickwork with a folder that none can have: {error}") from None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _shown(app: str | None) -> str:
    return "entries without an app" if app is None else f"the app {app!r}"
