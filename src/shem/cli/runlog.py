"""Reading the log of a run: from JSON lines back to the stories of its instances.

The lines are those that `shem run` writes to a pipe or file, one for each event (see `shem.events`). Lines of
other kinds are passed over, since a service may write what it likes to the same place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shem.errors import ConfigError
from shem.lifecycle import SERVICE, Expectation, Step, Story


@dataclass(frozen=True, slots=True)
class RunLog:
    """What a log tells: the story of each instance by its id, and until when."""

    stories: dict[str, Story]
    until: datetime


@dataclass(slots=True)
class _Life:
    """What the lines read so far tell of one instance."""

    instance: str
    service: str = "instance"
    slot: int | None = None
    replaces: str = ""
    state: str = SERVICE.initial.value
    phase: str = ""
    provider: str = ""
    steps: list[Step] = field(default_factory=list)
    expects: Expectation | None = None

    def read(self, line: dict[str, Any]) -> bool:
        """Take one line; false where it tells nothing of the life."""
        match line:
            case {"message": "instance_created", "service": str(service), "slot": int(slot)}:
                self.service, self.slot = service, slot
                self.replaces = str(line.get("replaces", ""))
            case {
                "message": "instance_moved",
                "source": str(source),
                "event": str(event),
                "dest": str(dest),
                "cause": str(cause),
                "seq": int(seq),
            }:
                self.steps.append(Step.told(_moment(line), seq, source, event, dest, cause))
                self.state, self.phase, self.expects = dest, "", None
                self.provider = str(line.get("provider", ""))
            case {"message": "phase_changed", "phase": str(phase)}:
                self.phase = phase
            case {"message": "expectation_changed", "expects": str(expects)}:
                self.expects = Expectation(expects, _moment(line, "until") if "until" in line else None)
            case _:
                return False
        return True

    @property
    def story(self) -> Story:
        """The story so far."""
        slot = f" (slot {self.slot})" if self.slot is not None else ""
        return Story(
            subject=f"{self.service} {self.instance}{slot}",
            state=self.state,
            provider=self.provider,
            phase=self.phase,
            replaces=self.replaces,
            steps=tuple(self.steps),
            expects=self.expects,
        )


def read_log(lines: Iterable[str]) -> RunLog:
    """Read a log from beginning to end; instances come in the order in which they first appear.

    Raises `ConfigError` where there is no line, no JSON, nothing about instances, or a time that is none.
    """
    lives: dict[str, _Life] = {}
    until: datetime | None = None
    seen = parsed = 0
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        seen += 1
        line = _parse(text)
        if line is None:
            continue
        parsed += 1
        instance = line.get("instance")
        if not isinstance(instance, str):
            continue
        life = lives.get(instance) or _Life(instance)
        try:
            if life.read(line):
                lives[instance], until = life, _moment(line)
        except ValueError as error:
            raise ConfigError(f"line {number}: {error}") from error
    if until is None:
        raise ConfigError(_nothing(seen, parsed))
    return RunLog({instance: life.story for instance, life in lives.items()}, until)


def _nothing(seen: int, parsed: int) -> str:
    if not seen:
        return "the log is empty"
    if not parsed:
        return (
            "none of its lines is JSON; write the log into a file or pipe, as in `shem run … 2> run.log` "
            "(on a terminal it is text for people)"
        )
    return f"none of its {parsed} JSON lines tells of an instance; was the log level info or debug?"


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _moment(line: dict[str, Any], name: str = "timestamp") -> datetime:
    """A time of a line. Raises `ValueError` where it is none."""
    try:
        moment = datetime.fromisoformat(str(line.get(name)))
    except ValueError:
        raise ValueError(f"its {name} is no time: {line.get(name)!r}") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
