"""The service's own idea of being well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shem.errors import CommandFailed, ConfigError
from shem.script import Script
from shem.service.probe import Probe
from shem.testing.sim import run


class Patient:
    pass


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({}, "give either a check"),
        ({"check": print, "command": ["/bin/true"]}, "give either a check"),
        ({"command": "/bin/true"}, "command must be a sequence of strings, not the string '/bin/true'"),
        *(
            ({"check": print, name: value}, "must be more than 0 s, failures at least 1")
            for name, value in (
                ("period", 0),
                ("period", float("nan")),
                ("timeout", -1),
                ("timeout", float("nan")),
                ("failures", 0),
            )
        ),
    ],
    ids=str,
)
def test_a_probe_that_makes_no_sense_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"Probe: .*{complaint}"):
        Probe(**wrong)


def ask(probe: Probe, execute: Any = None) -> str | None:
    async def nothing(_script: Script) -> None:
        raise AssertionError("a check sends no script")

    async def main() -> str | None:
        return await probe.ask(Patient(), execute or nothing)

    return run(main)


async def later(answer: Any) -> Any:
    await asyncio.sleep(1)
    return answer


@pytest.mark.parametrize("answer", [True, None, "fine", 1])
def test_anything_but_a_plain_no_is_well(answer: Any) -> None:
    assert ask(Probe(check=lambda _service: answer)) is None
    assert ask(Probe(check=lambda _service: later(answer))) is None


def test_a_plain_no_is_not() -> None:
    assert ask(Probe(check=lambda _service: False)) == "the check said no"
    assert ask(Probe(check=lambda _service: later(False))) == "the check said no"


def test_a_check_is_asked_about_the_service_object_and_its_exception_comes_through() -> None:
    def check(service: object) -> bool:
        assert isinstance(service, Patient)
        raise LookupError("no pulse")

    with pytest.raises(LookupError, match="no pulse"):
        ask(Probe(check=check))


def test_a_command_is_run_in_a_script_of_its_own_with_the_probe_s_time_limit() -> None:
    sent: list[Script] = []

    async def execute(script: Script) -> None:
        sent.append(script)

    assert ask(Probe(command=["/bin/curl", "-f"], timeout=2), execute) is None
    (script,) = sent
    assert [str(command) for command in script.commands] == ["run /bin/curl -f"]
    assert script.timeout == 2 and script.sent


def test_a_failed_command_is_a_bad_answer() -> None:
    async def execute(script: Script) -> None:
        raise CommandFailed(str(script.commands[0]), 0, "exit", exit_code=1)

    with pytest.raises(CommandFailed):
        ask(Probe(command=["/bin/false"]), execute)
