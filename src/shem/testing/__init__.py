"""The test kit: a whole Golem Network in one process and in virtual time.

`sim` is the simulated event loop and its clock. It is used by nothing in shem itself.
"""

from shem.testing.sim import SimClock, SimDeadlock, SimLivelock, SimLoop, run

__all__ = ["SimClock", "SimDeadlock", "SimLivelock", "SimLoop", "run"]
