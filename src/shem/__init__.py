"""shem: services on the Golem Network, each instance an explicit finite-state machine.

This module is the facade; its list is frozen by a test. Everything else is reached through the documented
sub-packages: `shem.lifecycle`, `shem.events`, `shem.testing`, `shem.devnet`, `shem.compat.yapapi`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from shem import errors as errors
from shem.config import NodeAddress, offer_embedded_node
from shem.lifecycle import State as State

if TYPE_CHECKING:
    from shem.devnet.devnet import Devnet as Devnet
    from shem.golem import Golem as Golem
    from shem.payload import Payload as Payload
    from shem.payload import vm as vm
    from shem.script import Script as Script
    from shem.service.cluster import Cluster as Cluster
    from shem.service.context import WorkContext as WorkContext
    from shem.service.policy import RestartPolicy as RestartPolicy
    from shem.service.probe import Probe as Probe
    from shem.service.service import Service as Service

#: The older name of `State`.
ServiceState = State

#: Where the names of the facade live. They are imported when they are first used, so that `import shem` is
#: quick and a program that only draws diagrams never loads an HTTP client.
_HOMES = {
    "Cluster": "shem.service.cluster",
    "Devnet": "shem.devnet.devnet",
    "Golem": "shem.golem",
    "Payload": "shem.payload",
    "Probe": "shem.service.probe",
    "RestartPolicy": "shem.service.policy",
    "Script": "shem.script",
    "Service": "shem.service.service",
    "WorkContext": "shem.service.context",
    "vm": "shem.payload",
}

__all__ = [
    "Cluster",
    "Devnet",
    "Golem",
    "Payload",
    "Probe",
    "RestartPolicy",
    "Script",
    "Service",
    "ServiceState",
    "State",
    "WorkContext",
    "errors",
    "vm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shem' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def _devnet() -> AbstractAsyncContextManager[NodeAddress]:
    from shem.devnet.devnet import Devnet

    # Enough for programs that do not say how many instances they will run; a provider takes one at a time.
    return Devnet(providers=32)


offer_embedded_node(_devnet)


def __dir__() -> list[str]:
    return sorted(__all__)
