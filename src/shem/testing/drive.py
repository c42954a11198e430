"""Driving a plan: one whole life of a service on the real engine, supervisor and gate, in virtual time.

`drive` makes the world, runs the service, lets the plan come about, leaves the context of the `Golem`, lets
everything heal, and says what became of it and which invariants do not hold.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn

import structlog

from shem import props
from shem.config import PaymentSettings
from shem.devnet.offers import cost
from shem.devnet.settings import Timings
from shem.engine.engine import EngineSettings
from shem.errors import ShemError
from shem.events import ActivityCreated, BusEvent, InstanceCreated, SlotEnded
from shem.golem import Golem
from shem.ids import ActivityId, InstanceId
from shem.lifecycle import ActivityState, State
from shem.payload import Payload
from shem.service.cluster import Cluster
from shem.service.instance import Instance
from shem.service.probe import Probe
from shem.service.service import Service
from shem.testing import sim
from shem.testing.faults import Faults, PlannedLink
from shem.testing.invariants import Limits, check
from shem.testing.life import (
    ActivityFact,
    AgreementFact,
    Happening,
    InstanceLife,
    InvoiceFact,
    Life,
)
from shem.testing.plan import Action, ActionKind, Plan
from shem.testing.runtime import Reply, Respond
from shem.testing.sim import SimDeadlock, SimLivelock, SimLoop
from shem.testing.subject import PROGRAM_SECONDS, Standard, Watch
from shem.testing.truth import Truth
from shem.testing.world import World

#: The time budgets of every life; short, because nothing is learnt by waiting longer.
LIMITS: Final = Limits()
#: When the program leaves the context of its own accord, in seconds, unless it is over sooner.
HORIZON: Final = 300.0
#: How long the world goes on after that, healed, so that late clean-up and bills come in, in seconds.
AFTERMATH: Final = 120.0
