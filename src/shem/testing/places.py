"""Where something is in a user's own code, as ``file:line``."""

from __future__ import annotations

import os
import sysconfig
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


def users_frame_of(error: BaseException) -> tuple[FrameType, int] | None:
    """The same as a frame, and its line."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if is_users(trace.tb_frame.f_code):
            found = trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
    return found


def is_users(code: CodeType) -> bool:
    """Whether some code is neither shem's, nor Python's, nor that of an installed library."""
    name = code.co_filename
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
