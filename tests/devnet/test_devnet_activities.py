"""Activities and their batches: states, results, usage, and every way of ending."""

from __future__ import annotations

import asyncio

import pytest

from shem.devnet.settings import Timings
from shem.errors import BadRequest, NodeFailure, NotFound, RequestTimeout
from shem.ids import ActivityId, BatchId
from shem.yagna import models as wire

DEPLOY, START, STOP = {"deploy": {}}, {"start": {}}, {"terminate": {}}
DONE = wire.Reason(message="done")


async def state(w, activity_id):
    return (await w.api.activity_state(activity_id)).state


def test_an_activity_goes_through_its_states_and_shows_the_next_one(in_world, program):
    async def main(w):
        _, activity_id = await w.activity()
        assert await state(w, activity_id) == ("Initialized", None)
        batch_id = await w.send(activity_id, DEPLOY, START, program("sleep", "2"), STOP)
        seen = []
        for _ in range(40):
            await asyncio.sleep(0.1)
            now = await state(w, activity_id)
            if not seen or seen[-1] != now:
                seen.append(now)
        assert seen == [
            ("Initialized", "Deployed"),
            ("Deployed", "Ready"),
            ("Ready", "Ready"),
            ("Initialized", None),
        ]
        results = await w.api.batch_results(activity_id, batch_id, timeout=0)
        assert [result.ok for result in results] == [True] * 4

    in_world(main)


def test_what_is_deployed_is_what_was_asked_for(in_world):
    async def main(w):
        spec = w.demand_spec(**{"golem.srv.comp.task_package": "hash:sha3:ABCDEF01:http://host/image.gvmi"})
        _, activity_id = await w.activity(spec)
        options = {
            "env": {"A": "1"},
            "hostname": "h",
            "hosts": {"other": "192.168.0.3"},
            "volumes": {"/vol": {"host": {}}, "/ram": {"ram": {"size": "1MB"}}},
            "net": [{"id": "n", "ip": "192.168.0.0"}],
        }
        (result,) = await w.do(activity_id, {"deploy": options})
        assert result.stdout == '{"valid":{"Ok":"scripted"}}'
        (runtime,) = w.runtimes.made
        assert (runtime.spec.image_hash, runtime.spec.activity_id) == ("abcdef01", activity_id)
        assert tuple(runtime.options.volumes) == ("/vol", "/ram")
        assert (runtime.options.hostname, runtime.options.env) == ("h", {"A": "1"})
        assert runtime.options.net[0]["id"] == "n"

    in_world(main)


@pytest.mark.parametrize("package", [None, 7, "nonsense", "hash:md5:00:http://x"])
def test_a_demand_without_a_usable_package_names_no_image(in_world, package):
    async def main(w):
        await w.activity(w.demand_spec(**{"golem.srv.comp.task_package": package}))
        assert w.runtimes.made[0].spec.image_hash is None

    in_world(main)


@pytest.mark.parametrize(
    ("before", "command", "said"),
    [
        ([], START, "deploy"),
        ([], {"run": {"entry_point": "say"}}, "deploy"),
        ([], {"transfer": {"from": "container:/a", "to": "container:/b"}}, "deploy"),
        ([], STOP, "deploy"),
        ([DEPLOY], DEPLOY, "start"),
        ([DEPLOY], {"run": {"entry_point": "say"}}, "start"),
        ([DEPLOY, START], START, "run"),
        ([DEPLOY, START], {"sign": {}}, "SGX"),
    ],
)
def test_a_command_that_does_not_fit_the_state_fails_and_ends_the_batch(in_world, before, command, said):
    async def main(w):
        _, activity_id = await w.activity()
        results = await w.do(activity_id, *before, command, DEPLOY)
        assert len(results) == len(before) + 1
        assert (results[-1].result, results[-1].is_batch_finished) == ("Error", True)
        assert said in results[-1].message

    in_world(main)


def test_a_deployed_runtime_can_be_stopped_and_deployed_anew(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        results = await w.do(activity_id, STOP, DEPLOY, STOP, DEPLOY, START)
        assert [result.ok for result in results] == [True] * 5
        assert await state(w, activity_id) == ("Ready", None)

    in_world(main)


def test_a_second_deploy_while_one_runs_fails_and_the_first_goes_on(in_world):
    async def main(w):
        _, activity_id = await w.activity()
        first = await w.send(activity_id, DEPLOY)
        (second,) = await w.do(activity_id, DEPLOY)
        assert "on its way to Deployed" in second.message
        await w.api.batch_results(activity_id, first, timeout=5)
        assert await state(w, activity_id) == ("Deployed", None)

    in_world(main)


def test_results_come_all_from_index_0_each_time(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        batch_id = await w.send(
            activity_id, program("say", "a"), program("sleep", "10"), program("moan", "c")
        )
        early = await w.api.batch_results(activity_id, batch_id, timeout=5)
        assert [(r.index, r.stdout, r.is_batch_finished) for r in early] == [(0, "a", False)]
        before = w.clock.monotonic()
        late = await w.api.batch_results(activity_id, batch_id, timeout=60)
        assert w.clock.monotonic() - before == 5  # as soon as the batch is over
        assert [(r.index, r.stdout, r.stderr) for r in late] == [
            (0, "a", None),
            (1, None, None),
            (2, None, "c"),
        ]
        assert [r.is_batch_finished for r in late] == [False, False, True]
        assert await w.api.batch_results(activity_id, batch_id, timeout=60) == late

    in_world(main)


def test_a_failing_command_ends_the_batch_and_the_wait_for_it(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        before = w.clock.monotonic()
        results = await w.do(activity_id, program("fail", "3"), program("sleep", "50"))
        assert w.clock.monotonic() == before
        (result,) = results
        assert (result.result, result.is_batch_finished) == ("Error", True)
        assert result.message == "ExeScript command exited with code 3"

    in_world(main)


@pytest.mark.parametrize(("entry_point", "said"), [("nonsense", "no such program"), ("break", "a bug")])
def test_whatever_the_runtime_raises_becomes_a_result(in_world, program, entry_point, said):
    async def main(w):
        _, activity_id = await w.ready()
        (result,) = await w.do(activity_id, program(entry_point))
        assert result.result == "Error"
        assert said in result.message
        assert await state(w, activity_id) == ("Ready", None)

    in_world(main)


def test_a_deploy_that_fails_leaves_the_activity_where_it_was(in_world):
    async def main(w):
        w.runtimes.deploy_error = "image not found"
        _, activity_id = await w.activity()
        (result,) = await w.do(activity_id, DEPLOY, START)
        assert (result.result, result.message) == ("Error", "image not found")
        assert await state(w, activity_id) == ("Initialized", None)

    in_world(main)


def test_batches_of_one_activity_run_beside_each_other(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        before = w.clock.monotonic()
        await asyncio.gather(*(w.do(activity_id, program("sleep", "10")) for _ in range(5)))
        assert w.clock.monotonic() - before == 10

    in_world(main)


def test_an_empty_batch_has_no_results_at_once(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        batch_id = await w.send(activity_id)
        before = w.clock.monotonic()
        assert await w.api.batch_results(activity_id, batch_id, timeout=60) == []
        assert w.clock.monotonic() == before

    in_world(main)


def test_a_bad_script_is_refused_before_anything_runs(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        with pytest.raises(BadRequest, match="unknown command 'jump'"):
            await w.send(activity_id, STOP, {"jump": {}})
        assert await state(w, activity_id) == ("Ready", None)

    in_world(main)


def test_one_result_can_be_waited_for(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        me, activities = (await w.api.me()).identity, w.node.activities
        batch_id = await w.send(activity_id, program("sleep", "2"), program("fail", "1"), program("say", "x"))
        with pytest.raises(RequestTimeout):
            await activities.result(me, activity_id, batch_id, 1, timeout=1)
        result = await activities.result(me, activity_id, batch_id, 1, timeout=60)
        assert (result.index, result.result) == (1, "Error")
        with pytest.raises(RequestTimeout):
            await activities.result(me, activity_id, batch_id, 2, timeout=60)

    in_world(main)


def test_running_commands_are_listed_while_they_run(in_world, program):
    async def main(w):
        agreement_id, activity_id = await w.ready()
        me, activities = (await w.api.me()).identity, w.node.activities
        await w.send(activity_id, program("sleep", "2"))
        await asyncio.sleep(1)
        (running,) = activities.running_commands(me, activity_id)
        assert running["run"]["entry_point"] == "sleep"
        await asyncio.sleep(2)
        with pytest.raises(NotFound):
            activities.running_commands(me, activity_id)
        assert activities.ids(me, agreement_id) == activities.ids(me) == [activity_id]
        assert activities.agreement_of(me, activity_id) == agreement_id

    in_world(main)


def test_the_events_of_a_batch_tell_its_whole_story(in_world, program):
    async def main(w):
        _, activity_id = await w.activity()
        stream = {"stream": {}}
        batch_id = await w.send(
            activity_id,
            DEPLOY,
            START,
            program("say", "a", "b", stdout=stream),
            program("say", "quiet"),
            program("fail", "7"),
        )
        await w.api.batch_results(activity_id, batch_id, timeout=60)
        events = w.node.activities.batch((await w.api.me()).identity, activity_id, batch_id).events
        story = [(event.index, *event.kind) for event in events]
        assert story == [
            (0, "started"),
            (0, "stdout"),
            (0, "finished"),
            (1, "started"),
            (1, "finished"),
            (2, "started"),
            (2, "stdout"),
            (2, "stdout"),
            (2, "finished"),
            (3, "started"),
            (3, "finished"),
            (4, "started"),
            (4, "finished"),
        ]
        assert [event.kind["stdout"] for event in events if "stdout" in event.kind][1:] == ["a", "b"]
        assert events[-1].kind["finished"]["return_code"] == 7

    in_world(main)


def test_usage_follows_the_runtime_and_the_clock_and_stands_still_at_the_end(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        await w.do(activity_id, program("burn", "2.5"), program("sleep", "10"))
        usage = await w.api.activity_usage(activity_id)
        assert usage.current_usage == [2.5, pytest.approx(10.75)]
        assert usage.timestamp == int(w.clock.now().timestamp())
        await w.api.destroy_activity(activity_id, timeout=5)
        final = (await w.api.activity_usage(activity_id)).current_usage
        await asyncio.sleep(100)
        assert (await w.api.activity_usage(activity_id)).current_usage == final

    in_world(main)


def test_destroying_waits_for_the_runtime_and_may_be_repeated(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        batch_id = await w.send(activity_id, program("sleep", "100"))
        await asyncio.sleep(1)
        destroy = asyncio.create_task(w.api.destroy_activity(activity_id, timeout=5))
        await asyncio.sleep(0.01)
        assert await state(w, activity_id) == ("Ready", "Terminated")
        await destroy
        (runtime,) = w.runtimes.made
        assert (runtime.destroyed, runtime.killed) == (1, 1)
        assert await w.api.activity_state(activity_id) == wire.ActivityStateDoc(state=("Terminated", None))
        (result,) = await w.api.batch_results(activity_id, batch_id, timeout=60)
        assert (result.result, result.is_batch_finished) == ("Error", True)
        await w.api.destroy_activity(activity_id, timeout=5)
        assert runtime.destroyed == 1
        with pytest.raises(NodeFailure, match="endpoint address not found"):
            await w.send(activity_id, DEPLOY)

    in_world(main)


def test_a_destroy_that_takes_too_long_times_out_and_goes_on(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        with pytest.raises(RequestTimeout):
            await w.api.destroy_activity(activity_id, timeout=0.01)
        await asyncio.sleep(1)
        assert await state(w, activity_id) == ("Terminated", None)

    in_world(main)


def test_the_end_of_the_agreement_ends_its_activities(in_world, program):
    async def main(w):
        agreement_id, one = await w.ready()
        two = await w.api.create_activity(agreement_id, timeout=5)
        batch_id = await w.send(one, program("sleep", "100"))
        await w.api.terminate_agreement(agreement_id, DONE)
        await asyncio.sleep(1)
        assert {(await state(w, each))[0] for each in (one, two)} == {"Terminated"}
        (result,) = await w.api.batch_results(one, batch_id, timeout=0)
        assert "agreement was terminated" in result.message
        await w.api.destroy_activity(one, timeout=5)
        with pytest.raises(BadRequest, match="Terminated"):
            await w.api.create_activity(agreement_id, timeout=5)

    in_world(main)


def test_an_activity_needs_an_approved_agreement_of_ones_own(in_world):
    async def main(w):
        _, draft = await w.draft()
        agreement_id = await w.api.create_agreement(draft.proposal_id, w.valid_to())
        with pytest.raises(BadRequest) as caught:
            await w.api.create_activity(agreement_id, timeout=5)
        assert caught.value.status == 400
        with pytest.raises(BadRequest) as caught:
            await w.other().create_activity(agreement_id, timeout=5)
        assert caught.value.status == 403
        with pytest.raises(NotFound):
            await w.api.create_activity("none", timeout=5)

    in_world(main)


def test_what_does_not_exist_is_not_found_and_what_is_anothers_is_forbidden(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        for call in (w.api.activity_state, w.api.activity_usage):
            with pytest.raises(NotFound):
                await call(ActivityId("none"))
        with pytest.raises(NotFound, match="batch_id = none"):
            await w.api.batch_results(activity_id, BatchId("none"), timeout=5)
        with pytest.raises(BadRequest) as caught:
            await w.other().destroy_activity(activity_id, timeout=5)
        assert caught.value.status == 403

    in_world(main)


def test_a_runtime_that_cannot_be_made_is_told_and_ends_the_activity(in_world):
    async def main(w):
        w.runtimes.error = OSError("out of disk")
        agreement_id = await w.agreement()
        with pytest.raises(NodeFailure, match=r"abruptly terminated: .*out of disk"):
            await w.api.create_activity(agreement_id, timeout=5)
        assert w.node.audit().live_activities == ()
        w.runtimes.error = None
        await w.api.create_activity(agreement_id, timeout=5)

    in_world(main)


def test_an_activity_that_is_not_ready_in_time_is_cleared_away(in_world):
    async def main(w):
        w.runtimes.delay = 10
        agreement_id = await w.agreement()
        with pytest.raises(RequestTimeout):
            await w.api.create_activity(agreement_id, timeout=5)
        await asyncio.sleep(20)
        assert w.node.audit().live_activities == ()
        assert w.runtimes.made[0].destroyed == 1
        assert await w.notes() == []

    in_world(main)


@pytest.mark.parametrize("how", ["order", "runtime"])
def test_an_activity_that_dies_is_terminated_at_once_and_says_so(in_world, program, how):
    async def main(w):
        _, activity_id = await w.ready()
        batch_id = await w.send(activity_id, program("sleep", "100"))
        await asyncio.sleep(1)
        before = w.clock.monotonic()
        waiting = asyncio.create_task(w.api.batch_results(activity_id, batch_id, timeout=60))
        await asyncio.sleep(0)
        if how == "order":
            w.node.faults.kill_activity(activity_id, "power cut")
        else:
            w.runtimes.made[0].lost.set_result("power cut")
        (result,) = await waiting
        assert w.clock.monotonic() == before
        assert (result.result, result.is_batch_finished) == ("Error", True)
        assert "power cut" in result.message
        document = await w.api.activity_state(activity_id)
        assert (document.state, document.error_message) == (("Terminated", None), "power cut")
        await asyncio.sleep(1)
        assert w.runtimes.made[0].destroyed == 1
        assert len(await w.notes()) == 1

    in_world(main)


def test_a_silent_activity_becomes_unresponsive_and_may_come_back(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        batch_id = await w.send(activity_id, program("sleep", "2"))
        w.node.faults.hang_activity(activity_id)
        with pytest.raises(RequestTimeout):
            await w.api.batch_results(activity_id, batch_id, timeout=4)
        await asyncio.sleep(2)
        assert await state(w, activity_id) == ("Unresponsive", None)
        with pytest.raises(RequestTimeout):
            await w.api.batch_results(activity_id, batch_id, timeout=1)
        w.node.faults.resume_activity(activity_id)
        (result,) = await w.api.batch_results(activity_id, batch_id, timeout=1)
        assert result.ok
        await asyncio.sleep(60)
        assert await state(w, activity_id) == ("Ready", None)

    in_world(main)


@pytest.mark.parametrize("silent_for", [1.0, 7.0])
def test_a_command_that_moves_the_activity_survives_a_silence(in_world, silent_for):
    async def main(w):
        _, activity_id = await w.activity()
        batch_id = await w.send(activity_id, DEPLOY, START)
        await asyncio.sleep(0.1)
        w.node.faults.hang_activity(activity_id)
        await asyncio.sleep(silent_for)
        w.node.faults.resume_activity(activity_id)
        results = await w.api.batch_results(activity_id, batch_id, timeout=5)
        assert [result.ok for result in results] == [True, True]
        assert await state(w, activity_id) == ("Ready", None)

    in_world(main)


def test_an_activity_that_stays_silent_is_given_up(in_world, program):
    async def main(w):
        _, activity_id = await w.ready()
        batch_id = await w.send(activity_id, program("sleep", "2"))
        w.node.faults.hang_activity(activity_id)
        await asyncio.sleep(11)
        assert await state(w, activity_id) == ("Terminated", None)
        (result,) = await w.api.batch_results(activity_id, batch_id, timeout=60)
        assert not result.ok
        w.node.faults.resume_activity(activity_id)
        assert await state(w, activity_id) == ("Terminated", None)

    in_world(main, timings=Timings(unresponsive=5, abandoned=10))


def test_a_vanished_provider_answers_nothing_until_it_is_back(in_world, program):
    async def main(w):
        agreement_id, activity_id = await w.ready()
        batch_id = await w.send(activity_id, program("sleep", "2"))
        w.node.faults.vanish(w.provider.node_id)
        for call in (
            w.api.activity_state(activity_id),
            w.api.activity_usage(activity_id),
            w.api.create_activity(agreement_id, timeout=5),
            w.api.destroy_activity(activity_id, timeout=5),
        ):
            with pytest.raises(NodeFailure, match="endpoint address not found"):
                await call
        for call in (w.api.batch_results(activity_id, batch_id, timeout=5), w.send(activity_id, STOP)):
            before = w.clock.monotonic()
            with pytest.raises(RequestTimeout):
                await call
            assert w.clock.monotonic() - before == pytest.approx(5)
        waiting = asyncio.create_task(w.api.batch_results(activity_id, batch_id, timeout=60))
        await asyncio.sleep(1)
        w.node.faults.recover(w.provider.node_id)
        (result,) = await waiting
        assert result.ok
        assert await state(w, activity_id) == ("Ready", None)

    in_world(main)


def test_an_ended_activity_is_still_known_when_its_provider_vanishes(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        await w.api.destroy_activity(activity_id, timeout=5)
        w.node.faults.vanish(w.provider.name)
        assert await state(w, activity_id) == ("Terminated", None)
        await w.api.activity_usage(activity_id)
        await w.api.destroy_activity(activity_id, timeout=5)

    in_world(main)


def test_faults_of_unknown_things_are_refused(in_world):
    async def main(w):
        for order in (w.node.faults.kill_activity, w.node.faults.vanish, w.node.faults.terminate_agreement):
            with pytest.raises(LookupError):
                order("none")

    in_world(main)
