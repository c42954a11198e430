"""Commands as values: their form on the wire, their form for people, and environments through the shell."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shem.errors import ConfigError
from shem.script import Script
from shem.script.commands import Deploy, Download, Fetch, Run, Start, Terminate, Upload

CAPTURE = {"stdout": {"atEnd": {"format": "str"}}, "stderr": {"atEnd": {"format": "str"}}}

names = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True).map(lambda name: f"X_{name}")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def run_really(command: Run) -> bytes:
    """Run what goes over the wire, as a provider would, with an empty environment."""
    wire = command.wire()["run"]
    done = subprocess.run(
        [wire["entry_point"], *wire["args"]], env={}, capture_output=True, check=True, timeout=30
    )
    return done.stdout


@settings(max_examples=20)
@given(st.dictionaries(names, texts, min_size=1, max_size=3))
@example({"X_A": 'it\'s; "$HOME" `id` \\ $(id) \n\n'})
@example({"X_A": ""})
@example({"X_A": "'"})
@example({"X_A": "-n", "X_B": "a=b", "X_C": "\t \n"})
def test_any_text_survives_as_an_environment_variable(env: dict[str, str]) -> None:
    script = "; ".join(f'printf "%s\\0" "${name}"' for name in env)
    written = run_really(Run("/bin/sh", ("-c", script), env))
    assert written.split(b"\0")[:-1] == [value.encode() for value in env.values()]


@settings(max_examples=15)
@given(st.lists(texts, max_size=4))
def test_arguments_survive_the_shell_that_sets_the_environment(args: list[str]) -> None:
    printing = ("-c", 'for arg in "$@"; do printf "%s\\0" "$arg"; done', "sh")
    written = run_really(Run("/bin/sh", (*printing, *args), {"X": "1"}))
    assert written.split(b"\0")[:-1] == [arg.encode() for arg in args]


def test_the_program_replaces_the_shell_and_its_exit_code_is_its_own() -> None:
    wire = Run("/bin/sh", ("-c", "exit 7"), {"X": "1"}).wire()["run"]
    assert subprocess.run([wire["entry_point"], *wire["args"]], check=False, timeout=30).returncode == 7


@given(st.text().filter(lambda name: not (name.isascii() and name.isidentifier())))
@example("A-B")
@example("A;id")
@example("A=B")
@example("1A")
@example("")
def test_what_is_no_name_for_a_variable_is_refused_never_run(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for an environment variable") as refusal:
        Script().run("/bin/true", env={name: "x"})
    assert "/bin/true" in str(refusal.value)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
def test_a_value_that_no_program_can_be_given_is_refused_never_dropped(value: str) -> None:
    with pytest.raises(ConfigError, match="run /bin/true: X cannot be set to"):
        Script().run("/bin/true", env={"X": value})


def test_numbers_may_be_given_as_arguments_and_as_environment() -> None:
    script = Script()
    script.run("/bin/serve", 80, env={"PORT": 80})  # type: ignore[arg-type, dict-item]  # people do
    assert script.commands == (Run("/bin/serve", ("80",), {"PORT": "80"}),)


def test_without_an_environment_no_shell_is_involved() -> None:
    assert Run("/bin/true", ("a", "b")).wire() == {
        "run": {"entry_point": "/bin/true", "args": ["a", "b"], "capture": CAPTURE}
    }


@pytest.mark.parametrize(
    ("command", "arguments", "wire", "text"),
    [
        (Deploy(), (), {"deploy": {}}, "deploy"),
        (Deploy({"env": {"A": "1"}}), (), {"deploy": {"env": {"A": "1"}}}, "deploy"),
        (Start(("a",)), (), {"start": {"args": ["a"]}}, "start"),
        (Terminate(), (), {"terminate": {}}, "terminate"),
        (
            Upload(b"abc", "/golem/work/x"),
            ("http://up",),
            {"transfer": {"from": "http://up", "to": "container:/golem/work/x"}},
            "upload 3 bytes to /golem/work/x",
        ),
        (
            Upload(Path("x.txt"), "/x"),
            ("http://up",),
            {"transfer": {"from": "http://up", "to": "container:/x"}},
            "upload x.txt to /x",
        ),
        (
            Download("/x", Path("y.txt")),
            ("http://down",),
            {"transfer": {"from": "container:/x", "to": "http://down"}},
            "download /x to y.txt",
        ),
        (
            Download("/x", None, 10),
            ("http://down",),
            {"transfer": {"from": "container:/x", "to": "http://down"}},
            "download /x",
        ),
        (
            Fetch("http://a/b", "/x"),
            (),
            {"transfer": {"from": "http://a/b", "to": "container:/x"}},
            "fetch http://a/b to /x",
        ),
    ],
    ids=str,
)
def test_each_command_has_its_form_on_the_wire_and_one_for_people(
    command: Any, arguments: tuple[str, ...], wire: dict[str, Any], text: str
) -> None:
    assert command.wire(*arguments) == wire
    assert str(command) == text


@given(st.text(min_size=1), st.lists(st.text(), max_size=20))
def test_a_command_s_text_is_short_and_shows_no_environment(program: str, args: list[str]) -> None:
    text = str(Run(program, tuple(args), {"TOKEN": "s3cr3t-value"}))
    assert len(text) <= 120
    assert text.startswith(f"run {program}"[:100])
    assert "s3cr3t-value" not in text


def test_commands_are_frozen_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Run("/bin/true").program = "/bin/false"  # type: ignore[misc]  # that is the point
    assert Run("/a", ("b",)) == Run("/a", ("b",)) != Run("/a", ("c",))


def test_a_script_s_methods_make_the_commands_they_are_named_after() -> None:
    script = Script()
    script.deploy(net=[1])
    script.start("x")
    script.run("/a", "b", env={"C": "d"})
    script.upload_file("from", "/to")
    script.upload_bytes(bytearray(b"1"), "/to")  # type: ignore[arg-type]  # whatever bytes() takes
    script.upload_json({"a": [1]}, "/to")
    script.download_file("/from", "to")
    script.download_bytes("/from", limit=5)
    script.download_json("/from")
    script.download_from_url("http://u", "/to")
    script.terminate()
    assert script.commands == (
        Deploy({"net": [1]}),
        Start(("x",)),
        Run("/a", ("b",), {"C": "d"}),
        Upload(Path("from"), "/to"),
        Upload(b"1", "/to"),
        Upload(b'{"a":[1]}', "/to"),
        Download("/from", Path("to")),
        Download("/from", None, 5),
        Download("/from", None, 1024 * 1024, as_json=True),
        Fetch("http://u", "/to"),
        Terminate(),
    )
