"""What several commands share: option values, and errors that a user can mend."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Mendable(click.ClickException):
    """An error that the user can mend: one line and exit code 2."""

    exit_code = 2


def _refusal(param: click.Parameter | None, what: str) -> Mendable:
    return Mendable(f"{param.opts[0]}: {what}" if param is not None else what)


class Duration(click.ParamType[float]):
    """A time such as ``30s``, ``5m``, ``1h``, or a plain number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            raise _refusal(param, f"{value!r} is no duration; write 30s, 5m or 1h")
        seconds = float(match[1]) * _UNITS[match[2] or "s"]
        if seconds <= 0:
            raise _refusal(param, f"{value!r} is no time at all")
        return seconds


class Image(click.ParamType[tuple[str, Path]]):
    """An image folder for the devnet, as ``HASH=DIR``."""

    name = "image"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """Hash and folder."""
        if isinstance(value, tuple):
            return value
        image_hash, separator, folder = str(value).partition("=")
        if not (separator and image_hash and folder):
            raise _refusal(param, f"{value!r} is not of the form HASH=DIR")
        return image_hash, Path(folder)


class Param(click.ParamType[tuple[str, Any]]):
    """A constructor argument, as ``name=value``; the value is read as JSON where it is JSON, else as text."""

    name = "param"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Name and value."""
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not separator or not name.isidentifier():
            raise _refusal(param, f"{value!r} is not of the form name=value")
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text
