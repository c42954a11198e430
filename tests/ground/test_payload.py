"""What to rent: images by hash or tag, and what is malformed about them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem import props
from shem.errors import ConfigError
from shem.payload import VmPayload, vm

HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"
hashes = st.text("0123456789abcdefABCDEF", min_size=56, max_size=56)


def repo(**arguments: Any) -> VmPayload:
    return asyncio.run(vm.repo(**arguments))


class Registry:
    """Knows one image, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str | None]] = []

    async def find(self, *, image_hash: str | None, image_tag: str | None) -> tuple[str, str]:
        self.asked.append((image_hash, image_tag))
        return image_hash or "found", "http://images/found.gvmi"


def demand(payload: VmPayload, registry: Registry | None = None) -> tuple[dict[str, Any], list[str]]:
    return asyncio.run(payload.demand(registry))


@given(hashes)
def test_56_hex_digits_are_a_hash_in_either_case(image_hash: str) -> None:
    assert repo(image_hash=image_hash).image_hash == image_hash.lower()


@given(st.text().filter(lambda text: len(text) != 56))
def test_anything_else_is_no_hash_and_its_length_is_told(image_hash: str) -> None:
    with pytest.raises(ConfigError, match=r"image_hash .* is not a SHA3-224 hash") as refusal:
        repo(image_hash=image_hash)
    assert "56 hex digits" in str(refusal.value)


@given(hashes, st.integers(0, 55), st.characters(exclude_characters="0123456789abcdefABCDEF"))
def test_one_wrong_digit_is_enough(image_hash: str, place: int, wrong: str) -> None:
    with pytest.raises(ConfigError, match="is not a SHA3-224 hash"):
        repo(image_hash=image_hash[:place] + wrong + image_hash[place + 1 :])


@pytest.mark.parametrize("names", [{}, {"image_hash": HASH, "image_tag": "golem/node:20"}])
def test_an_image_is_named_by_its_hash_or_by_its_tag(names: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="either by image_hash or by image_tag"):
        repo(**names)


@pytest.mark.parametrize("name", ["min_mem_gib", "min_storage_gib", "min_cpu_threads"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "1", None])
def test_amounts_of_resources_must_be_positive_numbers(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"vm.repo: {name} must be a positive number"):
        repo(image_hash=HASH, **{name: value})


def test_capabilities_given_as_one_string_are_not_taken_letter_by_letter() -> None:
    with pytest.raises(ConfigError, match="capabilities must be a sequence of strings, not the string 'vpn'"):
        repo(image_hash=HASH, capabilities="vpn")


def test_a_demand_for_an_image_says_what_it_needs() -> None:
    payload = repo(image_hash=HASH, min_mem_gib=0.5, min_cpu_threads=2, capabilities=["vpn", "inet"])
    properties, constraints = demand(payload)
    assert properties == {
        props.TASK_PACKAGE: f"hash:sha3:{HASH}:",
        props.PACKAGE_FORMAT: "gvmkit-squash",
    }
    assert constraints == [
        "(golem.runtime.name=vm)",
        "(golem.inf.mem.gib>=0.5)",
        "(golem.inf.storage.gib>=2.0)",
        "(golem.inf.cpu.threads>=2)",
        "(golem.runtime.capabilities=vpn)",
        "(golem.runtime.capabilities=inet)",
    ]


def test_the_registry_is_asked_only_when_the_demand_is_made_and_only_for_what_is_missing() -> None:
    registry = Registry()
    by_hash, by_tag = repo(image_hash=HASH), repo(image_tag="golem/node:20")
    complete = repo(image_hash=HASH, image_url="http://mine/x.gvmi")
    assert registry.asked == []
    assert demand(by_hash, registry)[0][props.TASK_PACKAGE] == f"hash:sha3:{HASH}:http://images/found.gvmi"
    assert demand(by_tag, registry)[0][props.TASK_PACKAGE] == "hash:sha3:found:http://images/found.gvmi"
    assert demand(complete, registry)[0][props.TASK_PACKAGE] == f"hash:sha3:{HASH}:http://mine/x.gvmi"
    assert registry.asked == [(HASH, None), (None, "golem/node:20")]


def test_a_url_of_one_s_own_counts_more_than_the_registry_s() -> None:
    tagged = repo(image_tag="golem/node:20", image_url="http://mine/x.gvmi")
    assert demand(tagged, Registry())[0][props.TASK_PACKAGE] == "hash:sha3:found:http://mine/x.gvmi"


def test_without_a_registry_a_tag_names_the_image_by_itself() -> None:
    assert demand(repo(image_tag="golem/node:20"))[0][props.TASK_PACKAGE] == "hash:sha3::golem/node:20"
