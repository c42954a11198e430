"""Where something is in a user's own code, as ``file:line``."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

_SHEM: Final = str(Path(__file__).parents[1])
_LIBRARY: Final = sysconfig.get_path("stdlib")


def place_of(error: BaseException) -> str:
    """The last place in the user's own code that an error went through, as ``file:line``."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if is_users(trace.tb_frame.f_code):
            found = _place(trace.tb_frame.f_code, trace.tb_lineno)
        trace = trace.tb_next
    return found


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an error comes from; looked at when it is raised, since tracebacks do not last.

    Attributes:
        module: of the innermost function.
        line: the last line of the user's own code that it went through, as text.
        held: the values of that code that the line names.
    """

    module: str = ""
    line: str = ""
    held: tuple[object, ...] = ()

    @classmethod
    def of(cls, error: BaseException) -> Origin:
        """That of an error with its traceback."""
        module, users, trace = "", None, error.__traceback__
        while trace is not None:
            module = str(trace.tb_frame.f_globals.get("__name__", ""))
            users = trace if is_users(trace.tb_frame.f_code) else users
            trace = trace.tb_next
        if users is None:
            return cls(module)
        frame = users.tb_frame
        line = linecache.getline(frame.f_code.co_filename, users.tb_lineno)
        named = set(re.findall(r"\w+", line))
        return cls(module, line, tuple(value for name, value in frame.f_locals.items() if name in named))


def is_users(code: CodeType) -> bool:
    """Whether some code is neither shem's, nor Python's, nor that of an installed library."""
    return is_users_file(code.co_filename)


def is_users_file(name: str) -> bool:
    """The same for the file that it is from."""
    return not (name.startswith((_SHEM, _LIBRARY, "<frozen")) or "site-packages" in name)


def caller(frame: FrameType | None) -> str:
    """Where the user's code called what calls this, unless shem did."""
    while frame is not None:
        if is_users(frame.f_code):
            return _place(frame.f_code, frame.f_lineno)
        if frame.f_code.co_filename.startswith(_SHEM):
            # Its own business, whoever asked for it.
            return ""
        frame = frame.f_back
    return ""


def innermost(frame: FrameType | None) -> str:
    """Where the user's code is at work, whatever it has called."""
    while frame is not None and not is_users(frame.f_code):
        frame = frame.f_back
    return _place(frame.f_code, frame.f_lineno) if frame is not None else ""


def place_in(inside: object) -> str:
    """Where a generator of the user's is suspended, or where a function of his begins."""
    frame = getattr(inside, "ag_frame", None) or getattr(inside, "cr_frame", None)
    if isinstance(frame, FrameType) and is_users(frame.f_code):
        return _place(frame.f_code, frame.f_lineno)
    code = getattr(inside, "__code__", None)
    return _place(code, code.co_firstlineno) if isinstance(code, CodeType) and is_users(code) else ""


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_filename}:{line}"


def short(place: str) -> str:
    """A place as one would type it in the present folder."""
    name, colon, line = place.rpartition(":")
    if not colon:
        return place
    near = os.path.relpath(name)
    return f"{name if near.startswith('..') else near}:{line}"
