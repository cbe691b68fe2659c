"""A quoted word is one word to a shell, and holds nothing that cron reads for itself."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork.errors import InvalidEntry
from tickwork.system.cron_quote import check_length, quote, quote_all

WORDS = st.lists(
    st.text(
        st.characters(min_codepoint=1, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"])
        | st.sampled_from("\t%#\\'\"$`")
    ),
    max_size=6,
)


@given(WORDS)
@settings(max_examples=60, deadline=None)
def test_a_shell_reads_back_the_words(words: list[str]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' start {quote_all(words)}"], capture_output=True, check=True
    )

    assert done.stdout.split(b"\0")[1:-1] == [os.fsencode(word) for word in words]


@given(WORDS)
def test_nothing_that_cron_reads_for_itself_is_left(words: list[str]) -> None:
    line = quote_all(words)

    assert not {"%", "#", "\n"} & set(line)
    assert "\\" not in line.replace("printf '\\134'", "").replace("printf '\\045'", "").replace("printf '\\043'", "")


def test_plain_words_stay_plain() -> None:
    words = ["/usr/bin/env", "--opt:x,y", "a@b.c", "1+1"]

    assert quote_all(words) == " ".join(words)


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("", "''"),
        ("A=b", "'A=b'"),
        ("it's", "'it'\"'\"'s'"),
        ("50%", "'50'\"$(printf '\\045')\"''"),
        ("~", "'~'"),
    ],
)
def test_other_words_are_quoted(word: str, quoted: str) -> None:
    assert quote(word) == quoted


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x0b", "\x1b", "\x7f"])
def test_a_control_character_is_refused(character: str) -> None:
    with pytest.raises(InvalidEntry) as caught:
        quote(f"a{character}b")

    assert str(caught.value) == (
        f"argument {f'a{character}b'!r} cannot be part of an entry: it holds the control character {character!r}, which"
        " would end or change the line; pass it in a file"
    )


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidEntry, match=r"cannot be encoded as utf-8: surrogates not allowed"):
        quote("\ud800")


def test_a_number_is_refused() -> None:
    with pytest.raises(InvalidEntry) as caught:
        quote(3)  # type: ignore[arg-type]

    assert str(caught.value) == "argument 3 cannot be part of an entry: it must be a text, not int"


def test_a_command_of_999_bytes_is_refused_and_one_of_998_is_not() -> None:
    check_length(b"x" * 998)
    with pytest.raises(InvalidEntry, match="with its quotes it has 999 bytes, and Debian's cron takes 998;"):
        check_length(b"x" * 999)
