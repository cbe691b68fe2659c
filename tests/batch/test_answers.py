"""What a chunk has given, when its values do not unpickle: nothing is lost that was not run, or came well."""

from __future__ import annotations

import pickle

from tickwork.batch.answers import unpacked
from tickwork.batch.places import Ended
from tickwork.errors import InvalidPayload
from tickwork.runners.child import told_of

from .functions import NoUnpickle


async def test_of_a_chunk_that_ended_early_only_what_ran_has_an_end() -> None:
    failed = (0, told_of(KeyError("no")), False)

    ended = await unpacked("f", pickle.dumps([None, NoUnpickle(), 3], 5), (), [failed], 0.5, count=10)

    assert (ended.values, ended.seconds) == ([None, None, 3], 0.5)
    assert [(place, repr(error)) for place, error in ended.failures] == [
        (0, "KeyError('no')"),
        (1, repr(InvalidPayload("result of f", "it cannot be unpickled: ValueError: unreadable"))),
    ]


async def test_a_chunk_whose_values_are_damaged_runs_again_item_by_item() -> None:
    body = pickle.dumps([b"x" * 100], 5)[:-50]

    assert await unpacked("f", body, (), [], 0.5, count=10) == Ended(is_unclear=True)
    (place, error) = (await unpacked("f", body, (), [], 0.5, count=1)).failures[0]
    assert place == 0
    assert str(error) == "result of f: it cannot be unpickled: UnpicklingError: pickle data was truncated"
