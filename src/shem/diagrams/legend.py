"""What the colours and brackets of a picture stand for."""

from __future__ import annotations

from dataclasses import dataclass

from shem.diagrams.picture import ELSE, Picture
from shem.diagrams.style import KIND_COLOUR, KIND_OF, MIXED


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the legend; `colour` is empty where it explains something else than a colour."""

    colour: str
    text: str


def legend(picture: Picture) -> list[Entry]:
    """The entries that apply to a picture, and no others."""
    steps = [step for arrow in picture.arrows for step in arrow.steps]
    kinds = {step.kind for step in steps}
    named = {actor for step in steps for actor in step.actors}
    entries = [
        Entry(colour, f"{kind.value}: {', '.join(a.value for a, k in KIND_OF.items() if k is kind)}")
        for kind, colour in KIND_COLOUR.items()
        if kind in kinds or any(k is kind and a.value in named for a, k in KIND_OF.items())
    ]
    if any(arrow.kind is None for arrow in picture.arrows):
        entries.append(Entry(MIXED, "several of them"))
    guards = {step.guard for step in steps}
    if guards - {"", ELSE}:
        entries.append(Entry("", "[guard]: only if it holds"))
    if ELSE in guards:
        entries.append(Entry("", f"[{ELSE}]: if no guard of the event holds here"))
    return entries
