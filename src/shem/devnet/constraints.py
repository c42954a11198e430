"""The market's constraint language: a text in LDAP's filter syntax, asked of a property map.

::

    filter  := "()" | "(" ws content ws ")"
    content := "&" filter* | "|" filter* | "!" filter | name "=*" | name op value
    op      := "=" | "<=" | "<" | ">=" | ">"            value := everything up to the next ")"

The answer is True, False, or None for *undefined*: a comparison with a property that is not there. What the
language does not have: escapes, ``~=``, ``!=`` (``(a!=b)`` speaks of a property named ``a!``), and blanks
around an operator (``(a = b)`` speaks of one named ``a`` and a blank).

Source: contract 4.2 and 4.3, and where it is silent yagna's resolver: a property that is there but cannot be
read as the type asked for (``$d``, ``$v``, ``$t``) is undefined, and ``(|)`` is False. Text after the filter
is an error here, while older nodes ignore it.
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

from shem.devnet.properties import (
    is_there,
    read_decimal,
    read_moment,
    read_number,
    read_version,
    to_float,
)

#: Groups (``&``, ``|``, ``!``) that may be open inside one another.
MAX_NESTING: Final = 128

#: Texts up to this length are kept parsed; so the memory that the cache can take is bounded, too.
CACHED_LENGTH: Final = 16 * 1024

_Order: TypeAlias = Callable[[Any, Any], bool]
_OPERATORS: Final[dict[str, _Order]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_READINGS: Final[dict[str, Callable[[str], Any]]] = {
    "d": read_decimal,
    "v": read_version,
    "t": read_moment,
}

_BLANKS = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[^=<>~()]*")
_REFERENCE = re.compile(r"([^\[\]$]*)(?:\[([^\[\]$]*)\])?(?:\$([dvt]))?")
_OPERATOR = re.compile(r"<=|>=|[=<>]")
_EXCERPT = 40


class ConstraintError(ValueError):
    """A text that is no constraint.

    Attributes:
        problem: what is wrong, in words.
        text: the whole text.
        position: index of the character where it went wrong, from 0.
    """

    def __init__(self, problem: str, text: str, position: int) -> None:
        super().__init__(problem, text, position)
        self.problem, self.text, self.position = problem, text, position

    def __str__(self) -> str:
        start, end = max(0, self.position - _EXCERPT), self.position + _EXCERPT
        before = ("…" if start else "") + self.text[start : self.position]
        after = self.text[self.position : end] + ("…" if end < len(self.text) else "")
        return f"{self.problem}, at character {self.position} (from 0), marked ▸: {before}▸{after}"


class Constraint(ABC):
    """A parsed constraint. Immutable, compared by value, good for any number of property maps."""

    __slots__ = ()

    @abstractmethod
    def evaluate(self, properties: Mapping[str, Any]) -> bool | None:
        """True, False, or None where it is undefined. `properties` must be flat."""


@dataclass(frozen=True, slots=True)
class And(Constraint):
    """All of the parts. Without any it is True, which is what ``()`` means."""

    parts: tuple[Constraint, ...]

    def evaluate(self, properties: Mapping[str, Any]) -> bool | None:
        """False where any part is, else undefined where any part is."""
        answer: bool | None = True
        for part in self.parts:
            one = part.evaluate(properties)
            if one is False:
                return False
            if one is None:
                answer = None
        return answer


@dataclass(frozen=True, slots=True)
class Or(Constraint):
    """Any of the parts. Without any it is False."""

    parts: tuple[Constraint, ...]

    def evaluate(self, properties: Mapping[str, Any]) -> bool | None:
        """True where any part is, else undefined where any part is."""
        answer: bool | None = False
        for part in self.parts:
            one = part.evaluate(properties)
            if one is True:
                return True
            if one is None:
                answer = None
        return answer


@dataclass(frozen=True, slots=True)
class Not(Constraint):
    """The opposite of its part; what is undefined stays so."""

    part: Constraint

    def evaluate(self, properties: Mapping[str, Any]) -> bool | None:
        """Swaps True and False."""
        one = self.part.evaluate(properties)
        return None if one is None else not one


@dataclass(frozen=True, slots=True)
class Reference:
    """What a filter speaks of: a property, an aspect of it, or its text read as another type.

    `reading` is one of ``d`` (decimal), ``v`` (semantic version), ``t`` (RFC 3339 time), or None.
    """

    name: str
    aspect: str | None = None
    reading: str | None = None


@dataclass(frozen=True, slots=True)
class Present(Constraint):
    """``(name=*)``: the property is there. Never undefined."""

    reference: Reference

    def evaluate(self, properties: Mapping[str, Any]) -> bool:
        """Aspects cannot be written in JSON properties, so none is ever there."""
        return self.reference.aspect is None and is_there(properties.get(self.reference.name))


@dataclass(frozen=True, slots=True)
class Operand:
    """The right side of a comparison, read in every way that a property might need."""

    text: str
    number: float | None = field(init=False, compare=False, repr=False)
    pieces: tuple[str, ...] = field(init=False, compare=False, repr=False)
    items: tuple[Operand, ...] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text, items = self.text, None
        # Brackets inside make it an ordinary value: lists hold no lists.
        if len(text) >= 2 and text[0] == "[" and text[-1] == "]" and not re.search(r"[\[\]]", text[1:-1]):
            inner = text[1:-1].strip(" \t\r\n")
            items = tuple(Operand(item.strip(" \t\r\n")) for item in inner.split(",")) if inner else ()
        object.__setattr__(self, "number", read_number(text))
        object.__setattr__(self, "pieces", tuple(text.split("*")))
        object.__setattr__(self, "items", items)

    def equals(self, value: Any) -> bool:
        """Whether a property's value, or one item of a list, is what the text says."""
        if isinstance(value, str):
            return self._fits(value)
        if isinstance(value, bool):
            return self.text == ("true" if value else "false")
        if isinstance(value, (int, float)):
            return self.number is not None and to_float(value) == self.number
        if self.items is None:
            return any(self.equals(item) for item in value)
        return all(any(one.equals(item) for item in value) for one in self.items) and all(
            any(one.equals(item) for one in self.items) for item in value
        )

    def _fits(self, value: str) -> bool:
        # Piece by piece: a pattern of many wildcards would make a regular expression backtrack for ever.
        first, last = self.pieces[0], self.pieces[-1]
        if len(self.pieces) == 1:
            return value == first
        if not (value.startswith(first) and value.endswith(last) and len(value) >= len(first) + len(last)):
            return False
        at, end = len(first), len(value) - len(last)
        for piece in self.pieces[1:-1]:
            found = value.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


@dataclass(frozen=True, slots=True)
class Comparison(Constraint):
    """``(name op value)``: the property stands in this relation to the value.

    `symbol` is the operator as it is written.
    """

    reference: Reference
    symbol: str
    operand: Operand
    _order: _Order = field(init=False, compare=False, repr=False)
    _read: Callable[[str], Any] | None = field(init=False, compare=False, repr=False)
    _typed: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        read = _READINGS[self.reference.reading] if self.reference.reading else None
        object.__setattr__(self, "_order", _OPERATORS[self.symbol])
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_typed", read(self.operand.text) if read else None)

    def evaluate(self, properties: Mapping[str, Any]) -> bool | None:
        """Undefined where the property is not there, or not of the type that is asked for."""
        value = properties.get(self.reference.name)
        if self.reference.aspect is not None or not is_there(value):
            return None
        if self._read is not None:
            left = self._read(value) if isinstance(value, str) else None
            if left is None:
                return None
            return self._typed is not None and self._order(left, self._typed)
        if self.symbol == "=":
            return self.operand.equals(value)
        if isinstance(value, str):
            # By code point, which is the order of the UTF-8 bytes.
            return self._order(value, self.operand.text)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.operand.number is not None and self._order(to_float(value), self.operand.number)
        return False


def parse(text: str) -> Constraint:
    """The constraint that a text says. Takes time in proportion to the text's length.

    Raises `ConstraintError`, also where more than `MAX_NESTING` groups are open inside one another.
    """
    return _parse_cached(text) if len(text) <= CACHED_LENGTH else _parse(text)


def matches(constraints: str, properties: Mapping[str, Any]) -> bool:
    """Whether flat properties satisfy a constraint: only True does, undefined does not (contract 4.3).

    Raises `ConstraintError` where the text is no constraint.
    """
    return parse(constraints).evaluate(properties) is True


@dataclass(slots=True)
class _Group:
    symbol: str
    opened: int
    parts: list[Constraint] = field(default_factory=list)

    def closed(self) -> Constraint:
        if self.symbol == "!":
            return Not(self.parts[0])
        return And(tuple(self.parts)) if self.symbol == "&" else Or(tuple(self.parts))


def _parse(text: str) -> Constraint:
    at = _after_blanks(text, 0)
    if at == len(text):
        raise ConstraintError("the constraint is empty; write () for one that everything satisfies", text, at)
    groups: list[_Group] = []
    while True:
        group = groups[-1] if groups else None
        if group is not None and text.startswith(")", at):
            if group.symbol == "!" and not group.parts:
                raise ConstraintError("'!' needs a filter, such as (!(a=b))", text, at)
            groups.pop()
            node, at = group.closed(), at + 1
        elif not text.startswith("(", at):
            raise _unexpected(text, at, group)
        elif group is not None and group.symbol == "!" and group.parts:
            raise ConstraintError("'!' takes one filter only; put several into (&…) or (|…)", text, at)
        elif text.startswith("()", at):
            node, at = And(()), at + 2
        else:
            opened, at = at, _after_blanks(text, at + 1)
            if at < len(text) and text[at] in "&|!":
                if len(groups) == MAX_NESTING:
                    raise ConstraintError(f"nested more than {MAX_NESTING} groups deep", text, opened)
                groups.append(_Group(text[at], opened))
                at = _after_blanks(text, at + 1)
                continue
            node, at = _parse_simple(text, opened, at)
        at = _after_blanks(text, at)
        if not groups:
            break
        groups[-1].parts.append(node)
    if at != len(text):
        raise ConstraintError("the constraint has ended, but text follows", text, at)
    return node


_parse_cached = lru_cache(maxsize=256)(_parse)


def _parse_simple(text: str, opened: int, at: int) -> tuple[Constraint, int]:
    """A presence or a comparison whose name begins at `at`, and the index after its closing bracket."""
    reference = _parse_reference(text, at)
    end_of_name = _end(_NAME, text, at)
    found = _OPERATOR.match(text, end_of_name)
    if found is None:
        if end_of_name == len(text):
            raise ConstraintError("'(' is never closed", text, opened)
        raise ConstraintError("expected an operator (=, <, <=, > or >=)", text, end_of_name)
    if found[0] == "=" and text.startswith("*", found.end()):
        end = _after_blanks(text, found.end() + 1)
        if end == len(text):
            raise ConstraintError("'(' is never closed", text, opened)
        if text[end] != ")":
            raise ConstraintError("'=*' asks for presence; a value cannot begin with '*'", text, found.end())
        return Present(reference), end + 1
    end = text.find(")", found.end())
    if end < 0:
        raise ConstraintError("'(' is never closed", text, opened)
    return Comparison(reference, found[0], Operand(text[found.end() : end])), end + 1


def _parse_reference(text: str, at: int) -> Reference:
    name = text[at : _end(_NAME, text, at)]
    if not name and at < len(text):
        raise ConstraintError("expected a property's name, '&', '|' or '!'", text, at)
    found = _REFERENCE.fullmatch(name)
    if found is None:
        raise ConstraintError("a name may end in [aspect], and in $d, $v or $t, only", text, at)
    return Reference(*found.groups())


def _unexpected(text: str, at: int, group: _Group | None) -> ConstraintError:
    if at < len(text):
        wanted = "'('" if group is None else "'(' or ')'"
        return ConstraintError(f"expected {wanted}", text, at)
    assert group is not None  # the text is not empty, so a filter has been opened
    return ConstraintError(f"'({group.symbol}' is never closed", text, group.opened)


def _after_blanks(text: str, at: int) -> int:
    return _end(_BLANKS, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
