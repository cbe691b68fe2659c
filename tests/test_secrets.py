"""Arguments marked secret, and names that look like secrets: they travel, and nobody sees them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NewType, Optional, TypedDict

import pytest

from tickwork import Secret
from tickwork.errors import InvalidPayload
from tickwork.payloads import Codec, describe_exception
from tickwork.payloads.secrets import hide_by_name, without

Token = Annotated[str, Secret]
Pin = NewType("Pin", int)


@dataclass
class Login:
    user: str
    key: Token


class Point(NamedTuple):
    x: int
    y: Annotated[int, Secret()]


class Entry(TypedDict):
    name: str
    code: Annotated[str, "a note", Secret]


@dataclass
class Tree:
    value: int
    children: list[Tree]


def codec(fn: Callable[..., Any]) -> Codec:
    return Codec(fn, name="f")


def shown(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what people see of a call, and the texts that are hidden; the job must get all of it."""
    made = codec(fn)
    text = made.encode(args, kwargs)
    got, named = made.decode(text)
    assert ([*got], named) == ([*args], kwargs) or [*got, *named.values()] == [*args, *kwargs.values()]
    return made.show(text), made.secrets_in(text)


def test_a_marked_argument_is_hidden_and_travels() -> None:
    def f(user: str, code: Token) -> None: ...

    assert shown(f, "ann", "c0de") == ({"user": "ann", "code": "***"}, ["c0de"])


def test_the_mark_works_inside_of_other_types() -> None:
    def in_list(a: list[Token]) -> None: ...
    def in_tuple(a: tuple[int, Token]) -> None: ...
    def in_dict(a: dict[str, Token]) -> None: ...
    def as_key(a: dict[Token, int]) -> None: ...
    def maybe(a: Optional[Token]) -> None: ...  # noqa: UP045
    def in_class(a: Login) -> None: ...
    def in_named_tuple(a: Point) -> None: ...
    def in_typed_dict(a: Entry) -> None: ...
    def in_union(a: Login | Token) -> None: ...
    def deep(a: dict[str, list[Login]] | None) -> None: ...
    def new_type(a: Annotated[Pin, Secret]) -> None: ...

    assert shown(in_list, ["one1", "two2"]) == ({"a": ["***", "***"]}, ["one1", "two2"])
    assert shown(in_tuple, (1, "two2")) == ({"a": [1, "***"]}, ["two2"])
    assert shown(in_dict, {"k": "two2"}) == ({"a": {"k": "***"}}, ["two2"])
    assert shown(as_key, {"two2": 1})[0] == {"a": "***"}
    assert shown(maybe, "two2") == ({"a": "***"}, ["two2"])
    assert shown(maybe, None) == ({"a": None}, [])
    assert shown(in_class, Login("ann", "two2")) == ({"a": {"user": "ann", "key": "***"}}, ["two2"])
    assert shown(in_named_tuple, Point(1, 2)) == ({"a": {"x": 1, "y": "***"}}, [])
    assert shown(in_typed_dict, {"name": "n", "code": "two2"}) == ({"a": {"name": "n", "code": "***"}}, ["two2"])
    assert shown(in_union, "two2") == ({"a": "***"}, ["two2"])
    assert shown(deep, {"x": [Login("ann", "two2")]})[0] == {"a": {"x": [{"user": "ann", "key": "***"}]}}
    assert shown(new_type, Pin(7)) == ({"a": "***"}, [])


def test_the_mark_works_for_stars() -> None:
    def f(*args: Token, **kwargs: Token) -> None: ...

    assert shown(f, "one1", b="two2") == ({"*": ["***"], "**": {"b": "***"}}, ["one1", "two2"])


def test_a_class_that_contains_itself_is_shown() -> None:
    def f(a: Tree) -> None: ...

    tree = Tree(1, [Tree(2, [])])
    assert shown(f, tree) == ({"a": {"value": 1, "children": [{"value": 2, "children": []}]}}, [])


def test_the_mark_changes_no_fingerprint() -> None:
    def marked(a: Token, b: list[Token]) -> None: ...
    def plain(a: str, b: list[str]) -> None: ...

    assert codec(marked).fingerprint == codec(plain).fingerprint


UNFIT = '{"a":"x","b":"s3cr3t"}'  # here, because tracebacks show the lines of a test


@pytest.mark.parametrize("args", [(5,), ({"k": "s3cr3t"},), ("s3cr3t", "s3cr3t")])
def test_no_refusal_shows_a_secret_or_its_default(args: tuple[Any, ...]) -> None:
    def f(a: Token, b: Annotated[int, Secret] = 991_234, c: Annotated[str, Secret] | None = "defau1t") -> None: ...

    with pytest.raises(InvalidPayload) as refused:
        codec(f).encode((*args, None, 3))
    with pytest.raises(InvalidPayload) as unfit:
        codec(f).decode(UNFIT)

    told = describe_exception(refused.value).traceback + describe_exception(unfit.value).traceback
    assert "s3cr3t" not in told
    assert codec(f).signature == "(a: str, b: int = ***, c: str | None = ***)"
    assert str(unfit.value) == "f(b): expected int, got ***, which is secret"


def test_what_an_older_signature_stored_is_hidden_beside_secrets() -> None:
    def f(a: Token) -> None: ...
    def g(a: str) -> None: ...

    assert codec(f).show('{"a":"x","former":"y"}') == {"a": "***", "former": "***"}
    assert codec(g).show('{"a":"x","former":"y"}') == {"a": "x", "former": "y"}


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", "null"])
def test_what_cannot_be_read_is_hidden(text: str) -> None:
    def f(a: Token) -> None: ...

    assert codec(f).show(text) == {"***": "***"}
    assert codec(f).secrets_in(text) == []


def test_what_does_not_fit_is_hidden_as_a_whole() -> None:
    def f(a: list[Login], b: Login) -> None: ...

    text = '{"a":{"user":"ann","key":"two2"},"b":{"user":"ann"}}'
    assert codec(f).show(text) == {"a": "***", "b": "***"}
    assert codec(f).secrets_in(text) == ["ann", "two2", "ann"]


def test_names_that_look_like_secrets_are_hidden_unless_asked_for() -> None:
    def f(password: str, config: dict[str, Any], rows: list[dict[str, str]], tokens: int) -> None: ...

    made = codec(f)
    text = made.encode(
        ("pw", {"api_key": 1, "apiKey": 2, "user": "ann", "in": {"Authorization": 3}}, [{"pwd": "x"}], 5)
    )
    assert made.show(text) == {
        "password": "***",
        "config": {"api_key": "***", "apiKey": "***", "user": "ann", "in": {"Authorization": "***"}},
        "rows": [{"pwd": "x"}],
        "tokens": "***",
    }
    assert made.show(text, hides_names=False)["config"]["in"] == {"Authorization": 3}


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWORD",
        "passwd",
        "passphrase",
        "passcode",
        "client_secret",
        "accessToken",
        "credentials",
        "cookie",
        "api-key",
        "apikey",
        "access_key",
        "privateKey",
        "signing_key",
        "authorization",
        "authorisation",
    ],
)
def test_these_names_look_like_secrets(name: str) -> None:
    assert hide_by_name({name: "x", "key": "y", "author": "z"}) == {name: "***", "key": "y", "author": "z"}


def test_an_error_is_told_without_the_texts() -> None:
    try:
        raise ValueError("longer-secret and secret, not sec")
    except ValueError as error:
        error.add_note("it was secret")
        info = describe_exception(error)
    told = info.without(["secret", "longer-secret", "sec", "no"])

    assert (told.message, told.notes) == ("*** and ***, not sec", ("it was ***",))
    assert "ValueError: *** and ***, not sec" in told.traceback
    assert info.without([]) is info
    assert without("abc", [""]) == "abc"


@pytest.mark.parametrize(
    "secret",
    [
        "one\ntwo2",
        'a"quote',
        "a'quote",
        "both'and\"",
        "back\\slash",
        "caf\u00e9",
        "a\tb\x00c",
        "\U0001f511key",
        "  p w ",
    ],
)
@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        ascii,
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: repr({"key": [value]}),
        lambda value: repr(f'it\'s a "{value}"'),
        lambda value: repr(f"it's {value}"),
        lambda value: json.dumps([{"key": f"<{value}>"}]),
        lambda value: repr(InvalidPayload("f", value)),
    ],
)
def test_a_secret_is_hidden_however_a_message_writes_it(secret: str, write: Callable[[str], str]) -> None:
    def unquoted(text: str) -> str:
        return text.replace("\\", "").replace("'", '"')  # which quotes a repr uses depends on what is inside

    assert unquoted(without(write(secret), ["other", secret])) == unquoted(write("***"))


def test_the_lines_of_a_secret_are_hidden_in_a_group_of_errors() -> None:
    secret = "-----BEGIN-----\nMIIEvQIBADAN\n\n    indented 55\n-----END-----"
    try:
        raise ExceptionGroup("several", [ExceptionGroup("more", [ValueError(f"for <{secret}>")])])
    except ExceptionGroup as error:
        told = describe_exception(error).without([secret])
    assert not any(word in told.traceback for word in secret.split())
    assert "ValueError: for <***" in told.traceback


def test_a_long_secret_costs_little_to_hide() -> None:
    secret = "\n".join(f"line {number} of it" for number in range(50_000))
    began = time.perf_counter()
    assert without("x" * 64_000 + "\n" + secret, [secret]) == "x" * 64_000 + "\n***"
    assert without(f"| {secret[:30]}\n| line 7 of it\n| line", [secret]).endswith("\n***\n| line")
    assert time.perf_counter() - began < 5  # not 50,000 looks through the text
