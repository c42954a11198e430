"""How to test a service, in virtual time: pytest -p shem.testing.plugin examples/test_simple_service.py"""

import pytest
from simple_service.simple_service import SimpleService

from shem import State


@pytest.mark.sim
async def test_it_survives_that_its_provider_is_silent_for_a_while(golem, provider, tmp_path):
    provider.plays(SimpleService)
    async with golem() as g:
        cluster = await g.run_service(SimpleService, instance_params=[{"plots": tmp_path}])
        await cluster.wait_until(State.RUNNING)
        provider.hang(seconds=9)
        await cluster.wait_until(State.UNRESPONSIVE)
        await cluster.wait_until(State.RUNNING)
        await cluster.stop()
    assert provider.ran[-1] == (SimpleService.SIMULATOR_CTL, ["--stop"])
