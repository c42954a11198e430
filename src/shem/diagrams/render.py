"""The interface: a table and a format in, text or bytes out."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, overload

from shem.diagrams.dot import write_dot
from shem.diagrams.markdown import write_markdown
from shem.diagrams.mermaid import write_mermaid
from shem.diagrams.picture import make_picture
from shem.diagrams.png import to_png
from shem.diagrams.svg import write_svg
from shem.lifecycle.record import Record
from shem.lifecycle.table import Table

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


class Format(enum.Enum):
    """What a diagram can be written as."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    PNG = "png"
    MARKDOWN = "markdown"

    @property
    def suffix(self) -> str:
        """The usual ending of such files, with its dot."""
        return {"mermaid": ".mmd", "markdown": ".md"}.get(self.value, f".{self.value}")

    @classmethod
    def of_suffix(cls, suffix: str) -> Format | None:
        """The format whose files end so, if any."""
        return next((format for format in cls if format.suffix == suffix.lower()), None)


TextFormat = Literal[Format.MERMAID, Format.DOT, Format.SVG, Format.MARKDOWN]


@overload
def render(
    table: Table[S, E],
    format: TextFormat,
    *,
    title: str | None = ...,
    counts: Mapping[S, int] | None = ...,
    path: Sequence[Record[S, E]] = ...,
    now: float | None = ...,
    notes: Mapping[S, Sequence[str]] | None = ...,
) -> str: ...
@overload
def render(
    table: Table[S, E],
    format: Literal[Format.PNG],
    *,
    title: str | None = ...,
    counts: Mapping[S, int] | None = ...,
    path: Sequence[Record[S, E]] = ...,
    now: float | None = ...,
    notes: Mapping[S, Sequence[str]] | None = ...,
) -> bytes: ...
@overload
def render(
    table: Table[S, E],
    format: Format | str,
    *,
    title: str | None = ...,
    counts: Mapping[S, int] | None = ...,
    path: Sequence[Record[S, E]] = ...,
    now: float | None = ...,
    notes: Mapping[S, Sequence[str]] | None = ...,
) -> str | bytes: ...
def render(
    table: Table[S, E],
    format: Format | str,
    *,
    title: str | None = None,
    counts: Mapping[S, int] | None = None,
    path: Sequence[Record[S, E]] = (),
    now: float | None = None,
    notes: Mapping[S, Sequence[str]] | None = None,
) -> str | bytes:
    """Draw a table: bytes for PNG, text for all other formats. The same arguments give the same text.

    Args:
        table: a table of `shem.lifecycle`, or any other.
        format: a `Format` or its value, such as ``"svg"``.
        title: instead of the table's own; empty for none.
        counts: how many things are in each state; states that are not named count as 0.
        path: the records of one thing, oldest first; states and moves they touch stand out, all others fade.
        now: the clock's monotonic time, so that the time spent in the last state of `path` is known too.
        notes: what to say with states, a few words or a sentence each.

    Raises `ConfigError` where `counts`, `path` or `notes` do not fit the table, and for PNG without the
    packages of the extra ``diagrams``; `ValueError` for an unknown format.
    """
    format = Format(format)
    picture = make_picture(table, title=title, counts=counts, path=path, now=now, notes=notes)
    match format:
        case Format.MERMAID:
            return write_mermaid(picture)
        case Format.DOT:
            return write_dot(picture)
        case Format.MARKDOWN:
            return write_markdown(table, picture, path)
        case Format.SVG:
            return write_svg(picture)
        case Format.PNG:
            return to_png(write_svg(picture))
