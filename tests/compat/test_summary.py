"""`log_summary` tells a person what happened in a run, and hands every event on."""

from __future__ import annotations

from structlog.testing import capture_logs

from shem import Service, State, vm
from shem.compat.yapapi import log_event, log_event_repr, log_summary
from shem.events import BusEvent, InstanceMoved
from shem.testing import World, run

HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"


class Short(Service):
    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash=HASH)

    async def run(self):
        script = self._ctx.new_script()
        script.run("/bin/true")
        yield script


def lines_of(consumer: object) -> list[str]:
    async def life() -> None:
        async with World() as world, world.golem(event_consumer=consumer) as golem:
            cluster = await golem.run_service(Short)
            await cluster.wait_until(State.TERMINATED)

    with capture_logs() as logs:
        run(life)
    return [str(line["event"]) for line in logs if line.get("part") == "summary"]


def test_the_summary_names_provider_states_invoice_and_total():
    lines = lines_of(log_summary())
    text = "\n".join(lines)
    assert "[devnet-1] agreement signed" in lines and "[devnet-1] activity created" in lines
    for move in ("pending → starting", "starting → running", "running → stopping", "stopping → terminated"):
        assert move in text
    assert "invoice over" in text
    assert lines[-1].startswith("total cost ") and "devnet-1" in lines[-1]


def test_every_event_is_handed_on_in_order():
    heard: list[BusEvent] = []
    lines_of(log_summary(heard.append))
    assert [event.record.seq for event in heard if isinstance(event, InstanceMoved)] == [1, 2, 3, 4]
    assert [event.at for event in heard] == sorted(event.at for event in heard)


def test_the_plain_consumers_log_each_event():
    assert any("InstanceMoved" in line for line in lines_of(log_event_repr))
    assert "InstanceMoved" in lines_of(log_event)
