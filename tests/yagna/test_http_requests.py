from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from urllib.parse import parse_qs, unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import ConfigError
from shem.ids import AgreementId, AllocationId
from shem.yagna.http import requests
from shem.yagna.models import Acceptance, AllocationChange, DemandSpec, NewAllocation, Reason

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    min_value=datetime(2000, 1, 1),
    max_value=datetime(2200, 1, 1),
    timezones=zones,
)
amounts = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=18)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(moments)
def test_times_are_sent_in_utc_with_a_z_and_lose_nothing(moment: datetime) -> None:
    text = requests.timestamp(moment)
    assert text.endswith("Z") and "+" not in text
    assert datetime.fromisoformat(text) == moment


@given(moments, moments)
def test_times_sort_as_their_texts_do(one: datetime, other: datetime) -> None:
    assert (one < other) == (requests.timestamp(one) < requests.timestamp(other))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no zone"):
        requests.timestamp(datetime(2026, 1, 1))


def test_a_time_that_utc_cannot_say_is_refused() -> None:
    with pytest.raises(ConfigError, match="no form in UTC"):
        requests.timestamp(datetime.min.replace(tzinfo=timezone(timedelta(hours=5))))


@given(st.text(), st.text())
def test_ids_of_any_form_are_one_segment_of_the_path_each(one: str, other: str) -> None:
    path = requests.path("/market-api/v1", one, other)
    assert [unquote(segment) for segment in path.split("/")] == ["", "market-api", "v1", one, other]
    assert "?" not in path and "#" not in path and " " not in path


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=5))
def test_queries_come_back_as_they_were(parameters: dict[str, str]) -> None:
    text = requests.query(parameters)
    assert {key: values[0] for key, values in parse_qs(text.removeprefix("?")).items()} == parameters
    assert (text == "") == (not parameters)


@pytest.mark.parametrize(
    ("duration", "text"),
    [(5.0, "5"), (0, "0"), (-1.0, "0"), (0.25, "0.25"), (1e6, "1000000"), (1 / 3, "0.333")],
)
def test_time_limits_are_plain_seconds(duration: float, text: str) -> None:
    assert requests.seconds(duration) == text


@pytest.mark.parametrize("duration", [float("inf"), float("nan")])
def test_a_time_limit_without_end_is_refused(duration: float) -> None:
    with pytest.raises(ConfigError, match="time limit"):
        requests.seconds(duration)


@given(amounts)
def test_amounts_are_plain_decimal_strings(amount: Decimal) -> None:
    sent = json.loads(
        requests.body(Acceptance(total_amount_accepted=amount, allocation_id=AllocationId("a")))
    )
    text = sent["totalAmountAccepted"]
    assert isinstance(text, str) and "E" not in text
    assert Decimal(text) == amount


@given(json_values)
def test_json_values_are_sent_as_they_are(value: object) -> None:
    assert json.loads(requests.body(value)) == value


@given(st.dictionaries(st.text(), json_values, max_size=5), st.text())
def test_demands_survive_the_way_to_the_node(properties: dict[str, object], constraints: str) -> None:
    demand = DemandSpec(properties=properties, constraints=constraints)
    assert msgspec.json.decode(requests.body(demand), type=DemandSpec) == demand


@given(amounts, st.none() | moments)
def test_allocations_survive_the_way_to_the_node(amount: Decimal, timeout: datetime | None) -> None:
    new = NewAllocation(address="0x1", payment_platform="erc20-x-y", total_amount=amount, timeout=timeout)
    assert msgspec.json.decode(requests.body(new), type=NewAllocation) == new


def test_a_change_names_only_what_changes() -> None:
    assert json.loads(requests.body(AllocationChange(total_amount=Decimal("1E-7")))) == {
        "totalAmount": "0.0000001"
    }


def test_a_reason_spells_its_codes_with_dots() -> None:
    assert json.loads(requests.body(Reason(message="done", requestor_code="Success"))) == {
        "message": "done",
        "golem.requestor.code": "Success",
    }


def test_times_in_bodies_are_in_utc_too() -> None:
    moment = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    assert json.loads(requests.body({"validTo": moment})) == {"validTo": "2026-01-02T01:00:00.000000Z"}
    assert moment.astimezone(UTC).hour == 1


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        [float("-inf")],
        {"a": Decimal("NaN")},
        {"a": object()},
        {"a": "\ud800"},
        {(1, 2): 3},
    ],
    ids=["nan", "infinity", "decimal nan", "object", "lone surrogate", "tuple as key"],
)
def test_what_json_cannot_say_is_refused_before_anything_is_sent(value: object) -> None:
    with pytest.raises(ConfigError):
        requests.body(value)


def test_ids_are_opaque_but_typed() -> None:
    assert requests.path(requests.MARKET, "agreements", AgreementId("a/b?c")) == (
        "/market-api/v1/agreements/a%2Fb%3Fc"
    )
