"""Keys, limits and rates of tasks: what is refused, and what becomes of jobs in an app, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from tickwork import App, Context, Limit, Rate, Secret, task
from tickwork.errors import InvalidOption, InvalidPayload, WrongState
from tickwork.limits import Labels
from tickwork.testing import virtual_loop_factory

ON_VIRTUAL_TIME = pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": virtual_loop_factory})])


def labels(fn: Callable[..., Any], *, skip_first: bool = False, **options: Any) -> Labels:
    return Labels(
        fn,
        "t",
        skip_first=skip_first,
        key=options.get("key"),
        limit=options.get("limit"),
        rate=options.get("rate"),
    )


@dataclass
class Host:
    name: str


def fetch(host: str, path: str = "/", *, on: date | None = None) -> None: ...


# -- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_of_the_arguments_however_they_are_passed() -> None:
    made = labels(fetch, key="{host}{path} {on:%d %b}", limit=Limit(key="{host}"))
    expected = ("a.org/ 01 Mar", ("limit:a.org",))

    assert made.of(("a.org",), {"on": date(2026, 3, 1)}) == expected
    assert made.of((), {"on": date(2026, 3, 1), "path": "/", "host": "a.org"}) == expected


def test_a_key_may_go_into_an_argument_and_leaves_out_the_context() -> None:
    def visit(ctx: Context, host: Host, *more: int, **rest: int) -> None: ...

    made = labels(visit, skip_first=True, key="{host.name} {more[0]} {rest} {extra}")
    assert made.of((Host("a"), 7), {"extra": 5}) == ("a 7 {'extra': 5} 5", ())


def test_a_key_without_braces_is_one_for_all_jobs() -> None:
    assert labels(print, key="nightly {{}}").of((1, 2), {"sep": ""}) == ("nightly {}", ())


def test_a_key_that_is_no_text_for_a_file_is_escaped() -> None:
    assert labels(fetch, key="{host}").of(("caf\udce9 \u00fc",), {})[0] == "caf\\udce9 \u00fc"
    assert labels(fetch, key="{host}").of(("a\0b",), {})[0] == "a\\x00b"


def test_the_key_that_a_caller_gives_wins() -> None:
    assert labels(fetch, key="{host}").of(("a",), {}, key="{mine}") == ("{mine}", ())


@pytest.mark.parametrize(
    ("options", "gates"),
    [
        ({"limit": Limit(2)}, ("limit:",)),
        ({"rate": Rate(2, per=1)}, ("rate:",)),
        ({"limit": Limit(2), "rate": Rate(2, per=1)}, ("limit:", "rate:")),
        ({"limit": Limit(2), "rate": Rate(2, per=1, key="{host}")}, ("rate:a", "limit:")),
        ({"limit": Limit(2, key="{host}{path}"), "rate": Rate(2, per=1, key="{host}")}, ("limit:ab", "rate:a")),
    ],
)
def test_of_two_gates_the_finer_one_comes_first(options: dict[str, Any], gates: tuple[str, ...]) -> None:
    assert labels(fetch, **options).of(("a", "b"), {})[1] == gates


Token = Annotated[str, Secret]


@dataclass
class Login:
    user: str
    code: Token


@dataclass
class Tree:
    name: str
    branches: list[Tree]


def login(
    user: str,
    code: Token,
    pin: Annotated[int, Secret] | None,
    codes: list[Token],
    config: dict[str, Login],
    *more: Token,
    api_key: str,
    one: Login,
    **rest: Token,
) -> None: ...


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("{code}", "code"),
        ("{user} {pin}", "pin"),
        ("{codes[0]}", "codes"),
        ("{config[x].user}", "config"),
        ("{more}", "more"),
        ("{one}", "one"),
        ("{one.code!r:>20}", "one"),
        ("{rest}", "rest"),
        ("{extra}", "extra"),
        ("{api_key}", "by its name api_key"),
        ("{user.password}", "by its name password"),
        ("{user[token]}", "by its name token"),
    ],
)
@pytest.mark.parametrize("option", ["key", "limit", "rate"])
def test_no_key_names_what_is_secret_or_holds_a_secret(key: str, name: str, option: str) -> None:
    options: dict[str, Any] = {option: Rate(1, per=1, key=key) if option == "rate" else key}
    with pytest.raises(InvalidOption) as refused:
        task(name="login", **options)(login)
    assert str(refused.value) == (
        f"{option} must be a key without the secrets of login, got {key!r}; keys are shown, and {name} must not be"
    )


def test_a_key_may_name_what_stands_beside_a_secret() -> None:
    def send(user: str, code: Token, tree: Tree) -> list[Token]:
        return [code]

    assert labels(send, key="{user} {tree.name}").of(("ann", "c0de", Tree("oak", [])), {}) == ("ann oak", ())


def test_a_key_that_names_a_secret_whose_hint_was_defined_later_is_refused_when_a_job_is_made() -> None:
    def login(user: Postponed) -> object:
        return Postponed

    made = labels(login, key="{user}")
    Postponed = Annotated[str, Secret]
    for _ in range(2):
        with pytest.raises(InvalidOption, match="keys are shown, and user must not be"):
            made.of(("ann",), {})


TEMPLATE = 'a text with names of parameters in braces, such as "{host}"'


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        (" ", ""),
        (7, ""),
        ("{}", "; each pair of braces holds the name of a parameter"),
        ("{0}", "; each pair of braces holds the name of a parameter"),
        ("{a", "; expected '}' before end of string; a brace of the text is written twice"),
        ("a}", "; Single '}' encountered in format string; a brace of the text is written twice"),
        ("{a:{b}}", "; braces within braces have no meaning here"),
    ],
)
def test_a_key_that_cannot_be_read_is_refused(key: Any, remedy: str) -> None:
    for make in (lambda: Limit(key=key), lambda: Rate(1, per=1, key=key), lambda: task(key=key)):
        with pytest.raises(InvalidOption) as refused:
            make()
        assert str(refused.value) == f"key must be {TEMPLATE}, got {key!r}{remedy}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limit(0), "at_once must be a whole number from 1 to 100,000, got 0"),
        (lambda: Limit(True), "at_once must be a whole number from 1 to 100,000, got True"),
        (lambda: Limit(key="x" * 501), f"key must be at most 500 characters long, got '{'x' * 20}...'"),
        (lambda: Rate(10**9, per=1), "starts must be a whole number from 1 to 100,000, got 1000000000"),
        (
            lambda: task(limit=1.5),  # type: ignore[arg-type]
            'limit must be a Limit such as Limit(at_once=3, key="{host}"), a number, or a key, got 1.5',
        ),
        (lambda: task(rate="10/m"), "rate must be a Rate such as Rate(10, per=\"1m\"), got '10/m'"),  # type: ignore[arg-type]
        (lambda: task(name="t")(fetch).options(key=""), "key must be a text that is not blank, got ''"),
        (
            lambda: task(name="t")(fetch).options(key="x" * 501),
            f"key must be at most 500 characters long, got '{'x' * 20}...'; hash what is longer",
        ),
        (
            lambda: task(name="t", limit="{hots}")(fetch),
            "limit must be a key that names parameters of t, got '{hots}'; did you mean {host}?",
        ),
        (
            lambda: task(name="t", key="{x}")(fetch),
            "key must be a key that names parameters of t, got '{x}'; it has {host}, {path}, {on}",
        ),
        (
            lambda: task(name="t", key="{x}")(lambda: None),
            "key must be a key that names parameters of t, got '{x}'; it has none, so write the key without braces",
        ),
        (
            lambda: task(name="t", limit="{host}", rate=Rate(1, per=1, key="{path}"))(fetch),
            (
                "rate must be given with a key that names all that limit names, '{host}', or a part of it, "
                "got '{path}'; else jobs that may not start would stand before others that may; use one key for both"
            ),
        ),
    ],
)
def test_what_has_no_meaning_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        make()
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("key", "host", "message"),
    [
        ("{tenant}", "a", "cannot be made of the arguments: no argument 'tenant'"),
        ("{host.x}", "a", "cannot be made of the arguments: AttributeError: 'str' object has no attribute 'x'"),
        ("{host}", "x" * 501, "becomes 501 characters, and 500 is the most; name something shorter, such as an id"),
    ],
)
def test_arguments_that_make_no_key_are_refused(key: str, host: str, message: str) -> None:
    def serve(host: str, **rest: str) -> None: ...

    with pytest.raises(InvalidPayload) as refused:
        labels(serve, key=key).of((host,), {})
    assert str(refused.value) == f"t: its key {key!r} {message}"


# -- in an app ------------------------------------------------------------------------------------------------------


@ON_VIRTUAL_TIME
async def test_while_a_job_is_unfinished_its_key_brings_it_back() -> None:
    app = App()
    runs: list[tuple[int, str]] = []

    @app.task(key="report:{user_id}")
    async def report(user_id: int, style: str = "") -> str:
        runs.append((user_id, style))
        await asyncio.sleep(10)
        return style

    async with app.testing() as t:
        first = await report.enqueue(1, "short")
        again = await report.enqueue(1, "long")
        other = await report.enqueue(2)
        assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
        assert (again.id, again == first, first.is_new) == (first.id, True, True)
        await t.advance(1)
        running, late = await report.enqueue_many([(1,), (3,)])
        assert (running.id, running.is_new, late.is_new) == (first.id, False, True)
        same, twice = await report.options(key="3").enqueue_many([(7,), (8,)])
        assert same.id == twice.id != late.id  # the caller's key is another than report:3
        await t.advance(30)
        assert await again.result() == "short"
        assert (await report.enqueue(1, "new")).is_new
        await t.advance(60)
    assert runs == [(1, "short"), (2, ""), (3, ""), (7, ""), (1, "new")]


async def test_the_end_of_a_job_found_by_its_key_is_kept_while_its_handle_is_held() -> None:
    app = App()

    @app.task(key="k")
    async def one() -> int:
        return 1

    @app.task()
    async def other() -> None: ...

    async with app:
        first = await one.enqueue()
        found = await one.enqueue()
        assert not found.is_new
        await first
        del first
        for _ in range(3):
            await asyncio.gather(*[job.result() for job in await other.enqueue_many([()] * 1_000)])
        assert await found.result() == 1


@pytest.mark.parametrize("limit", ["{host}", Limit(2, key="{host}"), 3, Limit(3)])
@pytest.mark.parametrize("kept", [False, True])
async def test_no_more_jobs_run_at_once_than_the_limit_says(tmp_path: Path, limit: Any, kept: bool) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db" if kept else None)
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    @app.task(limit=limit)
    async def visit(host: str) -> None:
        for name in (host, ""):
            running[name] = running.get(name, 0) + 1
            most[name] = max(most.get(name, 0), running[name])
        await asyncio.sleep(0.005)
        for name in (host, ""):
            running[name] -= 1

    async with app:
        jobs = await visit.enqueue_many([(host,) for host in "abc" * 6])
        await asyncio.gather(*[job.result() for job in jobs])

    if limit in ("{host}", Limit(2, key="{host}")):
        at_once = 1 if limit == "{host}" else 2
        assert (most["a"], most["b"], most["c"]) == (at_once,) * 3
        assert most[""] > at_once
    else:
        assert most[""] == 3


@ON_VIRTUAL_TIME
async def test_a_rate_lets_so_many_jobs_start_in_any_period() -> None:
    app = App()
    starts: list[tuple[str, timedelta]] = []

    @app.task(rate=Rate(2, per="1m", key="{host}"))
    async def call(host: str) -> None:
        starts.append((host, t.now - begun))

    async with app.testing() as t:
        begun = t.now
        for host in "aaaab":
            await call.enqueue(host)
        await t.advance("10m")

    seconds = [(host, at.total_seconds()) for host, at in starts]
    assert seconds == [("a", 0), ("a", 0), ("b", 0), ("a", 60), ("a", 60)]


@ON_VIRTUAL_TIME
async def test_jobs_of_a_schedule_share_the_limit_and_have_no_key() -> None:
    app = App()

    @app.every("1m", key="{host}", limit="{host}", overlap="allow")
    async def visit(host: str = "a.org") -> None:
        await asyncio.sleep(90)

    async with app.testing() as t:
        await t.advance("3m")
        records = await app._store_now().jobs()
        assert {(record.key, record.gates) for record in records} == {(None, ("limit:a.org",))}
        assert len([record for record in records if record.state == "running"]) == 1
        enqueued = await visit.enqueue()
        assert (await enqueued.record()).key == "a.org"


async def test_a_changed_limit_holds_for_what_waits_already(tmp_path: Path) -> None:
    async def run(limit: int | None) -> int:
        app, most, running = App(f"sqlite:///{tmp_path}/jobs.db"), 0, 0

        @app.task(name="visit", limit=limit)
        async def visit() -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        async with app:
            jobs = await visit.enqueue_many([()] * 12)
            await asyncio.gather(*[job.result() for job in jobs])
        return most

    assert [await run(2), await run(None), await run(1)] == [2, 12, 1]


@ON_VIRTUAL_TIME
async def test_a_failed_job_is_not_retried_while_its_key_is_held() -> None:
    app = App()

    @app.task(key="k")
    async def fail() -> None:
        raise ValueError

    async with app.testing(raise_errors=False) as t:
        failed = await fail.enqueue()
        await t.advance(1)
        held = await fail.options(delay="1h").enqueue()
        with pytest.raises(WrongState) as refused:
            await app.jobs.retry(failed.id)
        assert str(refused.value) == (
            f"job {failed.id} is failed and cannot be retried: job {held.id}, which is unfinished, has its key 'k'; "
            "wait for the end of that one, or cancel it"
        )
        await held.cancel()
        await app.jobs.retry(failed.id)
        again = await fail.enqueue()
        assert (again.id, again.is_new) == (failed.id, False)
        await t.advance(1)
