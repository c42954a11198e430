"""Set-up of structlog: readable on a terminal, JSON lines when piped, app keys never shown.

A library must not configure logging behind its user's back, so nothing here runs on import: the command
line calls `configure`, an embedding program may. Without it structlog's own defaults apply.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog

from shem.errors import ConfigError

_SECRET_NAMES = re.compile(r"app_?key|authorization|auth_?token|secret", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+|authToken=)[^\s&\"']+", re.IGNORECASE)
HIDDEN = "•••"


class Redactor:
    """A structlog processor that hides app keys, by field name, by form, and by their known values.

    It looks into fields that hold collections, and at what other objects would be printed as.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = {secret for secret in secrets if secret}

    def learn(self, secret: str) -> None:
        """Hide this value too, wherever it turns up."""
        if secret:
            self._secrets.add(secret)

    def __call__(
        self, _logger: object, _method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Clean one log event's fields, in place."""
        for name, value in fields.items():
            fields[name] = self._field(name, value)
        return fields

    def _field(self, name: object, value: object) -> object:
        return HIDDEN if _SECRET_NAMES.search(str(name)) else self._value(value)

    def _value(self, value: object) -> object:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.clean(value)
            case Mapping():
                return {self._value(key): self._field(key, item) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._value(item) for item in value]
            case BaseException():
                return self.clean(str(value) or repr(value))
        for text in (str(value), repr(value)):
            if (cleaned := self.clean(text)) != text:
                return cleaned
        return value

    def clean(self, text: str) -> str:
        """`text` with every known or recognisable secret replaced."""
        # The longest first: a secret that begins another would leave the other's end standing.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return _BEARER.sub(rf"\1{HIDDEN}", text)


class _StandardError(io.TextIOBase):
    """Standard error as it is when something is written: a live display may stand in for it meanwhile."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


#: The process's redactor: whoever comes to hold a key tells it.
redactor = Redactor()


def configure(*, level: str = "info", json: bool | None = None, stream: TextIO | None = None) -> None:
    """Configure structlog for a program.

    Args:
        level: the least level shown (``debug``, ``info``, ``warning``, ``error``).
        json: JSON lines if true, text for people if false; by default text exactly on a terminal.
        stream: where to write; by default standard error, so that a program's output stays its own.

    Raises `ConfigError` for a level that does not exist.
    """
    if (least := logging.getLevelNamesMapping().get(level.upper())) is None:
        raise ConfigError(f"log level {level!r} is none of debug, info, warning, error")
    out = stream if stream is not None else cast(TextIO, _StandardError())
    as_json = not out.isatty() if json is None else json
    renderer: Callable[..., Any]
    if as_json:
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=20, event_key="message")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            # Events come with the time at which they happened, which is the better one for a program to read.
            structlog.processors.MaybeTimeStamper(fmt="iso", utc=True)
            if as_json
            else structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            redactor,
            # A move's own event goes by that name; the line's name is its message.
            structlog.processors.EventRenamer("message", replace_by="_event"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    # It logs every callback at INFO: 7 µs a move turn into 14 (measured); moves are logged by shem, once.
    logging.getLogger("transitions").setLevel(logging.WARNING)


def get_logger(name: str) -> Any:
    """A structlog logger that says which part of shem speaks. Lazy: it heeds what is configured later."""
    return structlog.get_logger(part=name)


def wants_details() -> bool:
    """Whether a program has said how it wants its logs; until then, details would only flood its output."""
    return structlog.is_configured()
