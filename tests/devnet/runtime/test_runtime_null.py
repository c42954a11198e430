"""The runtime that runs nothing."""

import asyncio
import json

import pytest

from shem.devnet.runtime.base import CommandError, DeployOptions, RuntimeSpec
from shem.devnet.runtime.null import NullFactory

SPEC = RuntimeSpec("a1", None, 1.0, 1.0, 1)


def with_runtime(scenario):
    async def main():
        factory = NullFactory()
        runtime = await factory.create(SPEC)
        try:
            return await scenario(runtime)
        finally:
            await runtime.destroy()
            await factory.aclose()

    return asyncio.run(main())


async def started(runtime):
    await runtime.deploy(DeployOptions(volumes=["/data"]))
    await runtime.start([])


def test_it_says_that_nothing_is_run():
    assert "nothing is run" in NullFactory().isolation


def test_every_command_succeeds_silently():
    async def scenario(runtime):
        await started(runtime)
        heard = []
        code = await runtime.run("/no/such/program", ["x"], lambda *piece: heard.append(piece))
        return code, heard, runtime.cpu_seconds(), await runtime.refresh_usage()

    assert with_runtime(scenario) == (0, [], 0.0, 0.0)


def test_the_deploy_result_names_the_volumes():
    async def scenario(runtime):
        return json.loads(await runtime.deploy(DeployOptions(volumes=["/data"])))

    result = with_runtime(scenario)
    assert [volume["path"] for volume in result["vols"]] == ["/data"]
    assert "Ok" in result["valid"]


def test_what_is_written_can_be_read_back_until_the_stop():
    async def scenario(runtime):
        await started(runtime)
        with await runtime.open_to_write("/golem/input/a") as file:
            file.write(b"first")
        with await runtime.open_to_write("/golem/input/a") as file:
            file.write(b"second")
        with await runtime.open_to_read("/golem/input/a") as file:
            content = file.read()
        await runtime.stop()
        await started(runtime)
        with pytest.raises(CommandError, match="nothing was written"):
            await runtime.open_to_read("/golem/input/a")
        return content

    assert with_runtime(scenario) == b"second"


@pytest.mark.parametrize(
    "call",
    [
        lambda runtime: runtime.start([]),
        lambda runtime: runtime.run("/bin/true", [], lambda *_: None),
        lambda runtime: runtime.open_to_read("/x"),
        lambda runtime: runtime.open_to_write("/x"),
        lambda runtime: runtime.connect(80),
    ],
    ids=["start", "run", "read", "write", "connect"],
)
def test_nothing_works_before_deploy(call):
    async def scenario(runtime):
        with pytest.raises(CommandError):
            await call(runtime)

    with_runtime(scenario)


def test_it_cannot_be_deployed_twice_nor_after_its_end():
    async def scenario(runtime):
        await runtime.deploy(DeployOptions())
        with pytest.raises(CommandError, match="deployed already"):
            await runtime.deploy(DeployOptions())
        await runtime.destroy()
        await runtime.destroy()
        with pytest.raises(CommandError, match="has ended"):
            await runtime.deploy(DeployOptions())

    with_runtime(scenario)
