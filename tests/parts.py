"""Parts that a machine may lack: without one its tests are skipped, and in CI they fail."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the test with the reason; in CI, which brings or installs every part, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: in CI that is a failure")
    pytest.skip(reason)


def need(module: str) -> None:
    """Go on where a module is installed."""
    if find_spec(module) is None:
        lacking(f"{module} is not installed")
