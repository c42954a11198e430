"""The work context: what handlers hold of their activity, and the older form of scripts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import ConfigError, ScriptMisuse
from shem.script import Script
from shem.script.commands import Deploy, Download, Run, Start, Terminate, Upload
from shem.service.context import WorkContext
from shem.testing.sim import run


@pytest.fixture(scope="module")
def context(fake_lease: Callable[[], Any]) -> Callable[[], WorkContext]:
    return lambda: WorkContext(fake_lease().activity)


def test_a_context_tells_what_the_activity_is_and_costs(context: Callable[[], WorkContext]) -> None:
    async def main() -> None:
        one = context()
        assert (one.id, one.provider_id, one.provider_name) == ("activity-1", "0xprovider1", "provider 1")
        assert await one.get_usage() == {"golem.usage.duration_sec": 2.5}
        assert await one.get_cost() == Decimal("0.25")
        assert (await one.get_raw_state()).state == ("Ready", None)

    run(main)


def test_a_new_script_is_empty_its_own_and_has_the_options_given(context: Callable[[], WorkContext]) -> None:
    one = context()
    plain, special = one.new_script(), one.new_script(timedelta(seconds=3), wait_for_results=False)
    assert plain is not special and plain.commands == ()
    assert (plain.timeout, plain.wait_for_results, plain.implicit_deploy) == (None, True, False)
    assert (special.timeout, special.wait_for_results) == (3.0, False)


def test_the_older_form_gathers_every_kind_of_command_until_commit(
    context: Callable[[], WorkContext],
) -> None:
    one = context()
    one.deploy(a=1)
    one.start("x")
    one.run("/a", "b", env={"C": "d"})
    one.send_file("from", "/to")
    one.send_bytes("/to", b"1")
    one.send_json("/to", [1])
    one.download_file("/from", "to")
    one.download_bytes("/from", limit=5)
    one.download_json("/from")
    one.terminate()
    script = one.commit(timeout=timedelta(minutes=1))
    assert script.commands == (
        Deploy({"a": 1}),
        Start(("x",)),
        Run("/a", ("b",), {"C": "d"}),
        Upload(Path("from"), "/to"),
        Upload(b"1", "/to"),
        Upload(b"[1]", "/to"),
        Download("/from", Path("to")),
        Download("/from", None, 5),
        Download("/from", None, 1024 * 1024, as_json=True),
        Terminate(),
    )
    assert script.timeout == 60.0 and script.implicit_deploy


def test_each_commit_begins_anew(context: Callable[[], WorkContext]) -> None:
    one = context()
    first = one.run("/a")
    one.commit()
    second = one.run("/b")
    script = one.commit()
    assert script.commands == (second.command,) and first.command not in script.commands


def test_a_commit_of_nothing_is_refused_and_says_what_to_do(context: Callable[[], WorkContext]) -> None:
    one = context()
    with pytest.raises(ScriptMisuse, match=r"commit\(\) without commands: call run\(\)"):
        one.commit()
    one.run("/a")
    with pytest.raises(ConfigError, match="timeout must be more than 0 s"):
        one.commit(timeout=0)


forms = st.sampled_from(["older", "older with deploy", "present", "present with deploy"])


def make(one: WorkContext, form: str) -> Script:
    if form == "older":
        one.run("/a")
        return one.commit()
    if form == "older with deploy":
        one.deploy()
        return one.commit()
    script = one.new_script()
    if form == "present with deploy":
        script.deploy()
    script.run("/a")
    return script


@given(st.lists(forms, max_size=6))
def test_whatever_is_sent_deploying_is_implied_at_most_once_and_only_by_the_older_form(
    context: Callable[[], WorkContext], sent: list[str]
) -> None:
    one = context()
    deployed = False
    for form in sent:
        script = make(one, form)
        prelude = one.prelude(script)
        if prelude is not None:
            assert form == "older" and not deployed
            assert prelude.commands == (Deploy(), Start())
            assert one.prelude(prelude) is None
            one.note_sent(prelude)
        else:
            assert form != "older" or deployed
        one.note_sent(script)
        deployed = deployed or prelude is not None or "deploy" in form


@pytest.mark.parametrize(
    ("older", "present"),
    [
        ("deploy", "deploy"),
        ("start", "start"),
        ("terminate", "terminate"),
        ("send_file", "upload_file"),
        ("download_file", "download_file"),
        ("download_bytes", "download_bytes"),
        ("download_json", "download_json"),
    ],
)
def test_the_older_form_s_methods_take_what_the_script_s_take(older: str, present: str) -> None:
    parameters = [
        [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (getattr(WorkContext, older), getattr(Script, present))
    ]
    assert parameters[0] == parameters[1]
