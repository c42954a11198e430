"""The log: readable or JSON, one line per move, and never a key in it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shem import log
from shem.errors import ConfigError, NodeError
from shem.events import AgreementSigned, InstanceMoved, Phase, PhaseChanged
from shem.golem import _log_event
from shem.ids import AgreementId, ClusterId, InstanceId, NodeId
from shem.lifecycle import Actor, Cause, Event, Record, State
from shem.log import HIDDEN, Redactor
from shem.testing.sim import EPOCH

KEY = "k3y-that-nobody-may-see"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def knows_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's redactor has been told a key; it forgets it afterwards."""
    monkeypatch.setattr(log.redactor, "_secrets", set())
    log.redactor.learn(KEY)


# --- form


def test_a_pipe_gets_one_json_object_a_line() -> None:
    pipe = io.StringIO()
    log.configure(stream=pipe)
    log.get_logger("here").info("one", number=1, none=None, text="ä", other=frozenset({1}))
    log.get_logger("there").warning("two")
    one, two = lines(pipe)
    assert one["message"] == "one" and one["part"] == "here" and one["level"] == "info"
    assert (one["number"], one["none"], one["text"], one["other"]) == (1, None, "ä", [1])
    assert one["timestamp"].endswith("Z")
    assert (two["message"], two["part"], two["level"]) == ("two", "there", "warning")


def test_a_terminal_gets_text_for_people() -> None:
    terminal = Terminal()
    log.configure(stream=terminal)
    log.get_logger("here").info("it_happened", number=1)
    (line,) = terminal.getvalue().splitlines()
    assert "it_happened" in line
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)


@pytest.mark.parametrize(
    ("stream", "as_json"), [(Terminal(), True), (io.StringIO(), False)], ids=["tty", "pipe"]
)
def test_either_form_can_be_had_anywhere(stream: io.StringIO, as_json: bool) -> None:
    log.configure(stream=stream, json=as_json)
    log.get_logger("here").info("it_happened")
    assert stream.getvalue().startswith("{") == as_json


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_the_level_asked_for_and_above_is_shown(level: str, shown: list[str]) -> None:
    pipe = io.StringIO()
    log.configure(stream=pipe, level=level)
    logger = log.get_logger("here")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    assert [line["message"] for line in lines(pipe)] == shown


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="'chatty' is none of debug, info, warning, error"):
        log.configure(level="chatty")


def test_a_logger_made_before_heeds_what_is_configured_later() -> None:
    logger, pipe = log.get_logger("early"), io.StringIO()
    log.configure(stream=pipe)
    logger.info("late")
    assert lines(pipe)[0]["message"] == "late"


def test_the_state_machine_library_does_not_log_every_callback() -> None:
    log.configure(stream=io.StringIO(), level="debug")
    assert not logging.getLogger("transitions").isEnabledFor(logging.INFO)


def test_importing_the_library_configures_nothing() -> None:
    program = "import shem.golem, shem.log, structlog; raise SystemExit(structlog.is_configured())"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


# --- keys


def leaks() -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    class Holder:
        def __str__(self) -> str:
            return f"<holder of {KEY}>"

    class Quiet:
        def __repr__(self) -> str:
            return f"<holder of {KEY}>"

        def __str__(self) -> str:
            return "quiet"

    return [
        ("a text", lambda: {"text": f"with {KEY} in it"}),
        ("a header's form", lambda: {"text": "Authorization: Bearer " + KEY[::-1]}),
        ("a query's form", lambda: {"url": f"ws://n/gsb?authToken={KEY[::-1]}&x=1"}),
        ("a field's name", lambda: {"app_key": KEY[::-1]}),
        ("another field's name", lambda: {"YAGNA_APPKEY": KEY[::-1]}),
        ("the header's name", lambda: {"Authorization": KEY[::-1]}),
        ("a name inside", lambda: {"headers": {"Authorization": KEY[::-1], "Accept": "*"}}),
        ("a list", lambda: {"commands": ["deploy", f"run curl {KEY}"]}),
        ("a tuple", lambda: {"commands": ("deploy", f"run curl {KEY}")}),
        ("deep inside", lambda: {"a": [{"b": (KEY,)}]}),
        ("a key of a mapping", lambda: {"a": {KEY: 1}}),
        ("an error", lambda: {"error": NodeError("GET /", 401, f"no {KEY}")}),
        ("an object", lambda: {"thing": Holder()}),
        ("an object's other face", lambda: {"thing": Quiet()}),
        ("bytes", lambda: {"thing": KEY.encode()}),
    ]


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize("fields", [make for _name, make in leaks()], ids=[name for name, _make in leaks()])
def test_a_key_shows_nowhere(knows_key: None, fields: Callable[[], dict[str, Any]], as_json: bool) -> None:
    stream = io.StringIO()
    log.configure(stream=stream, json=as_json)
    log.get_logger("here").info(f"message with {KEY}", **fields())
    shown = stream.getvalue()
    assert KEY not in shown and KEY[::-1] not in shown
    assert HIDDEN in shown or HIDDEN.encode("unicode_escape").decode() in shown


def test_a_key_does_not_show_in_a_traceback(knows_key: None) -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    try:
        raise RuntimeError(f"sent {KEY}")
    except RuntimeError:
        log.get_logger("here").exception("broke")
    assert KEY not in stream.getvalue() and "RuntimeError" in stream.getvalue()


def test_what_is_no_secret_is_left_as_it_is() -> None:
    fields: dict[str, Any] = {
        "n": 1,
        "x": 1.5,
        "none": None,
        "yes": True,
        "text": "t",
        "when": EPOCH,
        "list": [1],
    }
    assert Redactor([KEY])(None, "info", dict(fields)) == fields


def test_an_error_without_words_is_at_least_named() -> None:
    assert Redactor()(None, "info", {"error": TimeoutError()}) == {"error": "TimeoutError()"}


secrets = st.text("abcAB12-", min_size=3, max_size=8)


@given(
    st.lists(secrets, min_size=1, max_size=5), st.lists(st.text("xyz ", max_size=4), min_size=6, max_size=6)
)
def test_no_known_secret_survives_even_where_one_begins_another(known: list[str], between: list[str]) -> None:
    redactor = Redactor(known[:1])
    known += [f"{secret}{number}" for number, secret in enumerate(known)]
    for secret in known[1:]:
        redactor.learn(secret)
    redactor.learn("")
    text = "".join(part for pair in zip(between, known, strict=False) for part in pair)
    assert set(redactor.clean(f"|{'|'.join(known)}|")) == set(f"|{HIDDEN}")
    assert not any(secret in redactor.clean(text) for secret in known)


# --- events


MOVE = InstanceMoved(
    at=EPOCH,
    cluster=ClusterId("c1"),
    instance=InstanceId("i1"),
    record=Record(
        seq=3,
        subject="i1",
        at=EPOCH,
        monotonic=1.0,
        source=State.RUNNING,
        event=Event.SERVICE_ERROR,
        dest=State.STOPPING,
        cause=Cause(Actor.HANDLER, "run() raised", ValueError("out of paper")),
    ),
)


def test_a_move_is_one_line_with_instance_source_event_dest_and_cause() -> None:
    pipe = io.StringIO()
    log.configure(stream=pipe)
    _log_event(MOVE)
    (line,) = lines(pipe)
    assert line["message"] == "instance_moved" and line["level"] == "info"
    assert {name: line[name] for name in ("instance", "source", "event", "dest", "cause", "seq")} == {
        "instance": "i1",
        "source": "running",
        "event": "ServiceError",
        "dest": "stopping",
        "cause": "handler: run() raised (ValueError: out of paper)",
        "seq": 3,
    }


def test_a_move_is_one_line_on_a_terminal_too() -> None:
    terminal = io.StringIO()
    log.configure(stream=terminal, json=False)
    _log_event(MOVE)
    (line,) = terminal.getvalue().splitlines()
    for word in ("instance_moved", "i1", "running", "ServiceError", "stopping", "out of paper"):
        assert word in line


def test_moves_and_money_are_at_info_and_the_rest_at_debug() -> None:
    with structlog.testing.capture_logs() as logged:
        _log_event(MOVE)
        _log_event(
            AgreementSigned(at=EPOCH, agreement=AgreementId("a"), provider=NodeId("p"), provider_name="n")
        )
        _log_event(
            PhaseChanged(at=EPOCH, cluster=ClusterId("c1"), instance=InstanceId("i1"), phase=Phase.HANDLER)
        )
    assert [entry["log_level"] for entry in logged] == ["info", "info", "debug"]
