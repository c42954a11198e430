"""Probes: the service's own idea of being well, asked again and again while it is Running."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shem.errors import ConfigError
from shem.script import Script

#: Asked of the service object: true, or nothing at all, is well; false or an exception is not.
Check = Callable[[Any], Awaitable[bool | None] | bool | None]


@dataclass(frozen=True, slots=True)
class Probe:
    """A liveness probe.

    Either `check` is called with the service object, or `command` is run on the provider and must exit
    with 0. After `failures` bad answers in a row the instance gets a ServiceError, and so a `shutdown`.

    Attributes:
        period: seconds between two checks; timeout: seconds one may take, a late answer is a bad one.
    """

    check: Check | None = None
    command: Sequence[str] = ()
    period: float = 10.0
    timeout: float = 5.0
    failures: int = 3

    def __post_init__(self) -> None:
        if (self.check is None) == (not self.command):
            raise ConfigError("Probe: give either a check (a callable) or a command (program and arguments)")
        if isinstance(self.command, str):
            raise ConfigError(
                f"Probe: command must be a sequence of strings, not the string {self.command!r}"
            )
        if not (self.period > 0 and self.timeout > 0 and self.failures >= 1):
            raise ConfigError("Probe: period and timeout must be more than 0 s, failures at least 1")

    async def ask(self, service: object, execute: Callable[[Script], Awaitable[None]]) -> str | None:
        """What is wrong, or None where all is well. Lets the check's own exception through."""
        if self.check is not None:
            answer = self.check(service)
            if inspect.isawaitable(answer):
                answer = await answer
            return "the check said no" if answer is False else None
        script = Script(timeout=self.timeout)
        script.run(*self.command)
        script.mark_sent()
        await execute(script)
        return None
