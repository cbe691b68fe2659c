from __future__ import annotations

import tickwork.system


def test_every_public_name_is_there_and_has_one_home() -> None:
    homes = [name for names in tickwork.system._HOMES.values() for name in names]
    assert sorted(homes) == sorted(tickwork.system.__all__)
    for name in homes:
        assert getattr(tickwork.system, name).__name__ == name
