"""A service's whole life on real processes and sockets: every command, both forms, the choice of the node."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from shem import Devnet, Golem, Service, State, vm
from shem.config import NodeAddress
from shem.devnet.settings import Timings
from shem.errors import CommandFailed, CommandSkipped, ScriptTimeout

HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"
QUICK = Timings(counter_reply=0.01, approval=0.02, invoice=0.05, settle=0.05)


@pytest.fixture(autouse=True)
def no_configured_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAGNA_APPKEY", raising=False)


class OnVm(Service):
    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash=HASH)


def live(service_class: type[Service], **params: Any) -> Service:
    """Run one instance to its end on a devnet of its own; everything is given back."""

    async def life() -> Service:
        devnet = Devnet(providers=2, timings=QUICK)
        async with devnet as address:
            async with Golem(budget=1, node=address) as golem:
                cluster = await golem.run_service(service_class, instance_params=[params])
                await cluster.wait_until(State.TERMINATED, timeout=60)
            assert devnet.node.audit().clean, str(devnet.node.audit())
            return cluster.instances[0]

    return asyncio.run(life())


def test_files_bytes_and_json_travel_both_ways(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("from a file\n" * 10_000)
    found: dict[str, Any] = {}

    class Transfers(OnVm):
        async def run(self):
            script = self._ctx.new_script(timeout=30)
            script.upload_file(source, "/golem/work/file")
            script.upload_bytes(b"\x00\xff bytes", "/golem/work/bytes")
            script.upload_json({"n": [1, 2.5, None]}, "/golem/work/json")
            words = script.run("/bin/sh", "-c", "cat /golem/work/file /golem/work/json | wc -c")
            script.download_file("/golem/work/file", tmp_path / "copy.txt")
            some = script.download_bytes("/golem/work/bytes")
            value = script.download_json("/golem/work/json")
            yield script
            found["words"] = (await words).stdout.strip()
            found["bytes"] = (await some).value
            found["json"] = (await value).value

    instance = live(Transfers)
    assert instance.error is None, instance.why()
    assert (tmp_path / "copy.txt").read_text() == source.read_text()
    assert found["bytes"] == b"\x00\xff bytes" and found["json"] == {"n": [1, 2.5, None]}
    assert int(found["words"]) == source.stat().st_size + len(
        json.dumps(found["json"], separators=(",", ":"))
    )


def test_a_provider_downloads_from_a_url_by_itself(tmp_path):
    found: list[str] = []

    class Fetches(OnVm):
        def __init__(self, url: str) -> None:
            self.url = url

        async def run(self):
            script = self._ctx.new_script(timeout=30)
            script.download_from_url(self.url, "/golem/input/page")
            shown = script.run("/bin/cat", "/golem/input/page")
            yield script
            found.append((await shown).stdout)

    async def life() -> str:
        async def page(_request: web.Request) -> web.Response:
            return web.Response(text="a page")

        app = web.Application()
        app.router.add_get("/page", page)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/page"
        try:
            async with Devnet(providers=1, timings=QUICK) as address, Golem(budget=1, node=address) as golem:
                cluster = await golem.run_service(Fetches, instance_params=[{"url": url}])
                await cluster.wait_until(State.TERMINATED, timeout=60)
                return cluster.instances[0].why()
        finally:
            await runner.cleanup()

    why = asyncio.run(life())
    assert found == ["a page"], why


def test_both_forms_of_scripts_the_environment_and_failures_work_on_real_processes():
    seen: list[Any] = []

    class Both(OnVm):
        async def start(self):
            # The older form, without a word about deploying.
            self._ctx.run("/bin/sh", "-c", 'echo "$GREETING"', env={"GREETING": "it's $HOME"})
            self._ctx.run("/bin/echo", "second")
            future_results = yield self._ctx.commit()
            results = await future_results
            seen.append([result.stdout for result in results])

        async def run(self):
            script = self._ctx.new_script()
            good = script.run("/bin/echo", "good")
            bad = script.run("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
            late = script.run("/bin/echo", "late")
            try:
                yield script
            except CommandFailed as error:
                seen.append((error.index, error.exit_code, error.stdout, error.stderr))
            seen.append((await good).stdout)
            for handle, kind in ((bad, CommandFailed), (late, CommandSkipped)):
                with pytest.raises(kind):
                    await handle
            slow = self._ctx.new_script(timeout=0.3)
            slow.run("/bin/sleep", "30")
            try:
                yield slow
            except ScriptTimeout as error:
                seen.append(type(error))

    instance = live(Both)
    assert instance.error is None, instance.why()
    assert seen[0] == ["it's $HOME\n", "second\n"]
    assert seen[1:] == [(1, 7, "out\n", "err\n"), "good\n", ScriptTimeout]


def test_without_a_configured_node_the_devnet_is_used_and_one_line_says_so():
    async def life() -> State:
        async with Golem(budget=1) as golem:
            cluster = await golem.run_service(OnVm)
            return await cluster.instances[0].wait_for(State.RUNNING, timeout=30)

    with capture_logs() as logs:
        assert asyncio.run(life()) is State.RUNNING
    (line,) = [line for line in logs if line["event"] == "node_chosen"]
    assert line["kind"] == "devnet" and "YAGNA_APPKEY" in line["hint"]


def test_a_configured_node_is_used_instead(monkeypatch, tmp_path: Path):
    async def life() -> tuple[NodeAddress, list[str]]:
        async with Devnet(providers=1, runtime="null", timings=QUICK) as address:
            monkeypatch.setenv("YAGNA_APPKEY", address.app_key)
            monkeypatch.setenv("YAGNA_API_URL", address.url)
            async with Golem(budget=1) as golem:
                cluster = await golem.run_service(OnVm)
                await cluster.wait_until(State.RUNNING, timeout=30)
            return address, [account.provider for account in golem.accounts]

    with capture_logs() as logs:
        address, providers = asyncio.run(life())
    (line,) = [line for line in logs if line["event"] == "node_chosen"]
    assert line["url"] == address.url and providers == ["devnet-1"]
    assert address.app_key not in str(logs)


def test_a_program_that_says_nothing_about_logs_is_not_flooded_with_details(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio\n"
        "from shem import Devnet, Golem, Service, State, vm\n\n"
        "class Demo(Service):\n"
        "    @staticmethod\n"
        "    async def get_payload():\n"
        f"        return await vm.repo(image_hash={HASH!r})\n\n"
        "async def main():\n"
        "    async with Devnet(providers=1, runtime='null') as address:\n"
        "        async with Golem(budget=1, node=address) as golem:\n"
        "            cluster = await golem.run_service(Demo)\n"
        "            await cluster.wait_until(State.RUNNING)\n\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "instance_moved" in done.stdout and "debug" not in done.stdout
