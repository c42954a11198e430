"""What a provider works with: the parts of the node it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from shem.clock import Clock
from shem.devnet.activities import Activities
from shem.devnet.agreements import Agreements
from shem.devnet.background import Background
from shem.devnet.documents import Documents
from shem.devnet.market import Market
from shem.devnet.runtime.base import RuntimeFactory
from shem.devnet.settings import Timings


@dataclass(frozen=True, slots=True)
class NodeParts:
    """The parts of one node."""

    clock: Clock
    timings: Timings
    background: Background
    market: Market
    agreements: Agreements
    activities: Activities
    documents: Documents
    runtimes: RuntimeFactory
