"""``shem why``: the stories of a run, told from its log."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from shem import log
from shem.cli import main
from shem.cli.options import Mendable
from shem.cli.runlog import read_log
from shem.errors import ConfigError
from shem.payload import VmPayload
from shem.service.policy import RestartPolicy
from shem.service.probe import Probe
from shem.service.service import Service
from shem.testing import World, play


class Wrong(Service):
    """Fails after a minute; in one of the ways that say much."""

    @staticmethod
    async def get_payload():
        return VmPayload(image_hash="a" * 56)

    async def run(self):
        await asyncio.sleep(60)
        raise LookupError("no observations\n  in /golem/output")
        yield


def run_of(story: Callable[[World], Any], level: str = "info", **world: Any) -> tuple[str, list[Service]]:
    """The log of a run in virtual time, and its instances."""
    stream = io.StringIO()
    log.configure(level=level, stream=stream)
    instances = play(story, **world)
    return stream.getvalue(), instances


async def crash_loop(world: World) -> list[Service]:
    async with world.golem() as golem:
        policy = RestartPolicy(on="failure", attempts=2, user_errors=True, jitter=0)
        cluster = await golem.run_service(Wrong, restart=policy)
        await asyncio.sleep(300)
    return cluster.instances


async def interrupted(world: World) -> list[Service]:
    """A program that dies in the middle of its life, as far as its log goes."""
    golem = world.golem()
    async with golem:
        probe = Probe(lambda _service: True, kind="readiness")
        cluster = await golem.run_service(Wrong, num_instances=2, probe=probe)
        await asyncio.sleep(30)
        world.said = [service.why() for service in cluster.instances]  # type: ignore[attr-defined]
        log.configure(level="error", stream=io.StringIO())
        await cluster.stop()
    return cluster.instances


def why(*args: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["why", *args], input=given)


def fails(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_every_instance_is_told_of_as_it_tells_of_itself(tmp_path: Path) -> None:
    text, instances = run_of(crash_loop, level="debug")
    file = tmp_path / "run.log"
    file.write_text(text)
    result = why("--log", str(file))
    assert result.exit_code == 0, result.output
    assert len(instances) == 3
    # At the end nothing has a time ahead, so the two agree in every letter.
    *stories, until = result.stdout.splitlines()
    assert stories == [line for service in instances for line in service.why().splitlines()]
    assert until == "(as far as the log tells, which is until 2030-01-01 00:03:03 UTC)"
    assert stories[-1] == (
        "  next: nothing; its slot stays empty: it was tried again 2 times within 600 s: "
        "handler: run() raised (LookupError: no observations in /golem/output)"
    )


def test_at_log_level_info_only_the_phase_is_missing() -> None:
    text, instances = run_of(crash_loop)
    result = why(given=text)
    expected = [
        line.replace(" (released)", "") for service in instances for line in service.why().splitlines()
    ]
    assert result.stdout.splitlines()[:-1] == expected


def test_one_instance_is_chosen_by_the_beginning_of_its_id() -> None:
    text, instances = run_of(crash_loop, level="debug")
    chosen = instances[1]
    result = why(chosen.id[:6], given=text)
    assert result.stdout.splitlines()[:-1] == chosen.why().splitlines()
    assert f"which replaced {instances[0].id}" in result.stdout
    assert why(chosen.id, "--log", "-", given=text).stdout == result.stdout


def test_a_run_that_is_not_over_is_told_of_as_far_as_it_went() -> None:
    text, instances = run_of(interrupted, level="debug")
    result = why(given=text)
    for service in instances:
        headline = next(line for line in result.stdout.splitlines() if service.id in line)
        assert headline.startswith(f"Wrong {service.id} (slot {service.instance.slot}) is running on devnet-")
        assert headline.endswith(" (ready)")
    assert result.stdout.count("  next: run() goes on; it is stopped, before its agreement expires, at ") == 2
    assert "UTC (in " not in result.stdout, "nobody knows how long ago that was"


def test_what_else_was_written_to_the_same_place_is_passed_over() -> None:
    text, _instances = run_of(crash_loop)
    noise = ["a line of the service's own", "[1, 2]", '"text"', "{broken", '{"instance": 7}', "\x00\xff", ""]
    noisy = "\n".join(part for line in text.splitlines() for part in (*noise, line))
    assert why(given=noisy).stdout == why(given=text).stdout


@cache
def whole_log() -> list[str]:
    return run_of(crash_loop, level="debug")[0].splitlines()


@given(st.integers(0, 200))
def test_any_beginning_of_a_log_is_told_of_without_failing(length: int) -> None:
    kept = [json.loads(line) for line in whole_log()[:length]]
    try:
        known = read_log(map(json.dumps, kept))
    except ConfigError as error:
        assert not any("instance" in line for line in kept), error
        return
    for identifier, story in known.stories.items():
        own = [line for line in kept if line.get("instance") == identifier]
        moves = [line for line in own if line["message"] == "instance_moved"]
        assert len(story.steps) == len(moves)
        assert story.state == (moves[-1]["dest"] if moves else "pending")
        outlooks = [line for line in own if line["message"] in ("instance_moved", "expectation_changed")]
        expected = outlooks[-1].get("expects") if outlooks else None
        assert (story.expects and story.expects.text) == expected


# --- what the user can mend


def test_no_such_instance() -> None:
    text, instances = run_of(crash_loop)
    known = ", ".join(service.id for service in instances)
    assert fails(why("zzz", given=text)) == (
        f"standard input tells of no instance whose id begins with 'zzz'; it tells of: {known}"
    )


def test_an_ambiguous_beginning() -> None:
    line = '{"timestamp": "2030-01-01T00:00:00Z", "message": "phase_changed", "phase": "handler"'
    text = "\n".join(f'{line}, "instance": "ab{number:02}"}}' for number in range(12))
    assert fails(why("ab", given=text)) == (
        "'ab' begins the ids of several instances: ab00, ab01, ab02, ab03, ab04, ab05, ab06, ab07, ab08, "
        "ab09 and 2 more"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "standard input: the log is empty"),
        ("\n \n", "standard input: the log is empty"),
        (
            "12:00:01 [info] instance_moved instance=abc",
            "none of its lines is JSON; write the log into a file",
        ),
        (
            '{"message": "node_chosen"}',
            "none of its 1 JSON lines tells of an instance; was the log level info",
        ),
        (
            '{"message": "phase_changed", "phase": "x", "instance": "a", "timestamp": "noon"}',
            "standard input: line 1: its timestamp is no time: 'noon'",
        ),
        (
            '{"message": "phase_changed", "phase": "x", "instance": "a"}',
            "standard input: line 1: its timestamp is no time: None",
        ),
    ],
    ids=["empty", "blank", "text", "other events", "no time", "no timestamp"],
)
def test_what_is_no_log_of_a_run(text: str, complaint: str) -> None:
    assert complaint in fails(why(given=text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.log"
    assert fails(why("--log", str(missing))) == f"cannot read {missing}: No such file or directory"
    assert fails(why("--log", str(tmp_path))) == f"cannot read {tmp_path}: Is a directory"


def test_a_terminal_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(Mendable, match="which log"):
        main(["why"], standalone_mode=False)


def test_the_command_is_listed_and_explains_itself() -> None:
    assert "why" in CliRunner().invoke(main, ["--help"]).stdout
    assert "what happened, who caused" in why("--help").stdout
