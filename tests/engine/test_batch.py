from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shem.errors import (
    ActivityGone,
    BadRequest,
    CommandFailed,
    CommandSkipped,
    ConfigError,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    RequestTimeout,
    ScriptError,
    ScriptTimeout,
)
from shem.events import Phase
from shem.script import Script
from shem.testing import Reply


def now() -> float:
    return asyncio.get_running_loop().time()


def respond(program: str, args: Sequence[str]) -> Reply:
    """``/say X`` writes X, ``/exit N`` exits with N, ``/wait S`` takes S seconds."""
    match program, *args:
        case "/say", text:
            return Reply(stdout=text)
        case "/exit", code:
            return Reply(exit_code=int(code), stdout="half done", stderr="broken pipe")
        case "/wait", seconds:
            return Reply(seconds=float(seconds), stdout="waited")
    return Reply()


def script(*runs: tuple[str, ...], timeout: float | None = None, deploy: bool = True) -> Script:
    made = Script(timeout=timeout)
    if deploy:
        made.deploy()
        made.start()
    for run in runs:
        made.run(*run)
    return made


async def execute(lease: Any, made: Script, phases: list[Phase] | None = None) -> Script:
    made.mark_sent()
    await lease.execute(made, [].append if phases is None else phases.append)
    return made


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_each_command_gets_its_own_result(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = await execute(lease, script(("/say", "one"), ("/wait", "3"), ("/say", "two")))
        assert [result.stdout for result in await made.results][2:] == ["one", "waited", "two"]
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_an_empty_script_is_done_without_asking_the_node(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = await execute(lease, Script())
        assert await made.results == []
        assert "execute" not in lab.world.calls
        await lab.give_back(lease)

    play_engine(story)


def test_progress_tells_deploying_from_booting_from_scripts(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease, phases = await lab.lease(), []
        await execute(lease, script(("/wait", "30")), phases)
        assert list(dict.fromkeys(phases)) == [Phase.DEPLOYING, Phase.SCRIPT]
        await lab.give_back(lease)

    # Whoever asks every 20 s may miss a short phase, here that of booting.
    play_engine(story, respond=respond, deploy_seconds=30.0)


def test_a_failed_command_carries_everything_that_is_known_of_it(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = script(("/say", "fine"), ("/exit", "3"), ("/say", "never"))
        with pytest.raises(CommandFailed) as caught:
            await execute(lease, made)
        failed = caught.value
        assert (failed.index, failed.command, failed.exit_code) == (3, "run /exit 3", 3)
        assert (failed.stdout, failed.stderr) == ("half done", "broken pipe")
        assert lease.loss is None
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_after_a_failed_command_the_earlier_ones_have_results_and_the_later_ones_were_skipped(
    play_engine: Any,
) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = Script()
        handles = [made.deploy(), made.start(), made.run("/exit", "1"), made.run("/say", "never")]
        with pytest.raises(CommandFailed):
            await execute(lease, made)
        assert [handle.error.__class__ for handle in handles[2:]] == [CommandFailed, CommandSkipped]
        assert [handle.error for handle in handles[:2]] == [None, None]
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_a_scripts_time_limit_ends_the_wait(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await execute(lease, script())
        began = now()
        with pytest.raises(ScriptTimeout, match="longer than its 2 s"):
            await execute(lease, script(("/wait", "3600"), timeout=2, deploy=False))
        assert now() - began == pytest.approx(2)
        await lab.give_back(lease)

    play_engine(story, respond=respond)


# --- the node fails


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable])
def test_sending_is_repeated_only_while_the_batch_cannot_have_been_taken(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("execute", kind, times=2)
        await execute(lease, script(("/say", "once")))
        [activity] = lab.world.node.activities.all()
        assert len(activity.batches) == 1
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_a_script_waits_out_an_outage_of_the_node(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await execute(lease, script())
        lab.world.link.up = False
        asyncio.get_running_loop().call_later(90, lab.world.link.heal)
        made = await execute(lease, script(("/say", "at last"), deploy=False))
        assert (await made.results)[0].stdout == "at last"
        assert 90 <= now() < 110
        await lab.give_back(lease)

    play_engine(story, respond=respond)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", [RequestTimeout, BadRequest])
def test_a_script_that_may_have_been_taken_is_never_sent_twice(
    play_engine: Any, kind: Any, cut: bool
) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        if cut:
            lab.world.link.cut("execute")
        else:
            lab.world.link.fail("execute", kind)
        with pytest.raises(ScriptError, match="could not be sent"):
            await execute(lease, script(("/say", "once")))
        assert lab.world.calls.count("execute") == 1
        await lab.give_back(lease)

    play_engine(story, respond=respond)


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable, RequestTimeout])
def test_results_are_asked_for_until_they_are_there(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("batch_results", kind, times=20)
        made = await execute(lease, script(("/say", "still here")))
        assert (await made.results)[-1].stdout == "still here"
        await lab.give_back(lease)

    play_engine(story, respond=respond)


@pytest.mark.parametrize("kind", [BadRequest, NotFound])
def test_results_that_are_lost_for_good_are_an_error(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("batch_results", kind)
        with pytest.raises(ScriptError, match="were lost"):
            await execute(lease, script(("/say", "lost")))
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_a_node_that_does_not_wait_for_results_is_not_flooded(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("batch_results", RequestTimeout, times=math.inf)
        running = asyncio.create_task(execute(lease, script(("/wait", "600"))))
        await asyncio.sleep(600)
        assert lab.world.calls.count("batch_results") < 60
        running.cancel()
        await asyncio.wait([running])
        await lab.give_back(lease)

    play_engine(story, respond=respond)


# --- the provider fails


def test_a_script_whose_activity_dies_ends_at_once_and_says_why(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        asyncio.get_running_loop().call_later(
            7, lambda: lab.world.node.faults.kill_activity(lease.activity_id, "out of memory")
        )
        with pytest.raises(ActivityGone, match=r"was cut short: .*out of memory"):
            await execute(lease, script(("/wait", "3600")))
        assert now() < 9
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_a_script_for_a_dead_activity_is_refused_with_the_reason(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.node.faults.kill_activity(lease.activity_id, "out of memory")
        with pytest.raises(ActivityGone, match=r"has nowhere to run: .*out of memory"):
            await execute(lease, script())
        await lab.give_back(lease)

    play_engine(story)


def test_results_are_signs_of_life(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await execute(lease, script(("/wait", "50")))
        assert lease.activity.last_sign == now()
        await lab.give_back(lease)

    play_engine(story, respond=respond)


def test_a_script_for_an_activity_that_nobody_knows_finds_that_out(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("execute", NotFound)
        lab.world.link.fail("activity_state", NotFound)
        with pytest.raises(ActivityGone, match="does not know the activity any more"):
            await execute(lease, script())
        await lab.give_back(lease)

    play_engine(story)


def test_where_nothing_can_be_learnt_a_failure_is_told_as_it_came(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("activity_state", NodeFailure, times=2)
        lab.world.link.fail("execute", BadRequest)
        with pytest.raises(ScriptError, match="could not be sent"):
            await execute(lease, script())
        with pytest.raises(CommandFailed):
            await execute(lease, script(("/exit", "1")))
        assert lease.loss is None
        await lab.give_back(lease)

    play_engine(story, respond=respond)


# --- files


def test_files_travel_both_ways_and_no_channel_stays_open(play_engine: Any, tmp_path: Path) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = script()
        made.upload_bytes(b'{"salt": 3}', "/golem/work/a.json")
        got_json, got_bytes = (
            made.download_json("/golem/work/a.json"),
            made.download_bytes("/golem/work/a.json"),
        )
        made.download_file("/golem/work/a.json", tmp_path / "a.json")
        await execute(lease, made)
        assert (await got_json).value == {"salt": 3}
        assert (await got_bytes).value == b'{"salt": 3}'
        assert (tmp_path / "a.json").read_bytes() == b'{"salt": 3}'
        assert names_in(tmp_path) == ["a.json"]
        await lab.give_back(lease)

    play_engine(story)


def test_a_download_that_fails_leaves_no_half_file(play_engine: Any, tmp_path: Path) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = script()
        made.download_file("/golem/work/nothing", tmp_path / "a")
        with pytest.raises(CommandFailed, match="download /golem/work/nothing"):
            await execute(lease, made)
        assert names_in(tmp_path) == []
        await lab.give_back(lease)

    play_engine(story)


def test_what_is_no_json_fails_its_command(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = script()
        made.upload_bytes(b"no json", "/golem/work/a")
        made.download_json("/golem/work/a")
        with pytest.raises(CommandFailed, match="what arrived is unusable"):
            await execute(lease, made)
        await lab.give_back(lease)

    play_engine(story)


def test_a_file_that_is_not_there_is_an_error_before_anything_is_sent(
    play_engine: Any, tmp_path: Path
) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        made = script()
        made.upload_file(tmp_path / "nothing", "/golem/work/a")
        with pytest.raises((ScriptError, ConfigError)):
            await execute(lease, made)
        assert "execute" not in lab.world.calls
        await lab.give_back(lease)

    play_engine(story)


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable])
def test_a_transfer_that_cannot_be_opened_fails_the_script(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.fail("publish", kind)
        made = script()
        made.upload_bytes(b"x", "/golem/work/a")
        with pytest.raises(ScriptError, match="no transfer could be opened"):
            await execute(lease, made)
        await lab.give_back(lease)

    play_engine(story)


@pytest.mark.parametrize("moment", [0.3 * step for step in range(20)])
def test_a_script_that_is_given_up_at_any_moment_leaves_no_channel_and_no_file(
    play_engine: Any, tmp_path: Path, moment: float
) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        lab.world.link.delay("*", 0.2)
        for call in ("execute", "batch_results"):
            lab.world.link.delay(call, 0.2, answer=True)
        made = script()
        made.upload_bytes(b"x" * 100, "/golem/work/a")
        made.run("/wait", "2")
        made.download_file("/golem/work/a", tmp_path / "a")
        running = asyncio.create_task(execute(lease, made))
        await asyncio.sleep(moment)
        running.cancel()
        await asyncio.wait([running])
        await asyncio.sleep(1)
        assert lab.engine._api._channels == {}
        assert names_in(tmp_path) in ([], ["a"])
        await lab.give_back(lease)

    play_engine(story, respond=respond)
