"""The only source of time, randomness and new ids.

Everything that asks what time it is, draws a number or makes an id takes a `Clock`, so that a whole life of
a service can be replayed exactly in virtual time. Waiting is not the clock's business: `asyncio` waits by its
loop's time, and a simulated loop makes that virtual too.
"""

from __future__ import annotations

import random
import secrets
import time
import uuid
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time, chance and new names."""

    def now(self) -> datetime:
        """Wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences have a meaning."""

    def random(self) -> float:
        """A number in [0, 1), for jitter and for choosing among equals."""

    def unique_id(self) -> str:
        """A new id: 32 lower-case hex digits, never handed out before."""

    def secret(self) -> str:
        """A new secret that cannot be guessed: 64 lower-case hex digits."""


class SystemClock:
    """The real world."""

    def now(self) -> datetime:
        """Wall time of this machine, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def random(self) -> float:
        """A pseudo-random number; good for jitter, not for secrets."""
        return random.random()

    def unique_id(self) -> str:
        """A random UUID without its dashes."""
        return uuid.uuid4().hex

    def secret(self) -> str:
        """32 bytes from the system's generator, as hex."""
        return secrets.token_hex(32)
