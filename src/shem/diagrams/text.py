"""Pieces of text in a drawing: what a label says, and how wide it is at most."""

from __future__ import annotations

from dataclasses import dataclass

from shem.diagrams.picture import Arrow
from shem.diagrams.style import KIND_COLOUR, QUIET

#: Pixels from one line of text to the next.
LINE_HEIGHT = 16.0
NAME_SIZE, EVENT_SIZE, SMALL_SIZE = 17.0, 12.5, 11.0

# Widths in em, rounded up over the usual sans-serif fonts (DejaVu Sans is the widest of them), so that a
# viewer without the preferred font still sees labels that fit.
_WIDTHS = {
    **dict.fromkeys("ijlI'|", 0.31),
    **dict.fromkeys(" .,:;-!/()[]ftr\\·", 0.41),
    **dict.fromkeys('cskvxyz_J?"`', 0.60),
    **dict.fromkeys("ABEFKLPRSTVXYZC", 0.71),
    **dict.fromkeys("DGHNOQUw&+<=>#^~", 0.84),
    **dict.fromkeys("mMW@%…—", 1.0),
}


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """An upper estimate of a text's width in pixels."""
    em = sum(_WIDTHS.get(char, 0.65 if ord(char) < 0x2E80 else 1.05) for char in text)
    return em * size * (1.14 if bold else 1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of text in one style."""

    text: str
    colour: str
    size: float
    italic: bool = False
    bold: bool = False

    @property
    def width(self) -> float:
        """Upper estimate in pixels."""
        return text_width(self.text, self.size, bold=self.bold)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a label; `meaning` is what hovering over it tells, `faded` puts it in the background."""

    runs: tuple[Run, ...]
    meaning: str = ""
    faded: bool = False

    @property
    def width(self) -> float:
        """Upper estimate in pixels."""
        return sum(run.width for run in self.runs)


def lines_of(arrow: Arrow, *, path_shown: bool = False) -> tuple[Line, ...]:
    """An arrow's label: a line per guard, then a line per event with who raises it."""
    lines: list[Line] = []
    for guard, steps in arrow.by_guard():
        if guard:
            faded = path_shown and not any(step.taken for step in steps)
            lines.append(Line((Run(f"[{guard}]", QUIET, SMALL_SIZE, italic=True),), faded=faded))
        for step in steps:
            event = Run(step.event, KIND_COLOUR[step.kind], EVENT_SIZE, bold=step.taken)
            actors = Run("  " + ", ".join(step.actors), QUIET, SMALL_SIZE)
            faded = path_shown and not step.taken
            lines.append(Line((event, actors), meaning=step.meaning.replace("`", ""), faded=faded))
    return tuple(lines)


def block_size(lines: tuple[Line, ...]) -> tuple[float, float]:
    """Width and height of lines set one below the other."""
    return max((line.width for line in lines), default=0.0), LINE_HEIGHT * len(lines)
