"""The commands a script can hold, as values.

Each knows its form on the wire (contract 3.4.4). Transfers name the requestor's end by a URL that exists only
while the script runs; the engine asks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from shem.errors import ConfigError

#: Output is collected whole: it is read by polling, and streamed capture may be cut short in that mode.
_CAPTURE = {"stdout": {"atEnd": {"format": "str"}}, "stderr": {"atEnd": {"format": "str"}}}


@dataclass(frozen=True, slots=True)
class Deploy:
    """Make the runtime's file system and network."""

    options: Mapping[str, Any] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """Form on the wire."""
        return {"deploy": dict(self.options)}

    def __str__(self) -> str:
        return "deploy"


@dataclass(frozen=True, slots=True)
class Start:
    """Make the runtime ready to run programs."""

    args: tuple[str, ...] = ()

    def wire(self) -> dict[str, Any]:
        """Form on the wire."""
        return {"start": {"args": list(self.args)}}

    def __str__(self) -> str:
        return "start"


@dataclass(frozen=True, slots=True)
class Terminate:
    """Take the runtime down; the activity stays and can be deployed again."""

    def wire(self) -> dict[str, Any]:
        """Form on the wire."""
        return {"terminate": {}}

    def __str__(self) -> str:
        return "terminate"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a program to its end."""

    program: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.env.items():
            if not name.isidentifier() or not name.isascii():
                raise ConfigError(f"run {self.program}: {name!r} is no name for an environment variable")
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise ConfigError(
                    f"run {self.program}: {name} cannot be set to {value!r:.80}: "
                    f"a NUL, or half of a surrogate pair, cannot be handed to a program"
                )

    def wire(self) -> dict[str, Any]:
        """Form on the wire. The protocol has no field for an environment, so a shell sets it."""
        program, args = self.program, list(self.args)
        if self.env:
            exports = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in self.env.items())
            program, args = "/bin/sh", ["-c", f'{exports}; exec "$@"', "sh", program, *args]
        return {"run": {"entry_point": program, "args": args, "capture": _CAPTURE}}

    def __str__(self) -> str:
        text = " ".join(["run", self.program, *(shlex.quote(arg) for arg in self.args)])
        return text if len(text) <= 120 else text[:119] + "…"


@dataclass(frozen=True, slots=True)
class Upload:
    """Send a file or bytes to a path inside the runtime."""

    content: Path | bytes
    to: str

    def wire(self, url: str) -> dict[str, Any]:
        """Form on the wire; `url` is where the provider reads from."""
        return {"transfer": {"from": url, "to": f"container:{self.to}"}}

    def __str__(self) -> str:
        what = f"{len(self.content)} bytes" if isinstance(self.content, bytes) else str(self.content)
        return f"upload {what} to {self.to}"


@dataclass(frozen=True, slots=True)
class Download:
    """Fetch a file from inside the runtime, into a file here, or into memory where `to` is None.

    `limit` is the most bytes taken into memory; more is an error, never a truncation. With `as_json` the
    bytes are parsed.
    """

    path: str
    to: Path | None
    limit: int | None = None
    as_json: bool = False

    def wire(self, url: str) -> dict[str, Any]:
        """Form on the wire; `url` is where the provider writes to."""
        return {"transfer": {"from": f"container:{self.path}", "to": url}}

    def __str__(self) -> str:
        return f"download {self.path}" + (f" to {self.to}" if self.to else "")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Let the provider itself download a URL to a path inside the runtime."""

    url: str
    to: str

    def wire(self) -> dict[str, Any]:
        """Form on the wire."""
        return {"transfer": {"from": self.url, "to": f"container:{self.to}"}}

    def __str__(self) -> str:
        return f"fetch {self.url} to {self.to}"


Command: TypeAlias = Deploy | Start | Terminate | Run | Upload | Download | Fetch
