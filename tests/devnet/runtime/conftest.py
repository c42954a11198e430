"""Sandboxes for the tests: one factory per level for the whole run."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from shem.clock import SystemClock
from shem.devnet.runtime.base import DeployOptions, RuntimeSpec
from shem.devnet.runtime.sandbox import SandboxFactory


def make_spec(image_hash=None, activity_id="activity0001"):
    return RuntimeSpec(activity_id, image_hash, mem_gib=0.5, storage_gib=1.0, threads=1)


class Level:
    """One level of isolation, and short ways to use it (test files cannot import from each other)."""

    def __init__(self, plain):
        self.plain = plain
        self.factory = SandboxFactory(clock=SystemClock(), plain=plain)
        self.loop_timeout = 30

    def run(self, scenario, options=None):
        """Run `await scenario(sandbox)` with a started sandbox, which is destroyed afterwards."""

        async def main():
            async with asyncio.timeout(self.loop_timeout), self.sandbox(options) as sandbox:
                return await scenario(sandbox)

        return asyncio.run(main())

    @contextlib.asynccontextmanager
    async def sandbox(self, options=None, factory=None, spec=None):
        sandbox = await (factory or self.factory).create(spec or make_spec())
        try:
            await sandbox.deploy(options or DeployOptions())
            await sandbox.start([])
            yield sandbox
        finally:
            await sandbox.destroy()

    @staticmethod
    async def shell(sandbox, line):
        """Exit code, standard output and standard error of a shell line."""
        heard = Heard()
        code = await sandbox.run("/bin/sh", ["-c", line], heard)
        return code, heard.text(), heard.text("stderr")

    @staticmethod
    def pids_of(marker):
        """Host pids of all living processes that have `marker` in their command line."""
        return pids_of(marker)

    @staticmethod
    async def until(condition, timeout=5.0):
        """Wait until a condition of the machine, which sends no event, is true."""
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110  # the condition is not this program's
                await asyncio.sleep(0.02)


class Heard(list):
    """Output of a command: call it as a listener, ask for the text of a stream."""

    def __call__(self, stream, data):
        self.append((stream, data))

    def text(self, stream="stdout"):
        return b"".join(data for name, data in self if name == stream).decode()


def pids_of(marker):
    """Host pids of all living processes that have `marker` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if marker.encode() in words and state != "Z" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="session")
def _levels():
    made = {}
    yield made
    for level in made.values():
        asyncio.run(level.factory.aclose())


def _level(made, name):
    if name not in made:
        made[name] = Level(plain=name == "plain")
    level = made[name]
    if name == "namespaces" and not level.factory.namespaces:
        pytest.skip(f"no namespaces here: {level.factory.isolation}")
    return level


@pytest.fixture(params=["namespaces", "plain"])
def level(request, _levels):
    """Each level in turn."""
    return _level(_levels, request.param)


@pytest.fixture
def heard():
    """A listener that keeps what it hears."""
    return Heard()


@pytest.fixture
def spec():
    """Makes specs."""
    return make_spec


@pytest.fixture
def isolated(_levels):
    """The level with namespaces."""
    return _level(_levels, "namespaces")


@pytest.fixture
def plain(_levels):
    """The level without."""
    return _level(_levels, "plain")
