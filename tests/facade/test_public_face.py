"""What `from shem import …` offers, and what importing it does not do."""

from __future__ import annotations

import subprocess
import sys

import pytest

import shem

FACE = [
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


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_facade_offers_this_and_nothing_else():
    assert shem.__all__ == FACE
    assert dir(shem) == sorted(FACE)
    assert [name for name in FACE if getattr(shem, name) is None] == []


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'shem' has no attribute 'Swarm'"):
        shem.Swarm  # noqa: B018  # the access is the point


def test_states_read_as_their_lower_case_words_and_service_state_is_the_same_thing():
    assert [state.value for state in shem.State] == [
        "pending",
        "starting",
        "running",
        "stopping",
        "terminated",
        "unresponsive",
    ]
    assert shem.ServiceState is shem.State


def test_importing_shem_loads_no_network_library_and_starts_nothing():
    loaded = python(
        "import sys, threading, shem\n"
        "assert threading.active_count() == 1\n"
        "print(*[m for m in ('aiohttp', 'rich', 'click', 'hypothesis', 'pytest', 'shem.devnet', 'shem.golem')"
        " if m in sys.modules])"
    )
    assert loaded == ""


def test_the_whole_facade_is_there_without_the_devnets_server():
    loaded = python(
        "import sys\n"
        "from shem import Golem, Service, Cluster, State, Script, WorkContext\n"
        "from shem import RestartPolicy, Probe, Payload\n"
        "from shem import vm, errors\n"
        "print('shem.devnet' in sys.modules, 'aiohttp' in sys.modules)"
    )
    assert loaded == "False False"


def test_names_of_yapapi_are_shems_own_things():
    from shem.compat import yapapi

    assert yapapi.Golem is shem.Golem and yapapi.Service is shem.Service and yapapi.vm is shem.vm
    assert all(hasattr(yapapi, name) for name in yapapi.__all__)
