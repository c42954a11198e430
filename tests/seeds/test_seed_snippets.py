"""The code blocks of the documents shem grew out of run as they stand.

Only imports are added, and the constants that the documents leave open; a line of ``...`` in them stands for
what they show elsewhere. The blocks are kept verbatim in the
Markdown files beside this test: the service model guide (scripts made by `new_script`), the handbook's
chapter (the older form, `commit`), and what survives whole in the article.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
import re
import string
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from shem import Devnet, Service, State, vm
from shem.compat.yapapi import Golem, log_event_repr, log_summary
from shem.lifecycle import Event
from shem.testing import Reply, World, run
from shem.testing.sim import EPOCH

HERE = pathlib.Path(__file__).parent
IMAGE = HERE.parents[1] / "examples" / "simple_service" / "image"
IMAGE_HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"
PNG = b"\x89PNG\r\n\x1a\n"


def blocks(document: str) -> list[str]:
    """The code blocks of a document, as they stand."""
    return re.findall(r"```python\n(.*?)```", (HERE / document).read_text(), flags=re.DOTALL)


class SimulatedDatetime(datetime):
    """`datetime` whose present is the simulation's: its first moment, for all that the documents need."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return EPOCH.astimezone(tz)


def namespace(folder: pathlib.Path, *, simulated: bool = False) -> dict[str, Any]:
    """The imports that the documents presuppose, and the constants that they leave open."""
    return {
        "asyncio": asyncio,
        "datetime": SimulatedDatetime if simulated else datetime,
        "timedelta": timedelta,
        "timezone": timezone,
        "pathlib": pathlib,
        "random": random,
        "string": string,
        "Golem": Golem,
        "Service": Service,
        "vm": vm,
        "log_event_repr": log_event_repr,
        "log_summary": log_summary,
        "NUM_INSTANCES": 2,
        "subnet_tag": "public",
        "payment_driver": "erc20",
        "payment_network": "holesky",
        "driver": "erc20",
        "network": "holesky",
        "__file__": str(folder / "requestor.py"),
        "__name__": "seed",
    }


def service_class(names: dict[str, Any], document: str) -> type[Service]:
    """The class that the document's first blocks define, put together without the ``...`` between them."""
    lines = "\n".join(blocks(document)[:-1]).splitlines()
    exec("\n".join(line for line in lines if line.strip() != "..."), names)
    return names["SimpleService"]


def provision(names: dict[str, Any], document: str) -> Any:
    """The document's last block as the body of a function; what `then` does stands for its last ``...``."""
    body, dots, rest = blocks(document)[-1].rpartition("...")
    assert dots and not rest.strip()
    body = body.rstrip(" ")
    source = f"async def provision(then):\n{body}\n        return await then(golem, cluster)\n"
    exec(source, names)
    return names["provision"]


def simulator(program: str, args: Sequence[str]) -> Reply:
    """What the provider's programs answer in virtual time."""
    if program == "/golem/run/simulate_observations_ctl.py":
        return Reply(stdout=f"simulator {args[0]}\n")
    assert program == "/golem/run/simple_service.py", program
    if args[0] == "--stats":
        return Reply(stdout='{"count": 3}\n')
    return Reply(stdout='"/golem/out/dist.png"\n', files={"/golem/out/dist.png": PNG})


@pytest.mark.parametrize("document", ["service_guide.md", "handbook.md"])
def test_a_documents_service_lives_from_pending_to_terminated_in_virtual_time(document, tmp_path, capsys):
    names = namespace(tmp_path, simulated=True)
    service_class(names, document)

    async def life() -> tuple[list[list[Event]], Any]:
        async with World(respond=simulator) as world:
            names["Golem"] = lambda **arguments: world.golem(**arguments)

            async def then(_golem: Any, cluster: Any) -> list[list[Event]]:
                await cluster.wait_until(State.RUNNING)
                await asyncio.sleep(35)
                await cluster.stop()
                return [[record.event for record in one.records] for one in cluster.instances]

            return await provision(names, document)(then), world.node.audit()

    events, audit = run(life)
    assert events == [
        [Event.RUN_SERVICE, Event.START_SUCCESSFUL, Event.SHUTDOWN, Event.SERVICE_STOPPED] for _ in range(2)
    ]
    assert not audit.live_activities and not audit.open_agreements and not audit.open_allocations
    if document == "service_guide.md":
        assert capsys.readouterr().out.count('{"count": 3}') == 2 * 3
    else:
        plots = list(tmp_path.glob("*.png"))
        assert len(plots) == 2 * 3 and all(plot.read_bytes() == PNG for plot in plots)


def test_the_articles_start_hands_on_the_default_start(tmp_path):
    names = namespace(tmp_path)
    (block,) = blocks("article.md")
    exec(f"class SimpleService(Service):\n{block}", names)

    async def life() -> list[State]:
        async with World() as world, world.golem() as golem:
            cluster = await golem.run_service(
                names["SimpleService"], payload=await vm.repo(image_hash=IMAGE_HASH)
            )
            await cluster.wait_until(State.RUNNING)
            return [record.dest for record in cluster.instances[0].records]

    assert run(life) == [State.STARTING, State.RUNNING]


def test_both_documents_services_run_on_real_processes(tmp_path, monkeypatch, capsys):
    """On the devnet, against the programs of the example's image: ten seconds of real time, as written."""
    monkeypatch.delenv("YAGNA_APPKEY", raising=False)

    async def life(document: str, address: Any) -> list[SimpleNamespace]:
        folder = tmp_path / document
        folder.mkdir()
        names = namespace(folder)
        service_class(names, document)
        names["Golem"] = partial(Golem, node=address)

        async def then(_golem: Any, cluster: Any) -> list[SimpleNamespace]:
            await cluster.wait_until(State.RUNNING, timeout=30)
            await asyncio.sleep(11.5)
            await cluster.stop()
            return [
                SimpleNamespace(error=one.error, path=[r.dest for r in one.records], why=one.why())
                for one in cluster.instances
            ]

        return await provision(names, document)(then)

    async def both() -> list[list[SimpleNamespace]]:
        async with Devnet(providers=4, images={IMAGE_HASH: IMAGE}) as address:
            return await asyncio.gather(life("service_guide.md", address), life("handbook.md", address))

    for instances in asyncio.run(both()):
        for one in instances:
            assert one.error is None, one.why
            assert one.path == [State.STARTING, State.RUNNING, State.STOPPING, State.TERMINATED]
    printed = [
        json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"count"')
    ]
    assert len(printed) == 2 and all(stats["count"] > 20 for stats in printed)
    plots = list((tmp_path / "handbook.md").glob("*.png"))
    assert len(plots) == 2 and all(plot.read_bytes().startswith(PNG) for plot in plots)
