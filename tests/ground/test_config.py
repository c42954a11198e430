"""Settings: what is taken from where, and what is refused before anything is rented."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shem import config
from shem.config import DEFAULT_API_URL, NodeAddress, PaymentSettings, parse_amount, subnet_from
from shem.errors import ConfigError

# --- amounts


@given(st.decimals(min_value=Decimal("1e-18"), max_value=10**9, places=18))
def test_an_amount_may_be_a_number_or_its_text_and_loses_nothing(amount: Decimal) -> None:
    assert parse_amount(amount, "budget") == amount
    assert parse_amount(str(amount), "budget") == amount
    assert parse_amount(f" {amount} ", "budget") == amount


@given(st.integers(1, 10**9))
def test_whole_amounts_are_exact(amount: int) -> None:
    assert parse_amount(amount, "budget") == amount


@given(st.floats(min_value=1e-15, max_value=1e9))
def test_a_float_means_the_number_it_is_written_as(amount: float) -> None:
    assert parse_amount(amount, "budget") == Decimal(str(amount))


def test_a_tenth_is_a_tenth() -> None:
    assert parse_amount(0.1, "budget") == Decimal("0.1")


junk = (
    st.text().filter(lambda text: not text.strip().replace("_", "").isdecimal() and "e" not in text.lower())
    | st.floats(max_value=0)
    | st.integers(max_value=0)
    | st.decimals(max_value=0, allow_nan=True)
    | st.booleans()
    | st.none()
    | st.binary()
    | st.lists(st.integers())
    | st.complex_numbers()
)


@given(junk)
@example("1 GLM")
@example("")
@example("0x10")
@example("1,5")
@example("-0")
@example("nan")
@example("sNaN")
@example("Infinity")
@example(float("nan"))
@example(float("inf"))
@example(Decimal("sNaN"))
@example(-(10**4000))
def test_junk_is_no_amount(value: object) -> None:
    try:
        amount = parse_amount(value, "the limit")
    except ConfigError as refusal:
        assert "the limit must be" in str(refusal)
    else:
        # Random text may happen to be a number after all.
        assert isinstance(value, str)
        assert amount == Decimal(value) and 0 < amount <= 10**9


@pytest.mark.parametrize("value", [10**9 + 1, 1e10, "1e999999999", Decimal("1e30"), 10**5000], ids=range(5))
def test_more_than_there_is_is_no_amount_and_is_not_written_out(value: object) -> None:
    with pytest.raises(ConfigError, match="at most 1000000000 GLM") as refusal:
        parse_amount(value, "budget")
    assert len(str(refusal.value)) < 200


# --- payment


def test_payment_is_by_default_on_the_test_network() -> None:
    settings = PaymentSettings.make(1, environ={})
    assert (settings.driver, settings.network, settings.platform) == (
        "erc20",
        "holesky",
        "erc20-holesky-tglm",
    )


def test_arguments_count_more_than_the_environment_and_that_more_than_the_defaults() -> None:
    environ = {"YAGNA_PAYMENT_DRIVER": "zksync", "YAGNA_PAYMENT_NETWORK": "polygon"}
    assert PaymentSettings.make(1, environ=environ).platform == "zksync-polygon-glm"
    assert PaymentSettings.make(1, "erc20", environ=environ).platform == "erc20-polygon-glm"
    assert PaymentSettings.make(1, "erc20", "Goerli", environ=environ).platform == "erc20-goerli-tglm"
    assert subnet_from(None, {}) == "public"
    assert subnet_from(None, {"YAGNA_SUBNET": "mine"}) == "mine"
    assert subnet_from("this", {"YAGNA_SUBNET": "mine"}) == "this"


@pytest.mark.parametrize("network", sorted(config.MAINNETS))
def test_real_networks_pay_with_the_real_token(network: str) -> None:
    assert PaymentSettings.make(1, network=network, environ={}).platform == f"erc20-{network}-glm"


# --- the node's address

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40)


@given(KEYS)
def test_an_address_never_shows_its_key(key: str) -> None:
    address = NodeAddress("http://node", key)
    assert key not in repr(address).replace("NodeAddress(url='http://node')", "")
    assert key not in str(address).replace("NodeAddress(url='http://node')", "")


@given(KEYS)
def test_the_environment_names_a_node(key: str) -> None:
    assert NodeAddress.from_environment({"YAGNA_APPKEY": key}) == NodeAddress(DEFAULT_API_URL, key)
    full = {"YAGNA_APPKEY": f" {key} ", "YAGNA_API_URL": " https://n:1 "}
    assert NodeAddress.from_environment(full) == NodeAddress("https://n:1", key)


@pytest.mark.parametrize(
    "environ", [{}, {"YAGNA_APPKEY": ""}, {"YAGNA_APPKEY": "  "}, {"YAGNA_API_URL": "http://n"}]
)
def test_without_a_key_there_is_no_node(environ: dict[str, str]) -> None:
    assert NodeAddress.from_environment(environ) is None


@given(st.text())
@example("http://[")
@example("http://n:99999")
@example("http://n:port")
@example("http://:7465")
@example("ftp://n")
@example("127.0.0.1:7465")
@example("http://")
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no http") as refusal:
        NodeAddress(url, "key")
    assert DEFAULT_API_URL in str(refusal.value), "it says what is expected"


@pytest.mark.parametrize("url", ["http://127.0.0.1:7465", "https://node.example/base/", "http://[::1]:7465"])
def test_http_addresses_of_all_forms_are_taken(url: str) -> None:
    assert NodeAddress(url, "key").url == url


@pytest.mark.parametrize("key", ["", "two\nlines", "clé", "tab\t"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        NodeAddress("http://node", key)
    assert not key or key not in str(refusal.value)


@pytest.mark.parametrize(
    "frozen",
    [NodeAddress("http://node", "key"), PaymentSettings.make(1, environ={})],
    ids=lambda one: type(one).__name__,
)
def test_settings_are_frozen(frozen: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(frozen, dataclasses.fields(frozen)[0].name, "other")


def test_the_embedded_node_offered_last_is_the_one_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_embedded", [])
    assert config.embedded_node() is None
    first, second = (lambda: None), (lambda: None)
    config.offer_embedded_node(first)  # type: ignore[arg-type]  # never entered here
    config.offer_embedded_node(second)  # type: ignore[arg-type]  # never entered here
    assert config.embedded_node() is second
