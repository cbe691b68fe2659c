"""Plans: what an app should have, held against what is there; and a crontab before and after one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import App, Cron
from tickwork.errors import CrontabCorrupt, ForeignEntry, PlanRefused
from tickwork.system import Owner
from tickwork.system.app_entries import wanted_entries
from tickwork.system.cron_sync import change_table, look, render
from tickwork.system.crontab_text import Table
from tickwork.system.sync import Found, Mode, Plan, Request, Step, Want, make_plan

OWNER = Owner("billing", "/srv/billing", "billing.jobs:app")
STRANGER = b"# mine\nA=b\n0 0 * * * true \xff\n"


def want(id: str, schedule: str = "0 4 * * *", *, token: str = "", about: str = "", refused: str = "") -> Want:
    return Want(id, schedule, about, token or schedule, token or schedule, refused)


def plan(
    wants: list[Want],
    found: list[Found],
    *,
    mode: Mode = "sync",
    force: bool = False,
    skip_unsupported: bool = False,
    owner: Owner = OWNER,
    others: int = 5,
) -> Plan:
    request = Request(OWNER, tuple(wants), mode, force, skip_unsupported)
    return make_plan(request, found, where="the crontab of alice", owners=[owner], others=others, noun="lines")


# --- what it looks like --------------------------------------------------------------------------------------------


def test_a_plan_is_shown_with_a_sign_for_each_entry_and_a_summary() -> None:
    made = plan(
        [
            want("report", "30 3 * * 1-5", about="billing.jobs.report"),
            want("sync", "*/30 * * * *"),
            want("same", "0 5 * * *"),
            want("where", "0 6 * * *", token="new command"),
            want("mail", "0 7 * * *"),
            want("tick", "Every('1m30s')", refused="cron starts jobs on whole minutes only"),
        ],
        [
            Found("sync", "0 * * * *", "0 * * * *"),
            Found("same", "0 5 * * *", "0 5 * * *"),
            Found("where", "0 6 * * *", "old command"),
            Found("mail", "0 9 * * *", "0 9 * * *", is_edited=True),
            Found("old", "0 4 * * *", "0 4 * * *"),
        ],
    )

    assert str(made) == (
        "+ report  30 3 * * 1-5  billing.jobs.report\n"
        "~ sync    0 * * * * -> */30 * * * *\n"
        "~ where   0 6 * * *  (what it runs)\n"
        "! mail    0 9 * * *  (edited by hand)\n"
        "x tick    Every('1m30s')  refused: cron starts jobs on whole minutes only\n"
        "- old     0 4 * * *  (no longer in the app)\n"
        "1 to add, 2 to change, 1 to remove, 1 unchanged, 1 edited by hand, 1 refused, 5 other lines untouched"
    )
    assert not made.is_equal
    assert made.is_left


def test_a_plan_for_nothing_is_its_summary() -> None:
    made = plan([], [], others=1)

    assert str(made) == "0 to add, 0 to change, 0 to remove, 0 unchanged, 1 other line untouched"
    assert made.is_equal
    assert made.changes == ()


def test_a_step_by_itself_is_a_line() -> None:
    assert str(Step("add", "x", "0 4 * * *")) == "+ x  0 4 * * *"


def test_a_plan_is_data_for_programs() -> None:
    made = plan([want("a"), want("b", refused="no")], [Found("a", "0 5 * * *", "0 5 * * *")])

    assert made.as_data() == {
        "where": "the crontab of alice",
        "app": "billing",
        "target": "billing.jobs:app",
        "dir": "/srv/billing",
        "equal": False,
        "foreign": None,
        "steps": [
            {"step": "change", "id": "a", "schedule": "0 4 * * *", "was": "0 5 * * *", "about": None, "reason": None},
            {"step": "refused", "id": "b", "schedule": "0 4 * * *", "was": None, "about": None, "reason": "no"},
        ],
        "counts": {
            "add": 0,
            "change": 1,
            "remove": 0,
            "same": 0,
            "kept": 0,
            "edited": 0,
            "foreign": 0,
            "refused": 1,
        },
        "others": 5,
    }


# --- what is done --------------------------------------------------------------------------------------------------


def kinds(made: Plan) -> dict[str, str]:
    return {step.id: step.kind for step in made.steps}


def test_install_removes_nothing_and_says_what_it_leaves() -> None:
    made = plan([], [Found("old", "0 4 * * *", "t")], mode="install")

    assert made.lines()[0] == ". old  0 4 * * *  (no longer in the app)"
    assert made.changes == ()
    assert made.is_equal


def test_uninstall_removes_everything_of_the_app() -> None:
    made = plan([], [Found("a", "0 4 * * *", "t"), Found("b", "0 4 * * *", "t", is_edited=True)], mode="uninstall")

    assert kinds(made) == {"a": "remove", "b": "edited"}
    assert made.lines()[0] == "- a  0 4 * * *"


def test_force_changes_and_removes_what_was_edited() -> None:
    edited = [Found("a", "1 4 * * *", "t", is_edited=True), Found("b", "0 4 * * *", "t", is_edited=True)]
    made = plan([want("a")], edited, force=True)

    assert made.lines()[:2] == [
        "~ a  1 4 * * * -> 0 4 * * *  (edited by hand)",
        "- b  0 4 * * *  (no longer in the app)",
    ]


def test_an_edit_that_came_before_the_app_is_taken_over() -> None:
    made = plan([want("a")], [Found("a", "0 4 * * *", "0 4 * * *", is_edited=True)])

    assert kinds(made) == {"a": "change"}


def test_what_has_become_unsayable_is_refused_and_its_old_entry_removed() -> None:
    made = plan([want("a", refused="no")], [Found("a", "0 4 * * *", "t")], skip_unsupported=True)

    assert made.lines()[:2] == [
        "x a  0 4 * * *  refused: no",
        "- a  0 4 * * *  (of a schedule that cannot be said any more)",
    ]


def test_an_entry_whose_new_line_cannot_be_written_is_left_as_it_was_made() -> None:
    unwritable = Want("a", "0 4 * * *", "", None, None, "too long", is_unwritable=True)
    made = plan([unwritable], [Found("a", "0 4 * * *", "t")], skip_unsupported=True)

    assert made.lines()[:2] == ["x a  0 4 * * *  refused: too long", ". a  0 4 * * *  (left as it was made)"]
    assert made.changes == ()


def test_what_somebody_else_has_made_under_the_name_is_left_even_when_forced() -> None:
    foreign = Found("a", "daily 04:00", "t", is_ours=False, note="not made by tickwork")
    made = plan([want("a")], [foreign, Found("b", "?", "t", is_ours=False)], force=True)

    assert made.lines()[0] == "! a  daily 04:00  (not made by tickwork)"
    assert made.is_left
    assert len(made.steps) == 1


def test_a_plan_with_refusals_is_carried_out_only_when_they_are_skipped() -> None:
    wants = [want("a")] + [want(f"x{number}", refused=f"reason {number}") for number in range(5)]

    with pytest.raises(PlanRefused) as caught:
        plan(wants, []).check()
    skipped = plan(wants, [], skip_unsupported=True)
    skipped.check()

    assert str(caught.value) == (
        "the crontab of alice cannot have all of them, and nothing was changed: x0 (reason 0); x1 (reason 1); x2"
        " (reason 2); 2 more; leave them out with skip_unsupported=True (--skip-unsupported), and let the app run them"
    )
    assert list(caught.value.refused) == ["x0", "x1", "x2", "x3", "x4"]
    assert kinds(skipped)["a"] == "add"


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        (
            Owner("billing", "/srv/other", "billing.jobs:app"),
            "is an app in '/srv/other' there, and this one is in '/srv/billing'",
        ),
        (
            Owner("billing", "/srv/billing", "jobs:app"),
            "is 'jobs:app' there, and this one is 'billing.jobs:app'",
        ),
    ],
)
def test_another_app_under_the_same_id_is_told_and_refused(owner: Owner, reason: str) -> None:
    made = plan([want("a")], [Found("a", "0 4 * * *", "0 4 * * *")], owner=owner)

    assert made.lines()[0] == f"! billing  {reason}"
    assert not made.is_equal
    with pytest.raises(ForeignEntry) as caught:
        made.check()
    assert str(caught.value) == (
        f"entry 'billing' {reason}; give one of them another app id (--app-id), or pass force=True (--force) where the"
        " app has moved"
    )
    plan([want("a")], [], owner=owner, force=True).check()


def test_an_owner_that_is_not_told_is_no_other_one() -> None:
    assert plan([want("a")], [], owner=Owner("billing")).foreign == ""


# --- on a crontab --------------------------------------------------------------------------------------------------


def planned(table: Table, app: App, mode: Mode = "sync", *, force: bool = False) -> Plan:
    wanted = wanted_entries(app, OWNER.target, dir=OWNER.dir, log=None, python="/venv/bin/python")
    wants = tuple(render(wanted, "UTC"))
    seen = look(table, "billing")
    request = Request(OWNER, () if mode == "uninstall" else wants, mode, force, skip_unsupported=True)
    return make_plan(request, seen.found, where="there", owners=seen.owners, others=seen.others, noun="lines")


def app_of(schedules: dict[str, str]) -> App:
    app = App()

    def job() -> None: ...

    for name, expression in schedules.items():
        app.task(name=f"task.{name}")(job)
        app.schedule(Cron(expression), name=name)(app.tasks[f"task.{name}"])
    return app


def raw_lines(table: Table, ids: set[str]) -> dict[str, bytes]:
    return {line.id: line.raw for line in table.lines() if line.id in ids and line.app == "billing"}


names = st.sampled_from(["a", "b", "c.d", "Upper", "with space", "\u00fcml", "a" * 70, "con", "x.", "%d", "-dash", "1"])
expressions = st.sampled_from(["0 4 * * *", "*/5 * * * *", "0 0 13 * 5", "0 0 * * 1#2", "0 0 L * *", "@hourly"])
apps = st.dictionaries(names, expressions, max_size=6)
lines = st.sampled_from(
    [
        *(b"", b"# mine", b"A=b", b"0 0 * * * true", b"\xff\xfe", b" \t", b"@daily x", b"# tickwork id=a sha=0"),
        b"0 0 * * * /x tickwork trigger",
    ]
)
strangers = st.lists(lines, max_size=5).map(lambda found: b"".join(line + b"\n" for line in found))


@given(first=apps, second=apps, content=strangers, rest=strangers)
def test_a_plan_carried_out_leaves_nothing_to_do_and_no_byte_of_others_changed(
    first: dict[str, str], second: dict[str, str], content: bytes, rest: bytes
) -> None:
    table = Table(content)
    before = table.put("other", b"0 0 * * * true", Owner("other", "/x")) if rest else table

    for schedules in (first, second):
        app = app_of(schedules)
        made = planned(before, app)
        after = change_table(before, made)
        again = planned(after, app)
        assert again.changes == ()
        assert change_table(after, again).render() == after.render()
        assert again.others == made.others
        assert after.render().endswith(content)
        assert set(after.ids("billing")) == {step.id for step in again.steps if step.kind == "same"}
        assert after.ids("other") == before.ids("other")
        before = after

    gone = change_table(before, planned(before, app, "uninstall"))
    assert gone.render() == (table.put("other", b"0 0 * * * true", Owner("other", "/x")) if rest else table).render()


@given(first=apps, second=apps, edits=st.sets(st.integers(0, 5)))
def test_install_removes_no_id_and_nothing_that_was_edited_is_changed(
    first: dict[str, str], second: dict[str, str], edits: set[int]
) -> None:
    table = Table(STRANGER)
    table = change_table(table, planned(table, app_of(first)))
    there = table.ids("billing")
    edited = {id for number, id in enumerate(there) if number in edits}
    content = table.render()
    for id in edited:
        entry = table.get(id, "billing")
        assert entry is not None
        content = content.replace(entry.raw + b"\n", entry.raw + b" # edited\n")
    table = Table(content)
    raws = raw_lines(table, edited)

    installed = change_table(table, planned(table, app_of(second), "install"))
    synced = change_table(installed, planned(installed, app_of(second)))
    gone = change_table(synced, planned(synced, app_of({}), "uninstall"))

    assert set(installed.ids("billing")) >= set(there)
    for after in (installed, synced, gone):
        assert raw_lines(after, edited) == raws
    assert change_table(gone, planned(gone, app_of({}), "uninstall", force=True)).render() == STRANGER


def test_what_others_wrote_into_the_block_outlives_it() -> None:
    table = change_table(Table(STRANGER), planned(Table(STRANGER), app_of({"a": "0 4 * * *"})))
    table = Table(table.render().replace(b"# tickwork id=a", b"# a note of somebody\n# tickwork id=a"))

    gone = change_table(table, planned(table, app_of({}), "uninstall"))

    assert gone.render() == b"# a note of somebody\n" + STRANGER


def test_an_entry_whose_line_was_taken_away_is_edited() -> None:
    table = change_table(Table(STRANGER), planned(Table(STRANGER), app_of({"a": "0 4 * * *", "b": "0 5 * * *"})))
    entry = table.get("a", "billing")
    assert entry is not None
    table = Table(table.render().replace(entry.raw + b"\n", b""))

    assert kinds(planned(table, app_of({"a": "0 4 * * *", "b": "0 5 * * *"}))) == {"a": "edited", "b": "same"}
    forced = change_table(table, planned(table, app_of({"a": "0 4 * * *", "b": "0 5 * * *"}), force=True))
    assert forced.get("a", "billing") is not None
    assert kinds(planned(forced, app_of({"a": "0 4 * * *", "b": "0 5 * * *"}))) == {"a": "same", "b": "same"}


def test_markers_that_do_not_balance_are_no_plan() -> None:
    with pytest.raises(CrontabCorrupt):
        planned(Table(b"# >>> tickwork app=billing v1 >>>\n"), app_of({}))


def test_the_marker_tells_folder_and_target_and_an_older_one_is_read() -> None:
    made = change_table(Table(), planned(Table(), app_of({"a": "0 4 * * *"})))

    assert made.owners == (OWNER,)
    assert made.render().splitlines()[0] == (
        b"# >>> tickwork app=billing v1 target=billing.jobs:app dir=/srv/billing >>> managed by tickwork, which notices"
        b" what is edited here"
    )
    older = Table(made.render().replace(b" target=billing.jobs:app", b""))
    assert older.owners == (Owner("billing", "/srv/billing"),)
    assert planned(older, app_of({"a": "0 4 * * *"})).is_equal


def test_five_hundred_schedules_are_planned_and_put_in_one_go() -> None:
    app = app_of({f"s{number:03}": f"{number % 60} {number // 60} * * *" for number in range(500)})
    table = Table(STRANGER)

    after = change_table(table, planned(table, app))

    assert len(after.ids("billing")) == 500
    assert planned(after, app).counts["same"] == 500
