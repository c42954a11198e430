"""The test kit: a whole Golem Network in one process and in virtual time.

`sim` is the simulated event loop and its clock, `world` the node and its providers, `runtime` what their
commands answer. It is used by nothing in shem itself.
"""

from shem.testing.runtime import Reply
from shem.testing.sim import SimClock, SimDeadlock, SimLivelock, SimLoop, run
from shem.testing.world import World

__all__ = ["Reply", "SimClock", "SimDeadlock", "SimLivelock", "SimLoop", "World", "run"]
