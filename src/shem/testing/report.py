"""What came of a check: its findings, as stories for people and as plain values for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shem.lifecycle import SERVICE, Event, Move, State
from shem.testing.findings import Symptom
from shem.testing.places import short
from shem.testing.plan import Plan


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, the least plan that shows it, and what became of the instances then."""

    symptom: Symptom
    plan: Plan
    became: str

    def planned(self) -> list[str]:
        """The plan as a story."""
        return self.plan.describe() + ([] if self.plan.weight else ["nothing goes wrong"])

    def story(self) -> str:
        """What happens, where, under which circumstances, and what to do, for a person to read."""
        symptom = self.symptom
        lines = [f"{symptom.mistake.summary}: {symptom.said}"]
        if symptom.place:
            lines.append(f"  at {short(symptom.place)}")
        lines += ["  planned:", *(f"    {line}" for line in self.planned())]
        lines += ["  became:", *(f"    {line}" for line in self.became.splitlines())]
        lines.append(f"  what to do: {symptom.mistake.advice}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        symptom = self.symptom
        return {
            "mistake": symptom.mistake.name.lower(),
            "summary": symptom.mistake.summary,
            "where": symptom.where,
            "said": symptom.said,
            "place": symptom.place,
            "advice": symptom.mistake.advice,
            "plan": repr(self.plan),
            "planned": self.planned(),
            "became": self.became.splitlines(),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a check.

    Attributes:
        findings: the mistakes, the gravest first.
        notes: what else is worth knowing, and is no mistake.
        plans, wanted: how many plans of the fault space were lived through, and how many should have been.
        lives: how many lives that took, with those that made the failing plans smaller.
        moves, arrows: how many moves there were in all of them, and which arrows of the table were taken.
        seconds: of real time.
    """

    service: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    plans: int
    wanted: int
    lives: int
    moves: int
    arrows: frozenset[Move[State, Event]]
    seconds: float

    def summary(self) -> str:
        """The figures, in a line."""
        found = f"{len(self.findings)} finding(s)" if self.findings else "nothing found"
        plans = f"{self.plans} plans" if self.plans >= self.wanted else f"{self.plans} of {self.wanted} plans"
        return (
            f"{self.service}: {found}; {plans}, {self.lives} lives, {self.moves} moves, "
            f"{len(self.arrows)} of {len(SERVICE.moves)} arrows of the table, {self.seconds:.1f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """The whole of it as plain values."""
        return {
            "service": self.service,
            "findings": [finding.as_json() for finding in self.findings],
            "notes": list(self.notes),
            "plans": self.plans,
            "wanted": self.wanted,
            "lives": self.lives,
            "moves": self.moves,
            "arrows": {
                "taken": len(self.arrows),
                "of": len(SERVICE.moves),
                "missing": [_arrow(move) for move in SERVICE.moves if move not in self.arrows],
            },
            "seconds": round(self.seconds, 3),
        }


def _arrow(move: Move[State, Event]) -> str:
    guards = [*move.when, *(f"not {guard}" for guard in move.unless)]
    condition = f" if {' and '.join(guards)}" if guards else ""
    return f"{move.source.value} → {move.dest.value} by {move.event.value}{condition}"
