"""yapapi's names for shem's things, so that a service written for it needs only its imports changed::

    from shem.compat.yapapi import Golem, Service, ServiceState, WorkContext, log_summary, log_event_repr, vm

Both forms of scripts work: `new_script()` of yapapi 0.7 and later, and `run()`/`commit()` of the time before.
"""

from shem.compat.summary import SummaryLogger, log_event, log_event_repr, log_summary
from shem.errors import CommandFailed as CommandExecutionError
from shem.errors import ScriptError as BatchError
from shem.errors import ScriptTimeout as BatchTimeoutError
from shem.golem import Golem
from shem.lifecycle import State as ServiceState
from shem.log import configure as enable_default_logger
from shem.payload import Payload, vm
from shem.props import constraint, prop
from shem.script import Script
from shem.service.cluster import Cluster
from shem.service.context import WorkContext
from shem.service.service import Service

__all__ = [
    "BatchError",
    "BatchTimeoutError",
    "Cluster",
    "CommandExecutionError",
    "Golem",
    "Payload",
    "Script",
    "Service",
    "ServiceState",
    "SummaryLogger",
    "WorkContext",
    "constraint",
    "enable_default_logger",
    "log_event",
    "log_event_repr",
    "log_summary",
    "prop",
    "vm",
]
