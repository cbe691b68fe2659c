from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tickwork.batch.chunks import FAR, GROWTH, MAX_ITEMS, NEAR, Sizer


def sizes(each: float, total: int | None, lanes: int = 4, loop_each: float = 0.0, most: int = 300) -> list[int]:
    """Run a batch of equal items, a chunk at a time."""
    sizer, taken = Sizer(lanes, None, total), 0
    found: list[int] = []
    while (total is None or taken < total) and len(found) < most:
        size = sizer.size(taken)
        count = size if total is None else min(size, total - taken)
        taken += count
        found.append(count)
        sizer.learn(count, each * count, loop_each * count)
    return found


def test_the_first_chunk_has_one_item() -> None:
    assert Sizer(4, None, 1_000).size(0) == 1


def test_items_of_no_time_soon_go_in_the_largest_chunks() -> None:
    assert sizes(0.0, None, most=5) == [1, GROWTH, GROWTH**2, MAX_ITEMS, MAX_ITEMS]


def test_items_of_100_us_go_together_for_the_target() -> None:
    assert sizes(0.0001, None, most=4)[2:] == [200, 200]


def test_items_of_10_ms_go_in_twos() -> None:
    assert set(sizes(0.01, None)[1:]) == {2}


def test_items_that_take_long_go_alone() -> None:
    assert set(sizes(1.0, 1_000)) == {1}


def test_chunks_become_shorter_towards_the_end() -> None:
    found = sizes(0.00005, 10_000)

    assert found[2] == 400
    assert found[-2] == NEAR.least / 0.00005 == 40
    assert all(one >= two for one, two in pairwise(found[2:]))


def test_packing_that_holds_the_loop_makes_chunks_smaller() -> None:
    assert sizes(0.0, None, loop_each=0.001, most=4)[1:] == [3, 3, 3]


def test_a_fixed_size_is_kept_whatever_items_take() -> None:
    sizer = Sizer(4, 7, 100)
    sizer.learn(7, 70.0, 0.0)

    assert (sizer.size(0), sizer.size(99), sizer.limit_seconds) == (7, 7, float("inf"))


def test_a_found_size_has_a_limit_of_time() -> None:
    assert Sizer(4, None, 100).limit_seconds == NEAR.limit


def test_items_that_become_slow_go_in_smaller_chunks() -> None:
    sizer = Sizer(4, None, None)
    for _ in range(3):
        sizer.learn(sizer.size(0), 0.0, 0.0)
    for _ in range(4):
        sizer.learn(1, 0.1, 0.0)

    assert sizer.size(0) == 1


@given(
    st.integers(1, 64),
    st.none() | st.integers(0, 1_000_000),
    st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 1e5), st.floats(0, 1e5)), max_size=20),
    st.integers(0, 2_000_000),
)
def test_a_size_is_always_between_one_and_the_most(
    lanes: int, total: int | None, learnt: list[tuple[int, float, float]], taken: int
) -> None:
    sizer = Sizer(lanes, None, total)
    for count, seconds, loop_seconds in learnt:
        sizer.learn(count, seconds, loop_seconds)

    assert 1 <= sizer.size(taken) <= MAX_ITEMS


@given(st.floats(1e-7, 10.0), st.integers(1, 32), st.none() | st.integers(1, 100_000))
def test_a_chunk_of_equal_items_takes_no_longer_than_the_target_or_one_item(
    each: float, lanes: int, total: int | None
) -> None:
    for size in sizes(each, total, lanes)[1:]:
        assert size == 1 or size * each <= NEAR.target * (1 + 1e-9)


@given(st.floats(1e-6, 0.1), st.integers(1, 16), st.integers(1, 20_000))
def test_no_lane_gets_more_than_its_part_of_what_is_left_but_for_the_shortest_chunks(
    each: float, lanes: int, total: int
) -> None:
    taken = 0
    for size in sizes(each, total, lanes):
        fair = -(-(total - taken) // (2 * lanes))
        assert size <= max(fair, 1) or size * each <= NEAR.least * (1 + 1e-9)
        taken += size


def test_chunks_for_other_processes_take_longer_since_the_way_does() -> None:
    sizer = Sizer(2, None, None, FAR)
    sizer.learn(1, 0.001, 0.0)
    sizer.learn(64, 0.064, 0.0)

    assert sizer.size(65) == 100
    assert sizer.limit_seconds == FAR.limit
