"""The embedded node as a whole: starting, stopping, and what it leaves behind (nothing)."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from shem.config import NodeAddress
from shem.devnet.devnet import Devnet
from shem.devnet.settings import ProviderSettings
from shem.errors import ConfigError


def test_it_yields_where_it_listens_and_the_key_and_releases_the_port():
    async def main():
        devnet = Devnet(runtime="null", providers=3)
        async with devnet as address:
            assert isinstance(address, NodeAddress)
            assert devnet.address is address
            assert address.url.startswith("http://127.0.0.1:")
            assert len(address.app_key) == 64
            assert address.app_key not in repr(address)
            assert len(devnet.node.providers) == 3
            assert "nothing is run" in devnet.isolation
            assert await devnet.start() is address
        port = int(address.url.rpartition(":")[2])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_each_start_has_a_new_key_and_a_new_node_and_stopping_twice_is_harmless():
    async def main():
        devnet = Devnet(runtime="null")
        await devnet.stop()
        first = await devnet.start()
        node = devnet.node
        await devnet.stop()
        await devnet.stop()
        assert node.closed
        second = await devnet.start()
        assert devnet.node is not node
        assert first.app_key != second.app_key
        await devnet.stop()

    asyncio.run(main())


def test_a_fixed_port_can_be_used_again_at_once():
    async def main():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for _ in range(2):
            async with Devnet(runtime="null", port=port, app_key="my-key") as address:
                assert address == NodeAddress(f"http://127.0.0.1:{port}", "my-key")

    asyncio.run(main())


def test_a_taken_port_is_said_to_be_so_and_leaves_nothing_behind():
    async def main():
        async with Devnet(runtime="null") as address:
            port = int(address.url.rpartition(":")[2])
            second = Devnet(runtime="null", port=port)
            before = len(asyncio.all_tasks())
            with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is taken.*another port"):
                await second.start()
            assert len(asyncio.all_tasks()) == before
            with pytest.raises(RuntimeError, match="not started"):
                _ = second.address

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runtime": "docker"}, "runtime 'docker'"),
        ({"runtime": "null", "port": 70_000}, "port"),
        ({"runtime": "null", "providers": [ProviderSettings(name="a")] * 2}, "named 'a'"),
        ({"images": {"abcd": Path("/no/such/directory")}}, "/no/such/directory"),
    ],
)
def test_a_senseless_setting_is_refused(settings, said):
    async def main():
        with pytest.raises(ConfigError, match=said):
            await Devnet(**settings).start()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_what_is_not_started_has_no_address():
    devnet = Devnet(providers=1)
    for name in ("address", "node", "isolation"):
        with pytest.raises(RuntimeError, match="not started"):
            getattr(devnet, name)


def test_it_listens_on_loopback_only():
    async def main():
        async with Devnet(runtime="null") as address:
            port = int(address.url.rpartition(":")[2])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("192.0.2.1", 9))  # sends nothing; only asks for the way out
                own = probe.getsockname()[0]
            with pytest.raises(OSError):
                await asyncio.open_connection(own, port)

    try:
        asyncio.run(main())
    except OSError:
        pytest.skip("this machine has no address but loopback")


def test_a_sandbox_really_runs_and_leaves_no_process_and_no_file_behind(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    async def main(http):
        activity = await http.activity()
        run = {"entry_point": "/bin/sh", "args": ["-c", "echo $((6*7)); sleep 60 & echo $! >&2"]}
        capture = {"stdout": {"atEnd": {}}, "stderr": {"atEnd": {}}}
        batch = await http.exec(activity, {"deploy": {}}, {"start": {}}, {"run": {**run, "capture": capture}})
        path = f"/activity-api/v1/activity/{activity}"
        results = await http.ok("GET", f"{path}/exec/{batch}?timeout=20")
        assert [result["result"] for result in results] == ["Ok"] * 3, results
        assert results[-1]["stdout"] == "42\n"
        assert (await http.ok("GET", f"{path}/usage"))["currentUsage"][0] > 0
        return children()

    before = children()
    during = serve(main, runtime="sandbox")
    assert during > before
    assert children() == before
    assert list(tmp_path.iterdir()) == []


def children() -> set[int]:
    """Processes that descend from this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, fresh = set(), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found |= fresh
    return found
