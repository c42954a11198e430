"""A signal ends `shem run` in order: nothing is left on the node, and nothing on the machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from shem.devnet.audit import Audit
from shem.devnet.devnet import Devnet
from shem.devnet.settings import Timings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "simple_service"
HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"
QUICK = Timings(counter_reply=0.01, approval=0.02, invoice=0.05, settle=0.05)


def shem_run(*args: str) -> list[str]:
    return [sys.executable, "-c", "from shem.cli import main; main()", "run", *args]


async def start(env: dict[str, str], *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *shem_run(str(EXAMPLE / "simple_service.py"), "-n", "2", "-p", "interval=0.5", *args),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def output_until(process: asyncio.subprocess.Process, text: str) -> str:
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(30):
        while text not in seen:
            line = await process.stdout.readline()
            assert line, f"ended before {text!r}:\n{seen}"
            seen += line.decode()
    return seen


async def settled(devnet: Devnet) -> Audit:
    """The audit once the last payments have gone through."""
    for _ in range(40):
        if devnet.node.audit().clean:
            break
        await asyncio.sleep(0.05)
    return devnet.node.audit()


def processes_with(text: str) -> list[str]:
    """Command lines of all processes whose environment or command line holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in command + environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("moment", ["agreement_signed", "stats:"], ids=["while starting", "while running"])
def test_a_signal_leaves_nothing_open_on_the_node(tmp_path, number, moment):
    async def scenario() -> tuple[int | None, str, Audit]:
        devnet = Devnet(providers=4, images={HASH: EXAMPLE / "image"}, timings=QUICK)
        async with devnet as address:
            env = {"YAGNA_API_URL": address.url, "YAGNA_APPKEY": address.app_key}
            process = await start(env, "-p", f"plots={tmp_path}")
            seen = await output_until(process, moment)
            process.send_signal(number)
            async with asyncio.timeout(30):
                rest, _ = await process.communicate()
            return process.returncode, seen + rest.decode(), await settled(devnet)

    code, output, audit = asyncio.run(scenario())
    assert code == 0, output
    assert audit.clean, str(audit)
    assert "stopping; once more" in output and "total" in output


def test_a_signal_leaves_no_process_folder_or_port_behind(tmp_path):
    """The devnet is embedded here, so that everything there is belongs to the command."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    async def scenario() -> tuple[int | None, str]:
        process = await start(
            {"TMPDIR": str(scratch), "YAGNA_APPKEY": ""},
            "-p",
            f"plots={tmp_path}",
            "--image",
            f"{HASH}={EXAMPLE / 'image'}",
        )
        seen = await output_until(process, "stats:")
        assert any(scratch.iterdir()), "its providers' folders are here while it runs"
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            rest, _ = await process.communicate()
        return process.returncode, seen + rest.decode()

    code, output = asyncio.run(scenario())
    assert code == 0, output
    assert list(scratch.iterdir()) == []
    assert processes_with(str(scratch)) == []


def test_a_second_signal_does_not_wait_for_shutdown(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text(
        "import asyncio\n"
        "from shem import Service, vm\n\n"
        "class Slow(Service):\n"
        "    @staticmethod\n"
        "    async def get_payload():\n"
        f"        return await vm.repo(image_hash={HASH!r})\n\n"
        "    async def shutdown(self):\n"
        "        print('shutting down', flush=True)\n"
        "        await asyncio.sleep(50)\n"
        "        yield self._ctx.new_script()\n"
    )

    async def scenario() -> tuple[int | None, str, float]:
        process = await asyncio.create_subprocess_exec(
            *shem_run(str(file)),
            env={**os.environ, "YAGNA_APPKEY": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        seen = await output_until(process, '"dest": "running"')
        process.send_signal(signal.SIGINT)
        seen += await output_until(process, "shutting down")
        began = asyncio.get_running_loop().time()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            rest, _ = await process.communicate()
        return process.returncode, seen + rest.decode(), asyncio.get_running_loop().time() - began

    code, output, seconds = asyncio.run(scenario())
    assert code == 1, output
    assert "skipped: shutdown()" in output and "nobody waits for it" in output
    assert seconds < 20
