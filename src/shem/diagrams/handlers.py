"""Which methods of a service class belong to which state, as notes for a diagram.

Looks at classes only: nothing is instantiated or called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Final

from shem.lifecycle.service import State

#: The handler of each active state.
HANDLERS: Final[Mapping[State, str]] = {
    State.STARTING: "start",
    State.RUNNING: "run",
    State.STOPPING: "shutdown",
}


def handler_notes(service: type) -> dict[State, tuple[str, ...]]:
    """Lines per state: its handler, whether it is the class's own, its first docstring line, and its hook.

    `service` is any class with `start`, `run` and `shutdown`; what comes from a class of shem itself counts
    as the default.
    """
    notes: dict[State, tuple[str, ...]] = {}
    for state in State:
        lines: list[str] = []
        if state in HANDLERS:
            lines += _about(service, HANDLERS[state], say_default=True)
        lines += _about(service, f"on_{state.value}", say_default=False)
        if lines:
            notes[state] = tuple(lines)
    return notes


def _about(service: type, name: str, *, say_default: bool) -> list[str]:
    owner = next((cls for cls in service.__mro__ if name in vars(cls)), None)
    if owner is None or owner.__module__.split(".")[0] == "shem":
        return [f"{name}(): default"] if say_default and owner is not None else []
    whose = "own" if owner is service else f"from {owner.__name__}"
    lines = [f"{name}(): {whose}"]
    doc = inspect.cleandoc(vars(owner)[name].__doc__ or "").strip()
    if doc:
        lines.append(doc.splitlines()[0].strip())
    return lines
