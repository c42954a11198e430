"""From dataclass fields to the market's properties and constraints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shem import props
from shem.devnet.constraints import parse
from shem.errors import ConfigError
from shem.payload import Payload
from shem.props import all_of, compare, constraint, demand_parts, prop


@dataclass
class Database(Payload):
    runtime: str = constraint(props.RUNTIME_NAME, default="postgres")
    min_mem_gib: float | None = constraint(props.MEM_GIB, operator=">=", default=1.0)
    region: str | None = prop("acme.region", default="eu")
    features: list[str] = constraint("acme.features", default_factory=lambda: ["ssl", "wal"])  # noqa: RUF009
    note: str = "no part of the market"


def test_fields_become_properties_and_constraints_and_others_are_left_alone() -> None:
    assert demand_parts(Database()) == (
        {"acme.region": "eu"},
        [
            "(golem.runtime.name=postgres)",
            "(golem.inf.mem.gib>=1.0)",
            "(acme.features=ssl)",
            "(acme.features=wal)",
        ],
    )


def test_none_leaves_a_field_out() -> None:
    properties, constraints = demand_parts(Database(min_mem_gib=None, region=None, features=[]))
    assert (properties, constraints) == ({}, ["(golem.runtime.name=postgres)"])


def test_what_is_no_dataclass_is_refused_by_its_own_type() -> None:
    with pytest.raises(TypeError):
        demand_parts(object())


@pytest.mark.parametrize("operator", ["!=", "==", "~=", "", "<>"])
def test_there_is_no_operator_but_the_market_s(operator: str) -> None:
    with pytest.raises(ConfigError, match="is not one of =, >=, <=, >, <"):
        constraint("a.b", operator=operator)


values = st.text(max_size=20) | st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(st.sampled_from(["=", ">=", "<=", ">", "<"]), values)
@example("=", "a)(b=c")
@example("=", "a)")
@example("=", "(")
def test_a_comparison_is_written_exactly_or_refused(operator: str, value: Any) -> None:
    text = str(value)
    try:
        written = compare("acme.key", operator, value)
    except ConfigError as refusal:
        assert "(" in text or ")" in text
        assert "acme.key" in str(refusal) and "bracket" in str(refusal)
    else:
        assert "(" not in text and ")" not in text
        expected = text.lower() if isinstance(value, bool) else text
        assert written == f"(acme.key{operator}{expected})"


@given(st.lists(st.integers(0, 9).map(lambda n: compare("a.b", ">=", n)), max_size=5))
def test_all_of_holds_where_each_does(constraints: list[str]) -> None:
    joined = parse(all_of(constraints))
    for offered in range(-1, 11):
        each = [parse(one).evaluate({"a.b": offered}) for one in constraints]
        assert joined.evaluate({"a.b": offered}) == (all(each) if each else True)


def test_a_single_constraint_stays_as_it_is() -> None:
    assert all_of(["(a=b)"]) == "(a=b)"


def test_a_field_without_a_default_must_be_given() -> None:
    @dataclass
    class Picky(Payload):
        name: str = constraint("acme.name")
        tag: str = prop("acme.tag")

    with pytest.raises(TypeError):
        Picky()  # type: ignore[call-arg]  # that is the point
    assert demand_parts(Picky("n", "t")) == ({"acme.tag": "t"}, ["(acme.name=n)"])
    assert [field.name for field in dataclasses.fields(Picky)] == ["name", "tag"]
