"""A probe as a value: which make sense, and how each way of asking is carried out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from shem.errors import CommandFailed, ConfigError
from shem.script import Script
from shem.service.probe import Probe, probes_of
from shem.testing.sim import run


class Patient:
    port = 8080


@dataclass
class FakeMeans:
    """Reaches everything, and notes down what it was asked for."""

    refuses: Exception | None = None
    answers: int = 200
    sent: list[Script] = field(default_factory=list)
    reached: list[Any] = field(default_factory=list)

    @property
    def reach(self) -> FakeMeans:
        return self

    async def connect(self, host: str, port: int) -> None:
        self.reached.append((host, port))
        if self.refuses is not None:
            raise self.refuses

    async def status(self, url: str) -> int:
        self.reached.append(url)
        if self.refuses is not None:
            raise self.refuses
        return self.answers

    async def execute(self, script: Script) -> None:
        self.sent.append(script)
        if self.refuses is not None:
            raise self.refuses


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({}, "only one of them, not 0"),
        ({"check": print, "command": ["/bin/true"]}, "only one of them, not 2"),
        ({"tcp": ("a", 1), "http": "http://a"}, "only one of them, not 2"),
        ({"command": "/bin/true"}, "command must be a sequence of strings, not the string '/bin/true'"),
        ({"check": "fine"}, "check must be callable with the service object, not 'fine'"),
        (
            {"check": print, "kind": "wellness"},
            "kind='wellness' is none of 'startup', 'readiness', 'liveness'",
        ),
        ({"tcp": "localhost:80"}, "tcp must be host and port"),
        ({"tcp": ("localhost", 0)}, "tcp must be host and port"),
        ({"tcp": ("localhost", 65536)}, "tcp must be host and port"),
        ({"tcp": ("localhost", True)}, "tcp must be host and port"),
        ({"tcp": ("", 80)}, "tcp must be host and port"),
        ({"http": "localhost/health"}, "http must be a URL"),
        ({"http": "http://a", "status": (300, 200)}, "holds no status"),
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
        ({"check": print, "initial_delay": -1}, "initial_delay must be 0 s or more"),
        ({"check": print, "initial_delay": float("nan")}, "initial_delay must be 0 s or more"),
        ({"check": print, "kind": "readiness", "successes": 0}, "successes must be at least 1"),
        ({"check": print, "kind": "liveness", "successes": 2}, "and 1 for liveness"),
    ],
    ids=str,
)
def test_a_probe_that_makes_no_sense_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"Probe: .*{complaint}"):
        Probe(**wrong)


def test_an_argument_names_no_probe_one_or_several() -> None:
    one, other = Probe(print), Probe(print, kind="startup")
    assert probes_of(None) == ()
    assert probes_of(one) == (one,)
    assert probes_of([one, other]) == probes_of(iter((one, other))) == (one, other)
    for wrong in (print, "/bin/true", [one, "/bin/true"], {"check": print}):
        with pytest.raises(ConfigError, match=r"must be a shem\.Probe, or several in a sequence"):
            probes_of(wrong)


def ask(probe: Probe, means: FakeMeans | None = None) -> str | None:
    async def main() -> str | None:
        return await probe.ask(Patient(), means or FakeMeans())

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
    means = FakeMeans()
    assert ask(Probe(command=["/bin/curl", "-f"], timeout=2), means) is None
    (script,) = means.sent
    assert [str(command) for command in script.commands] == ["run /bin/curl -f"]
    assert script.timeout == 2 and script.sent
    assert means.reached == []


def test_a_failed_command_is_a_bad_answer() -> None:
    failed = CommandFailed("run /bin/false", 0, "exit", exit_code=1)
    with pytest.raises(CommandFailed):
        ask(Probe(command=["/bin/false"]), FakeMeans(failed))


@pytest.mark.parametrize(
    "given",
    [
        ("10.0.0.2", 8080),
        lambda service: ("10.0.0.2", service.port),
        lambda service: later(("10.0.0.2", service.port)),
    ],
    ids=["value", "callable", "coroutine function"],
)
def test_an_address_is_a_value_or_learnt_from_the_service(given: Any) -> None:
    means = FakeMeans()
    assert ask(Probe(tcp=given), means) is None
    assert means.reached == [("10.0.0.2", 8080)]


@pytest.mark.parametrize(
    "given",
    [
        "http://10.0.0.2:8080/",
        lambda service: f"http://10.0.0.2:{service.port}/",
        lambda service: later(f"http://10.0.0.2:{service.port}/"),
    ],
    ids=["value", "callable", "coroutine function"],
)
def test_a_url_is_a_value_or_learnt_from_the_service(given: Any) -> None:
    means = FakeMeans()
    assert ask(Probe(http=given), means) is None
    assert means.reached == ["http://10.0.0.2:8080/"]


def test_an_address_that_is_not_known_yet_is_a_bad_answer_and_a_wrong_one_an_error() -> None:
    assert ask(Probe(tcp=lambda _service: None)) == "the address is not known yet"
    assert ask(Probe(http=lambda _service: None)) == "the URL is not known yet"
    with pytest.raises(ConfigError, match="tcp must be host and port"):
        ask(Probe(tcp=lambda _service: "localhost"))
    with pytest.raises(ConfigError, match="http must be a URL"):
        ask(Probe(http=lambda _service: 80))


@pytest.mark.parametrize(
    ("expected", "status", "well"),
    [
        ((200, 399), 199, False),
        ((200, 399), 200, True),
        ((200, 399), 302, True),
        ((200, 399), 399, True),
        ((200, 399), 400, False),
        ((404, 404), 404, True),
        ((404, 404), 200, False),
    ],
)
def test_an_http_status_is_good_within_the_expected_range(
    expected: tuple[int, int], status: int, well: bool
) -> None:
    said = ask(Probe(http="http://a/", status=expected), FakeMeans(answers=status))
    assert said == (None if well else f"http://a/ answered {status}")


def test_what_keeps_a_connection_from_being_made_comes_through() -> None:
    for probe in (Probe(tcp=("a", 1)), Probe(http="http://a/")):
        with pytest.raises(ConnectionRefusedError):
            ask(probe, FakeMeans(ConnectionRefusedError()))
