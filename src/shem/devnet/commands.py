"""The commands of an exe script: read from JSON, checked, as values.

What the commands do belongs to `executor`.

Source: contract 3.4.4. Unknown keys are ignored, as yagna does; an unknown command is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec


class BadScript(ValueError):
    """A text that is no exe script."""


class CaptureLimits(msgspec.Struct, frozen=True, rename="camel"):
    """Which part of an output is kept, in bytes, and in which form it is given back."""

    head: int | None = None
    tail: int | None = None
    head_tail: int | None = None
    limit: int | None = None
    format: str | None = None


class CaptureMode(msgspec.Struct, frozen=True, rename="camel"):
    """How one output stream is captured: collected, or collected and streamed as well."""

    at_end: CaptureLimits | None = None
    stream: CaptureLimits | None = None


class Captures(msgspec.Struct, frozen=True):
    """How both output streams are captured; what is left out is thrown away."""

    stdout: CaptureMode | None = None
    stderr: CaptureMode | None = None


class Deploy(msgspec.Struct, frozen=True):
    """Make the runtime's file system and network."""

    net: list[dict[str, Any]] = []
    hosts: dict[str, str] = {}
    hostname: str | None = None
    env: dict[str, str] = {}
    volumes: list[str] | dict[str, Any] = []


class Start(msgspec.Struct, frozen=True):
    """Make the runtime ready to run commands."""

    args: list[str] = []


class Run(msgspec.Struct, frozen=True):
    """Run a program to its end."""

    entry_point: str
    args: list[str] = []
    capture: Captures | None = None


class Transfer(msgspec.Struct, frozen=True):
    """Copy a file between a URL and the runtime."""

    source: str = msgspec.field(name="from")
    to: str


class Sign(msgspec.Struct, frozen=True):
    """Sign the results so far; possible only inside SGX."""


class Terminate(msgspec.Struct, frozen=True):
    """Stop the runtime; it can be deployed anew."""


Command: TypeAlias = Deploy | Start | Run | Transfer | Sign | Terminate

_KINDS: Final[dict[str, type[Command]]] = {
    "deploy": Deploy,
    "start": Start,
    "run": Run,
    "transfer": Transfer,
    "sign": Sign,
    "terminate": Terminate,
}
_FORMATS: Final = frozenset({None, "str", "string", "bin", "binary"})


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a script, and the JSON object it was read from."""

    command: Command
    raw: dict[str, Any]


def decode(text: str) -> list[Any]:
    """The commands in a script's JSON text, not checked yet. Raises `BadScript`."""
    try:
        commands = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadScript(f"the script is no JSON: {error}") from error
    if not isinstance(commands, list):
        raise BadScript(f"the script is {type(commands).__name__}, expected a list of commands")
    return commands


def read(commands: Sequence[Any]) -> list[Step]:
    """A script from its decoded JSON. Raises `BadScript` with the place of the offender."""
    return [_read(index, raw) for index, raw in enumerate(commands)]


def _read(index: int, raw: Any) -> Step:
    if not isinstance(raw, dict) or len(raw) != 1:
        raise BadScript(f"command {index}: expected an object with one key, the command's name")
    ((name, fields),) = raw.items()
    kind = _KINDS.get(name)
    if kind is None:
        raise BadScript(f"command {index}: unknown command {name!r}; known are {', '.join(_KINDS)}")
    given = (
        {key: value for key, value in fields.items() if value is not None}
        if isinstance(fields, dict)
        else fields
    )
    try:
        command = msgspec.convert({} if given is None else given, kind)
    except msgspec.ValidationError as error:
        raise BadScript(f"command {index} ({name}): {error}") from error
    if isinstance(command, Run) and command.capture is not None:
        _check_captures(index, command.capture)
    return Step(command, raw)


def _check_captures(index: int, captures: Captures) -> None:
    for mode in (captures.stdout, captures.stderr):
        for limits in () if mode is None else (mode.at_end, mode.stream):
            if limits is None:
                continue
            if limits.format not in _FORMATS:
                raise BadScript(f"command {index}: unknown capture format {limits.format!r}")
            sizes = (limits.head, limits.tail, limits.head_tail, limits.limit)
            if any(size is not None and size < 0 for size in sizes):
                raise BadScript(f"command {index}: a capture limit is negative")
