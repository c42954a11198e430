"""What comes next for an instance, in words: one function for each situation that there can be."""

from __future__ import annotations

from datetime import datetime
from textwrap import shorten

from shem.events import Phase
from shem.ids import InstanceId
from shem.lifecycle import Expectation

_ACQUIRING = {
    Phase.NEGOTIATING: "an acceptable offer is waited for until",
    Phase.AGREEMENT: "the provider's approval of the agreement is expected by",
    Phase.ACTIVITY: "its activity is expected by",
}


def beginning() -> Expectation:
    """It has just been made."""
    return Expectation("a provider is looked for")


def acquiring(phase: Phase, by: datetime) -> Expectation:
    """An activity is on its way."""
    return Expectation(_ACQUIRING[phase], by)


def next_start(at: datetime) -> Expectation:
    """A start has failed, and there is a pause before the next."""
    return Expectation("another provider is tried at", at)


def next_search(at: datetime, after: BaseException) -> Expectation:
    """No activity was to be had, and there is a pause before the next try."""
    return Expectation(f"tried again, after {shorten(str(after), 120, placeholder=' …')}, at", at)


def start(by: datetime, *, probed: bool) -> Expectation:
    """`start()` runs."""
    return Expectation(
        "start() must end, and the startup probe pass, by" if probed else "start() must end by", by
    )


def drain(at: datetime) -> Expectation:
    """`run()` goes on for as long as the agreements allow it."""
    return Expectation("run() goes on; it is stopped, before its agreement expires, at", at)


def shutdown(by: datetime) -> Expectation:
    """`shutdown()` runs."""
    return Expectation("shutdown() must end by", by)


def silence(until: datetime) -> Expectation:
    """The provider is silent."""
    return Expectation("given up unless the provider answers by", until)


def releasing() -> Expectation:
    """Activity and agreement are being ended."""
    return Expectation("its activity and agreement are being ended")


def cleaning_up() -> Expectation:
    """A failed start is cleaned up after."""
    return Expectation("the failed start is cleaned up after, then another provider is tried")


def replacement(at: datetime) -> Expectation:
    """The slot will be filled again."""
    return Expectation("a new instance takes its place at", at)


def replaced(by: InstanceId) -> Expectation:
    """The slot has been filled again."""
    return Expectation(f"instance {by} has taken its place")


def empty(because: str) -> Expectation:
    """The slot will not be filled again."""
    return Expectation(f"nothing; its slot stays empty: {shorten(because, 160, placeholder=' …')}")
