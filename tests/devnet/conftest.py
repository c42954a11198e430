"""A node in virtual time, and a devnet on a real port, each with a requestor before it.

`in_world(main, …)` runs ``main(world)`` in a simulated loop, `serve(main, …)` runs ``main(http)`` over
sockets; `World` and `Http` have short cuts for the steps of a rental. `ScriptedRuntime` does what the names
of its commands say.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import aiohttp
import pytest
import yarl

from shem.devnet.devnet import Devnet
from shem.devnet.local import LocalApi
from shem.devnet.node import Node
from shem.devnet.provider import Provider
from shem.devnet.runtime.base import CommandError, DeployOptions, OutputListener, RuntimeSpec
from shem.devnet.settings import ProviderSettings, Timings
from shem.ids import ActivityId, AgreementId, AllocationId, AppSessionId, BatchId, DemandId
from shem.testing.sim import SimClock, run
from shem.yagna import models as wire

PLATFORM = "erc20-holesky-tglm"
SESSION = AppSessionId("session-1")


class ScriptedRuntime:
    """Commands: say TEXT…, moan TEXT (to stderr), sleep S, burn S (of CPU), fail CODE, die WHY, break."""

    def __init__(self, spec: RuntimeSpec, pace: float) -> None:
        self.spec, self.pace = spec, pace
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.files: dict[str, bytes] = {}
        self.options: DeployOptions | None = None
        self.cpu = 0.0
        self.destroyed = 0
        self.killed = 0
        self.deploy_error: str | None = None

    async def deploy(self, options: DeployOptions) -> str:
        self.options = options
        if self.deploy_error is not None:
            raise CommandError(self.deploy_error)
        await asyncio.sleep(0.5 * self.pace)
        return '{"valid":{"Ok":"scripted"}}'

    async def start(self, args: Sequence[str]) -> None:
        await asyncio.sleep(0.25 * self.pace)

    async def run(self, entry_point: str, args: Sequence[str], output: OutputListener) -> int:
        match entry_point:
            case "say":
                for text in args:
                    output("stdout", text.encode())
                    await asyncio.sleep(0)
            case "moan":
                output("stderr", args[0].encode())
            case "sleep":
                try:
                    await asyncio.sleep(float(args[0]))
                except asyncio.CancelledError:
                    self.killed += 1
                    raise
            case "burn":
                self.cpu += float(args[0])
            case "fail":
                return int(args[0])
            case "die":
                self.lost.set_result(args[0])
                await asyncio.sleep(3600)
            case "break":
                raise RuntimeError("a bug of the runtime")
            case _:
                raise CommandError(f"{entry_point}: no such program")
        return 0

    async def open_to_read(self, path: str) -> BinaryIO:
        if path not in self.files:
            raise CommandError(f"{path}: no such file")
        return io.BytesIO(self.files[path])

    async def open_to_write(self, path: str) -> BinaryIO:
        files = self.files

        class Writer(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    files[path] = self.getvalue()
                super().close()

        return Writer()

    async def stop(self) -> None:
        self.files.clear()

    def cpu_seconds(self) -> float:
        return self.cpu

    async def destroy(self) -> None:
        await asyncio.sleep(0.125 * self.pace)
        self.destroyed += 1


class ScriptedRuntimes:
    """Makes scripted runtimes, and keeps them to be looked at."""

    isolation = "scripted"

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace
        self.made: list[ScriptedRuntime] = []
        self.delay = 0.0
        self.error: Exception | None = None
        self.deploy_error: str | None = None

    async def create(self, spec: RuntimeSpec) -> ScriptedRuntime:
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        runtime = ScriptedRuntime(spec, self.pace)
        runtime.deploy_error = self.deploy_error
        self.made.append(runtime)
        return runtime


class World:
    """A node, a requestor before it, and short cuts."""

    def __init__(self, node: Node, runtimes: ScriptedRuntimes, clock: SimClock) -> None:
        self.node, self.runtimes, self.clock = node, runtimes, clock
        self.api = LocalApi(node)
        self.began = clock.now()

    @property
    def provider(self) -> Provider:
        return self.node.providers[0]

    def other(self) -> LocalApi:
        """The same node, seen by somebody else."""
        return LocalApi(self.node, wire.Identity(identity=wire.NodeId("0x" + "e" * 40)))

    def demand_spec(
        self, *, ahead: float = 1200.0, constraints: str = "(golem.runtime.name=vm)", **more: Any
    ) -> wire.DemandSpec:
        """A demand; `more` are further properties, None leaves one out."""
        properties = {
            "golem.srv.comp.expiration": int((self.clock.now().timestamp() + ahead) * 1000),
            "golem.node.debug.subnet": "public",
            "golem.com.payment.chosen-platform": PLATFORM,
            f"golem.com.payment.platform.{PLATFORM}.address": "0xpayer",
            **more,
        }
        return wire.DemandSpec(
            properties={key: value for key, value in properties.items() if value is not None},
            constraints=constraints,
        )

    async def allocation(self, amount: object = 10) -> AllocationId:
        made = await self.api.create_allocation(
            wire.NewAllocation(
                address="0xpayer", payment_platform=PLATFORM, total_amount=Decimal(str(amount))
            )
        )
        return made.allocation_id

    async def proposals(self, demand_id: DemandId, timeout: float = 5.0) -> list[wire.Proposal]:
        events = await self.api.demand_events(demand_id, timeout=timeout)
        return [event.proposal for event in events if isinstance(event, wire.ProposalEvent)]

    async def draft(
        self, spec: wire.DemandSpec | None = None, demand_id: DemandId | None = None
    ) -> tuple[DemandId, wire.Proposal]:
        """A provider's draft in answer to ours."""
        spec = spec or self.demand_spec()
        demand_id = demand_id or await self.api.subscribe(spec)
        initial = (await self.proposals(demand_id))[0]
        await self.api.counter_proposal(demand_id, initial.proposal_id, spec)
        return demand_id, (await self.proposals(demand_id))[0]

    async def agreement(
        self, spec: wire.DemandSpec | None = None, *, session: AppSessionId = SESSION
    ) -> AgreementId:
        """An approved agreement; its demand stays published."""
        _, draft = await self.draft(spec)
        agreement_id = await self.api.create_agreement(draft.proposal_id, self.valid_to())
        await self.api.confirm_agreement(agreement_id, session)
        await self.api.wait_for_approval(agreement_id, timeout=5)
        return agreement_id

    async def activity(self, spec: wire.DemandSpec | None = None) -> tuple[AgreementId, ActivityId]:
        """A new activity under a new agreement."""
        agreement_id = await self.agreement(spec)
        return agreement_id, await self.api.create_activity(agreement_id, timeout=5)

    async def ready(self, spec: wire.DemandSpec | None = None) -> tuple[AgreementId, ActivityId]:
        """An activity that is deployed and started."""
        agreement_id, activity_id = await self.activity(spec)
        await self.do(activity_id, {"deploy": {}}, {"start": {}})
        return agreement_id, activity_id

    async def send(self, activity_id: ActivityId, *commands: dict[str, Any]) -> BatchId:
        return await self.api.execute(activity_id, list(commands))

    async def do(self, activity_id: ActivityId, *commands: dict[str, Any]) -> list[wire.CommandOutcome]:
        """Results of a batch, when it is over."""
        batch_id = await self.send(activity_id, *commands)
        while True:
            results = list(await self.api.batch_results(activity_id, batch_id, timeout=60))
            if results and results[-1].is_batch_finished:
                return results

    def valid_to(self, seconds: float = 60.0) -> datetime:
        return self.clock.now() + timedelta(seconds=seconds)

    async def notes(self) -> list[wire.DebitNote]:
        """All debit notes so far."""
        events = await self.api.debit_note_events(
            after=self.began - timedelta(1), timeout=0, app_session_id=SESSION
        )
        return [await self.api.debit_note(event.debit_note_id) for event in events]

    async def invoices(self, timeout: float = 0) -> list[wire.Invoice]:
        """All invoices so far."""
        events = await self.api.invoice_events(
            after=self.began - timedelta(1), timeout=timeout, app_session_id=SESSION
        )
        return [await self.api.invoice(event.invoice_id) for event in events]

    async def agreement_events(self) -> list[wire.AgreementEvent]:
        """All agreement events so far."""
        return list(
            await self.api.agreement_events(
                after=self.began - timedelta(1), timeout=0, app_session_id=SESSION
            )
        )


def run_program(entry_point: str, *args: str, stdout: Any = None, stderr: Any = None) -> dict[str, Any]:
    """A `run` command that captures what it is told to."""
    capture = {"stdout": stdout or {"atEnd": {}}, "stderr": stderr or {"atEnd": {}}}
    return {"run": {"entry_point": entry_point, "args": list(args), "capture": capture}}


InWorld = Callable[..., Any]


@pytest.fixture(scope="session")
def program() -> Callable[..., dict[str, Any]]:
    return run_program


@pytest.fixture(scope="session")
def in_world() -> InWorld:
    """Runs ``main(world)`` in virtual time; further arguments go to the node."""

    def run_in_world(
        main: Callable[[World], Awaitable[Any]],
        *,
        providers: int | Sequence[ProviderSettings] = 1,
        seed: int = 0,
        **settings: Any,
    ) -> Any:
        async def go() -> Any:
            clock, runtimes = SimClock(seed), ScriptedRuntimes()
            async with Node(runtimes, providers=providers, clock=clock, **settings) as node:
                return await main(World(node, runtimes, clock))

        return run(go)

    return run_in_world


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedRuntimes]:
    return ScriptedRuntimes


class Http:
    """A bare client of a devnet: what really goes over the wire."""

    def __init__(self, session: aiohttp.ClientSession, devnet: Devnet, runtimes: ScriptedRuntimes) -> None:
        self.session, self.devnet, self.runtimes = session, devnet, runtimes
        self.url = devnet.address.url
        self.key = {"Authorization": f"Bearer {devnet.address.app_key}"}

    async def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        """One request with the app key; `body` is sent as JSON, `raw` as it is."""
        headers = {**self.key, **more.pop("headers", {})}
        raw = more.pop("raw", None if body is None else json.dumps(body).encode())
        # Not parsed again: what stands in `path` is what is sent.
        url = yarl.URL(self.url + path, encoded=True)
        async with self.session.request(method, url, data=raw, headers=headers, **more) as response:
            return Reply(
                response.status, response.content_type, await response.read(), dict(response.headers)
            )

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of a successful answer."""
        reply = await self(method, path, body, **more)
        assert 200 <= reply.status < 300, reply
        return reply.json

    def spec(self, **more: Any) -> dict[str, Any]:
        """A demand that the built-in providers agree to."""
        properties = {
            "golem.srv.comp.expiration": int((time.time() + 1200) * 1000),
            "golem.node.debug.subnet": "public",
            "golem.com.payment.chosen-platform": PLATFORM,
            **more,
        }
        return {"properties": properties, "constraints": "(golem.runtime.name=vm)"}

    async def draft(self, spec: dict[str, Any]) -> tuple[str, str]:
        """Ids of a new demand and of a provider's draft for it."""
        demand = await self.ok("POST", "/market-api/v1/demands", spec)
        path = f"/market-api/v1/demands/{demand}"
        (event,) = await self.ok("GET", f"{path}/events?timeout=5")
        await self.ok("POST", f"{path}/proposals/{event['proposal']['proposalId']}", spec)
        (event,) = await self.ok("GET", f"{path}/events?timeout=5")
        return demand, event["proposal"]["proposalId"]

    async def agreement(self) -> str:
        """Id of an approved agreement."""
        _, draft = await self.draft(self.spec())
        valid_to = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()
        made = await self.ok("POST", "/market-api/v1/agreements", {"proposalId": draft, "validTo": valid_to})
        await self.ok("POST", f"/market-api/v1/agreements/{made}/confirm?appSessionId={SESSION}")
        await self.ok("POST", f"/market-api/v1/agreements/{made}/wait?timeout=5")
        return str(made)

    async def activity(self) -> str:
        """Id of an activity under a new agreement."""
        body = {"agreementId": await self.agreement()}
        return str((await self.ok("POST", "/activity-api/v1/activity?timeout=5", body))["activityId"])

    async def exec(self, activity: str, *commands: dict[str, Any]) -> str:
        """Id of a new batch."""
        body = {"text": json.dumps(commands)}
        return str(await self.ok("POST", f"/activity-api/v1/activity/{activity}/exec", body))


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    type: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


#: Providers over real sockets are quick.
QUICK = Timings(counter_reply=0.0, approval=0.0, invoice=0.01, settle=0.05)


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """Runs ``main(http)`` before a devnet on a real port; further arguments go to the devnet."""

    def serve_and_run(main: Callable[[Http], Awaitable[Any]], **settings: Any) -> Any:
        async def go() -> Any:
            runtimes = ScriptedRuntimes(pace=0.02)
            devnet = Devnet(**{"runtime": runtimes, "providers": 1, "timings": QUICK, **settings})
            async with devnet, aiohttp.ClientSession() as session:
                return await main(Http(session, devnet, runtimes))

        return asyncio.run(go())

    return serve_and_run
