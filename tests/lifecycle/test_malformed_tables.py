"""A table that contradicts itself is refused when it is made, with the pair it is about."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, Actor, Move, Table, Verdict


class Door(enum.Enum):
    OPEN = "open"
    SHUT = "shut"
    GONE = "gone"


class Act(enum.Enum):
    PUSH = "push"
    PULL = "pull"


SHUT = Move(Door.OPEN, Act.PUSH, Door.SHUT)
ANYBODY = frozenset({Actor.USER})


def table(**changed: Any) -> Table[Door, Act]:
    arguments: dict[str, Any] = {
        "initial": Door.OPEN,
        "final": frozenset({Door.GONE}),
        "raised_by": {Act.PUSH: ANYBODY, Act.PULL: ANYBODY},
        "moves": (SHUT, Move(Door.SHUT, Act.PULL, Door.GONE)),
        "ignored": frozenset({(Door.GONE, Act.PULL)}),
    }
    return Table("door", **{**arguments, **changed})


def test_a_sound_table_is_taken_and_the_rest_of_its_pairs_are_illegal() -> None:
    sound = table()
    assert sound.verdict(Door.OPEN, Act.PUSH) is Verdict.MOVE
    assert sound.verdict(Door.GONE, Act.PULL) is Verdict.IGNORE
    assert sound.verdict(Door.GONE, Act.PUSH) is Verdict.ILLEGAL


def guarded(*when: str, unless: tuple[str, ...] = (), to: Door = Door.GONE) -> Move[Door, Act]:
    return Move(Door.OPEN, Act.PUSH, to, when=when, unless=unless)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"moves": (SHUT, SHUT)}, "push in open: a move shadows one after it"),
        ({"moves": (SHUT, guarded("locked"))}, "push in open: a move shadows one after it"),
        ({"moves": (guarded("a"), guarded("a", "b"))}, "push in open: a move shadows one after it"),
        (
            {"moves": (guarded("a"), guarded("b"), guarded("b", unless=("c",)))},
            "push in open: a move shadows one after it",
        ),
        (
            {"ignored": frozenset({(Door.OPEN, Act.PUSH)})},
            "push in open: both always moves and is ignored",
        ),
        (
            {"moves": (SHUT, Move(Door.GONE, Act.PULL, Door.OPEN)), "ignored": frozenset()},
            "pull in gone: moves out of a final state",
        ),
        ({"raised_by": {Act.PUSH: ANYBODY, Act.PULL: frozenset()}}, "nobody may raise pull"),
        ({"raised_by": {Act.PUSH: ANYBODY}}, "nobody may raise pull"),
        ({"moves": (guarded("a", unless=("a",)),)}, "can never be taken"),
        ({"moves": (Move(Door.OPEN, "kick", Door.SHUT),)}, "no pair of its states and events"),
        ({"ignored": frozenset({("ajar", Act.PUSH)})}, "no pair of its states and events"),
        ({"moves": (Move(Door.OPEN, Act.PUSH, "ajar"),)}, "ajar is none of its states"),
    ],
)
def test_a_malformed_table_is_refused(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refusal:
        table(**changed)
    assert str(refusal.value).startswith("door: "), "it says which table"


def test_moves_with_different_guards_may_share_a_pair_and_are_tried_in_order() -> None:
    shared = table(moves=(guarded("a", "b"), guarded("a", to=Door.SHUT), guarded(unless=("b",))))
    assert [move.condition for move in shared.cell(Door.OPEN, Act.PUSH).moves] == ["a and b", "a", "not b"]
    table(moves=(guarded("a", unless=("b",)), guarded("a", to=Door.SHUT)))


@pytest.mark.parametrize("real", [SERVICE, AGREEMENT, ACTIVITY], ids=lambda one: one.name)
def test_conditions_in_words_name_exactly_the_guards(real: Table[Any, Any]) -> None:
    for move in real.moves:
        assert move.guarded == bool(move.condition)
        for name in (*move.when, *move.unless):
            assert name in move.condition
