"""The test kit: a whole Golem Network in one process and in virtual time.

`sim` is the simulated event loop and its clock, `world` the node and its providers, `runtime` what their
commands answer, `link` the way between them and what goes wrong on it, `verify` what must hold in the end.
`plan` and `drive` are whole lives as values, `check` drives a user's own service through them, and `plugin`
brings all of it to pytest. It is used by nothing in shem itself but the command line. ::

    async def story(world):
        world.node.faults.refuse_next_agreements("devnet-1")
        async with world.golem() as golem:
            cluster = await golem.run_service(MyService)
            await cluster.wait_until(State.RUNNING)

    play(story, providers=2)
"""

from shem.testing.link import Link
from shem.testing.runtime import Reply
from shem.testing.sim import SimClock, SimDeadlock, SimLivelock, SimLoop, run
from shem.testing.world import World, play

__all__ = ["Link", "Reply", "SimClock", "SimDeadlock", "SimLivelock", "SimLoop", "World", "play", "run"]
