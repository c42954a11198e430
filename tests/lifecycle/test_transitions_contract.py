"""The few behaviours of the `transitions` library that shem's machines rest on.

When a new version of it breaks something here, `shem.lifecycle.machine` is the only place to look at.
"""

from __future__ import annotations

import enum
from typing import Any

import pytest
import transitions


class Light(enum.Enum):
    RED = "red"
    GREEN = "green"
    OFF = "off"


class Lamp:
    """A model that is never registered."""

    def __init__(self) -> None:
        self.state = Light.RED
        self.log: list[tuple[str, Light]] = []
        self.allowed = False

    @property
    def may_go(self) -> bool:
        return self.allowed

    def may_break(self, _data: transitions.EventData) -> bool:
        return self.allowed


def note(word: str) -> Any:
    def hook(data: transitions.EventData) -> None:
        assert isinstance(data.model, Lamp)
        data.model.log.append((word, data.model.state))

    return hook


def machine(**options: Any) -> transitions.Machine:
    made = transitions.Machine(
        model=None,
        states=[
            transitions.State(
                light, on_enter=[note("enter")], on_exit=[note("exit")], final=light is Light.OFF
            )
            for light in Light
        ],
        initial=Light.RED,
        auto_transitions=False,
        send_event=True,
        queued=False,
        **options,
    )
    made.add_transition("go", Light.RED, Light.GREEN, conditions=["may_go"], before=note("before"))
    made.add_transition("go", Light.RED, Light.OFF, conditions=["may_break"], unless=["may_go"])
    made.add_transition("go", Light.GREEN, Light.RED)
    made.add_transition("stop", Light.GREEN, Light.OFF)
    return made


def test_an_event_moves_a_model_that_was_never_registered() -> None:
    lamp, made = Lamp(), machine()
    lamp.allowed = True
    assert made.events["go"].trigger(lamp) is True
    assert lamp.state is Light.GREEN
    assert made.models == []


def test_a_state_attribute_is_all_that_is_added_to_or_asked_of_a_model() -> None:
    lamp, made = Lamp(), machine()
    lamp.allowed = True
    before = set(dir(lamp))
    made.events["go"].trigger(lamp)
    assert set(dir(lamp)) == before


def test_guards_are_read_from_the_model_as_properties_or_called_as_methods() -> None:
    lamp, made = Lamp(), machine()
    assert made.events["go"].trigger(lamp) is False
    assert (lamp.state, lamp.log) == (Light.RED, [])
    lamp.allowed = True
    assert made.events["go"].trigger(lamp) is True


def test_the_first_transition_whose_guards_hold_is_taken() -> None:
    made = machine()
    lamp = Lamp()
    lamp.may_break = lambda _data: True  # type: ignore[method-assign]  # a guard that says something else
    assert made.events["go"].trigger(lamp) is True
    assert lamp.state is Light.OFF
    lamp = Lamp()
    lamp.allowed = True
    made.events["go"].trigger(lamp)
    assert lamp.state is Light.GREEN


def test_hooks_are_called_in_order_and_the_state_changes_between_exit_and_enter() -> None:
    lamp, made = Lamp(), machine()
    lamp.allowed = True
    made.events["go"].trigger(lamp)
    assert lamp.log == [("before", Light.RED), ("exit", Light.RED), ("enter", Light.GREEN)]


def test_what_a_before_hook_puts_into_the_event_s_data_reaches_the_later_hooks() -> None:
    heard: list[object] = []

    def before(data: transitions.EventData) -> None:
        data.kwargs["move"] = "a move"

    made = machine()
    made.add_transition("jump", Light.RED, Light.GREEN, before=before)
    made.get_state(Light.GREEN).add_callback("enter", lambda data: heard.append(data.kwargs))
    made.events["jump"].trigger(Lamp(), cause="a cause")
    assert heard == [{"cause": "a cause", "move": "a move"}]


def test_an_event_that_a_state_does_not_know_is_refused_by_the_library_too() -> None:
    lamp, made = Lamp(), machine()
    with pytest.raises(transitions.MachineError, match="stop"):
        made.events["stop"].trigger(lamp)
    assert lamp.state is Light.RED


def test_an_event_triggered_by_a_hook_is_handled_inside_the_move_and_not_queued() -> None:
    lamp, made = Lamp(), machine()
    lamp.allowed = True
    made.get_state(Light.GREEN).add_callback("enter", lambda data: made.events["stop"].trigger(data.model))
    made.events["go"].trigger(lamp)
    assert lamp.state is Light.OFF, "which is why hooks must never raise events"


def test_an_error_of_a_hook_comes_out_of_the_trigger() -> None:
    def broken(_data: transitions.EventData) -> None:
        raise RuntimeError("a broken hook")

    lamp, made = Lamp(), machine()
    lamp.allowed = True
    made.get_state(Light.GREEN).add_callback("enter", broken)
    with pytest.raises(RuntimeError, match="a broken hook"):
        made.events["go"].trigger(lamp)


def test_there_are_no_events_but_those_that_were_added() -> None:
    assert set(machine().events) == {"go", "stop"}
