"""The least that a machine can move."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import pytest

from shem.lifecycle import Cause, Move


@dataclass
class Thing:
    """Something with a state, whose guards are whatever a test says, and which notes what its hooks saw."""

    state: enum.Enum
    guards: dict[str, bool] = field(default_factory=dict)
    seen: list[tuple[str, enum.Enum, Move[Any, Any], Cause]] = field(default_factory=list)
    subject: str = "thing 1"

    def __getattr__(self, name: str) -> bool:
        guards: dict[str, bool] = self.__dict__["guards"]
        if name in guards:
            return guards[name]
        raise AttributeError(name)

    def left(self, move: Move[Any, Any], cause: Cause) -> None:
        self.seen.append(("left", self.state, move, cause))

    def entered(self, move: Move[Any, Any], cause: Cause) -> None:
        self.seen.append(("entered", self.state, move, cause))


@pytest.fixture(scope="session")
def thing() -> type[Thing]:
    return Thing
