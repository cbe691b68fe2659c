from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.batch.patterns import Pattern
from tickwork.errors import InvalidOption


def is_meant(pattern: Pattern, path: str) -> bool:
    """Walk down to a file as a search does."""
    *folders, name = path.split("/")
    place = pattern.start
    for folder in folders:
        place = pattern.enter(place, folder)
        if not place:
            return False
    return pattern.matches(place, name)


@pytest.mark.parametrize(
    ("pattern", "paths", "others"),
    [
        ("*", ["a", ".a", "x/y/a", "a\nb"], []),
        ("*.csv", ["a.csv", ".csv", "x/y/a.csv", "\udcff.csv"], ["a.csv.gz", "a.csv/b"]),
        ("[ab]?", ["a1", "x/b2"], ["a", "c1", "a12"]),
        ("x/*.csv", ["x/a.csv"], ["a.csv", "x/y/a.csv", "y/x/a.csv"]),
        ("**/*.csv", ["a.csv", "x/a.csv", "x/y/a.csv"], ["a.txt"]),
        ("**/x/*.csv", ["x/a.csv", "y/x/a.csv", "x/x/a.csv"], ["a.csv", "x/y/a.csv"]),
        ("x/**/y/*", ["x/y/a", "x/1/2/y/a", "x/y/y/a"], ["x/a", "y/a", "x/y"]),
        ("x/**", ["x/a", "x/y/a"], ["x", "a"]),
        ("**", ["a", "x/a"], []),
        ("**/**/a", ["a", "x/y/a"], ["b"]),
        ("20??/*/a", ["2026/x/a"], ["2026/a", "206/x/a"]),
        ("./x/./a", ["x/a"], ["a"]),
        ("x//a", ["x/a"], []),
        ("a**b", ["ab", "a1b", "x/a1b"], ["a/b"]),
        ("[", ["["], ["a"]),
    ],
)
def test_a_pattern_means_these_paths_and_not_those(pattern: str, paths: list[str], others: list[str]) -> None:
    found = Pattern(pattern)
    assert [path for path in paths + others if is_meant(found, path)] == paths


def test_folders_in_which_nothing_can_match_are_not_entered() -> None:
    pattern = Pattern("2026/*/raw/*.csv")
    place = pattern.start
    assert not pattern.enter(place, "2025")
    for name in ("2026", "may", "raw"):
        place = pattern.enter(place, name)
        assert place
    assert not pattern.enter(place, "deeper")
    assert not Pattern("*.csv", recursive=False).enter(Pattern("*.csv", recursive=False).start, "a.csv")


names = st.sampled_from(["a", "b", "ab", "ba", ".a"])
segments = st.sampled_from(["**", "*", "a*", "?", "[!a]*", "ab"])


def expected(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(expected(pattern[1:], path[taken:]) for taken in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and expected(pattern[1:], path[1:])


@given(st.lists(segments, min_size=2, max_size=5), st.lists(names, min_size=1, max_size=6))
def test_it_means_what_a_search_of_all_ways_finds(pattern: list[str], path: list[str]) -> None:
    plain = [*pattern, "*"] if pattern[-1] == "**" else pattern
    assert is_meant(Pattern("/".join(pattern)), "/".join(path)) == expected(plain, path)


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("", ""),
        (None, ""),
        (b"*", ""),
        ("/data/*", "; it is relative to the directory: leave out its beginning"),
        ("../*", '; it cannot leave the directory: leave out ".."'),
        ("a/../*", '; it cannot leave the directory: leave out ".."'),
        ("data/", '; it is about files: write "data/*" or "data/**"'),
        (".", '; it is about files: write "data/*" or "data/**"'),
    ],
)
def test_what_is_no_pattern_is_refused(pattern: Any, remedy: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        Pattern(pattern)
    assert str(refused.value) == (
        f'pattern must be a shell pattern such as "*.csv" or "data/**/*.csv", got {pattern!r}{remedy}'
    )


@pytest.mark.parametrize("pattern", ["data/*.csv", "**/*.csv", "**"])
def test_a_pattern_of_paths_needs_the_folders_below(pattern: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        Pattern(pattern, recursive=False)
    assert str(refused.value) == (
        "pattern must be a pattern of names, since recursive=False looks into no folder below, "
        f'got {pattern!r}; take out the folders, or recursive=False: "*.csv"'
    )


@pytest.mark.skipif(os.name == "nt", reason="names do not differ by case there")
def test_names_differ_by_case() -> None:
    assert not is_meant(Pattern("*.csv"), "a.CSV")
