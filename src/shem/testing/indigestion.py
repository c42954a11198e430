"""Telling where an error comes from the empty output of a command that nobody has scripted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from shem.script.commands import Run as RunCommand
from shem.testing.findings import Mistake, Symptom
from shem.testing.observed import Observer, Run
from shem.testing.places import Origin
from shem.testing.replies import Replies, command_line

#: Errors that the lack of an output leads to.
_INDIGESTION: Final = (TypeError, ValueError, AttributeError, LookupError)


def digested(symptom: Symptom, observer: Observer, replies: Replies) -> Symptom:
    """The symptom; or, where an error comes of the empty output of a command that nobody scripted, that."""
    run = next((one for one in observer.runs if one.error is not None and _is_of(symptom, one)), None)
    if run is None or not isinstance(run.error, _INDIGESTION):
        return symptom
    commands = [line for line in _swallowed(run) if line in replies.unscripted]
    if not commands:
        return symptom
    said = f"{run.handler}() cannot digest the empty output of {' or '.join(f'`{one}`' for one in commands)}"
    error = " ".join(str(run.error).split())[:200]
    return replace(symptom, mistake=Mistake.UNSCRIPTED, said=f"{said} ({type(run.error).__name__}: {error})")


def _is_of(symptom: Symptom, run: Run) -> bool:
    return symptom.mistake is Mistake.RAISES and (symptom.where, symptom.place) == (run.handler, run.place)


def _swallowed(run: Run) -> list[str]:
    """The commands whose results were in the hands of the line that failed; else those of the last script."""
    origin = run.origin or Origin()
    if re.search(r"\braise\b", origin.line):
        # It was made on purpose, and of whatever.
        return []
    held = [line for value in origin.held if (line := _line_of(getattr(value, "command", None)))]
    if not held and run.scripts:
        held = [line for one in run.scripts[-1].commands if (line := _line_of(one))]
    return list(dict.fromkeys(held))


def _line_of(command: object) -> str:
    return command_line(command.program, command.args) if isinstance(command, RunCommand) else ""
