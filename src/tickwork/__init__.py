"""Scheduled and background work inside an asyncio program, in one small library."""

from ._version import __version__ as __version__
