"""Every byte of a crontab that is not ours stays, and ours are known by their markers alone."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tickwork.errors import CrontabCorrupt, InvalidEntry
from tickwork.system.crontab_text import Owner, Table, check_id, fingerprint, kind_of

LINE = b"30 3 * * 1-5 /usr/bin/true"
BLOCK = (
    b"# >>> tickwork app=billing v1 dir=/srv/my billing >>> managed by tickwork, which notices what is edited here\n"
    b"# tickwork id=report sha=" + fingerprint(LINE) + b"\n" + LINE + b"\n"
    b"# <<< tickwork app=billing <<<\n"
)
BILLING = Owner("billing", "/srv/my billing")
STRANGERS = (
    b'MAILTO="a b"\n\tPATH = /bin  \n# caf\xe9\x85\x0b\x0c\xe2\x80\xa8\r\n\n'
    b"  @daily\tx y \n0 0 * * sat-sun  x\\%y\n*/70 * * * * z\nnonsense\n* * * * *\n"
)
IDS = st.sampled_from(["a", "b", "report", "x.y_z-1", "0"])
PIECES = st.sampled_from([*STRANGERS.split(b"\n"), *BLOCK.split(b"\n"), b"# tickwork id=a sha=000000000000"])
TEXTS = st.binary() | st.lists(st.binary(max_size=8) | PIECES, max_size=12).map(b"\n".join)


def read(content: bytes) -> Table:
    try:
        return Table(content)
    except CrontabCorrupt:
        assume(False)
        raise


@given(TEXTS)
def test_what_is_read_is_rendered_byte_for_byte(content: bytes) -> None:
    assert read(content).render() == content


@given(TEXTS, IDS)
def test_an_entry_that_is_added_and_removed_leaves_every_byte(content: bytes, id: str) -> None:
    table = read(content)
    owner = Owner("another")

    added = table.put(id, LINE, owner)

    assert added.render().endswith(content)
    assert added.get(id, "another") is not None
    assert added.drop(id, "another").render() == content


@given(TEXTS, st.lists(st.tuples(IDS, st.booleans()), max_size=8))
def test_changes_of_one_app_leave_the_lines_of_all_others(content: bytes, steps: list[tuple[str, bool]]) -> None:
    table = read(content)
    wanted = dict.fromkeys(table.ids("ours"))
    for id, is_added in steps:
        if is_added:
            table = table.put(id, LINE + b" " + id.encode(), Owner("ours"))
            wanted[id] = None
        elif id in table.ids("ours"):
            table = table.drop(id, "ours")
            del wanted[id]

    assert table.ids("ours") == list(wanted)
    assert table.render().endswith(content)
    assert all(line.raw == LINE + b" " + str(line.id).encode() for line in table.lines() if line.app == "ours")


def test_an_empty_block_of_another_app_stays() -> None:
    empty = b"# >>> tickwork app=other v1 >>>\n# <<< tickwork app=other <<<\n"

    table = Table(empty).put("a", LINE, Owner("ours"))

    assert table.drop("a", "ours").render() == empty
    assert table.drop_lines([3]).render() == empty


def test_a_block_stands_at_the_top_and_has_this_format() -> None:
    table = Table(STRANGERS).put("report", LINE, BILLING)

    assert table.render() == BLOCK + STRANGERS


def test_a_replaced_entry_keeps_its_place() -> None:
    table = Table(STRANGERS).put("a", LINE).put("b", LINE).put("a", LINE + b" new")

    assert [(line.id, line.raw) for line in table.lines()[:2]] == [("a", LINE + b" new"), ("b", LINE)]


def test_the_jobs_of_strangers_are_listed_as_they_stand() -> None:
    found = Table(BLOCK + STRANGERS).lines()

    assert [(line.line_no, line.id, line.app, line.schedule, line.command) for line in found] == [
        (3, "report", "billing", "30 3 * * 1-5", "/usr/bin/true"),
        (9, None, None, "@daily", "x y "),
        (10, None, None, "0 0 * * sat-sun", "x\\%y"),
        (11, None, None, "*/70 * * * *", "z"),
    ]
    assert not any(line.is_edited for line in found)


def test_bytes_that_are_no_utf_8_are_shown_escaped_and_kept() -> None:
    (line,) = Table(b"* * * * * caf\xe9\n").lines()

    assert (line.command, line.raw) == ("caf\udce9", b"* * * * * caf\xe9")


@pytest.mark.parametrize("edit", [b"0 4 * * 1-5 /usr/bin/true", b"#" + LINE, LINE + b" ", b"", b"MAILTO=x"])
def test_an_edited_line_is_noticed(edit: bytes) -> None:
    found = Table(BLOCK.replace(b"\n" + LINE, b"\n" + edit)).get("report", "billing")

    assert found is not None
    assert (found.is_edited, found.raw) == (True, edit)


def test_a_line_that_is_gone_is_an_edit_and_its_comment_is_all_that_is_dropped() -> None:
    table = Table(BLOCK.replace(b"\n" + LINE, b"") + STRANGERS)
    found = table.get("report", "billing")

    assert found is not None
    assert (found.is_edited, found.raw) == (True, b"")
    assert table.drop("report", "billing").render() == STRANGERS


def test_lines_that_others_have_put_into_a_block_keep_it() -> None:
    table = Table(BLOCK.replace(b"# <<<", b"MAILTO=me\n# <<<"))

    assert b"MAILTO=me" in table.drop("report", "billing").render()


@pytest.mark.parametrize(
    ("content", "line_no", "reason"),
    [
        (BLOCK[: BLOCK.index(b"# <<<")], 1, "a block of tickwork begins here and does not end"),
        (BLOCK[BLOCK.index(b"# <<<") :], 1, "a block of tickwork ends that has not begun"),
        (BLOCK[: BLOCK.index(b"# tick")] + BLOCK, 2, "a block of tickwork begins inside of another"),
        (BLOCK + BLOCK, 5, "a second block of tickwork for the app 'billing'"),
        (BLOCK.replace(b"app=billing <<<", b"app=other <<<"), 4, "a block of tickwork ends that has not begun"),
        (BLOCK.replace(b" v1 ", b" v2 "), 1, "a marker of tickwork that this version cannot read"),
        (BLOCK.replace(b"<<<\n", b"<<<\r\n"), 4, "a marker of tickwork that this version cannot read"),
        (
            BLOCK.replace(LINE, LINE + b"\n# tickwork id=report sha=000000000000\n"),
            4,
            "the id 'report' stands twice in one block",
        ),
    ],
)
def test_markers_that_do_not_balance_are_refused(content: bytes, line_no: int, reason: str) -> None:
    with pytest.raises(CrontabCorrupt) as caught:
        Table(content)

    assert str(caught.value) == (
        f"line {line_no} of the crontab: {reason}; put it right with `crontab -e`, nothing was changed"
    )


@pytest.mark.parametrize("id", ["", "*", "..", "-r", "/f", "A", "a" * 65, "a b", "a\n", "\u00e9", "a/b", None, 3])
def test_what_is_no_id_is_refused(id: object) -> None:
    with pytest.raises(InvalidEntry, match="1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit"):
        check_id(id)


@pytest.mark.parametrize("folder", ["/a\nb", "/a >>> b", "/a\0"])
def test_a_folder_that_would_break_the_marker_is_refused(folder: str) -> None:
    with pytest.raises(InvalidEntry):
        Owner("a", folder)


def test_lines_are_dropped_by_number_and_take_the_comment_of_an_entry_with_them() -> None:
    table = Table(BLOCK + STRANGERS)

    assert table.drop_lines([3, 10]).render() == STRANGERS.replace(b"0 0 * * sat-sun  x\\%y\n", b"")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b" \t", "blank"),
        (b"  # x", "comment"),
        (b"# >>> tickwork anything", "marker"),
        (b"A=b", "variable"),
        (b"'A b' = c", "variable"),
        (b"* * * * * A=b c", "job"),
        (b"@reboot x", "job"),
        (b"* * * *", "unknown"),
    ],
)
def test_lines_are_told_apart_as_cron_does(line: bytes, kind: str) -> None:
    assert kind_of(line) == kind


def test_a_carriage_return_that_debian_has_written_out_is_found() -> None:
    assert Table(b"# a\n* * * * * x\\r\n").hidden_return() == 2
    assert Table(b"# a\\r b\n").hidden_return() is None
