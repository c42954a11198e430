"""Exe scripts: what is accepted, and how a bad one is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.devnet import commands
from shem.devnet.commands import BadScript, Deploy, Run, Start, Terminate, Transfer

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["deploy", "start", "run", "transfer", "sign", "terminate", "jump"])


def read_one(**command):
    (step,) = commands.read([command])
    return step.command


def test_the_clients_own_spellings_are_understood():
    assert read_one(deploy={}) == Deploy()
    assert read_one(start={}) == read_one(start={"args": None}) == Start()
    assert read_one(terminate={}) == read_one(terminate=None) == Terminate()
    assert read_one(run={"entry_point": "/bin/sh"}) == Run("/bin/sh")
    assert read_one(transfer={"from": "a", "to": "b", "format": None, "depth": None}) == Transfer("a", "b")
    assert read_one(deploy={"volumes": {"/vol": {"host": {}}}, "hostname": "h"}).hostname == "h"
    assert read_one(run={"entry_point": "x", "env": {"A": "b"}, "unknown": 1}) == Run("x")


@pytest.mark.parametrize("name", ["str", "string", "bin", "binary"])
def test_both_spellings_of_a_capture_format_are_understood(name):
    run = read_one(run={"entry_point": "x", "capture": {"stdout": {"atEnd": {"format": name}}}})
    assert run.capture.stdout.at_end.format == name


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([{"jump": {}}], "unknown command 'jump'"),
        ([{}], "one key"),
        ([{"deploy": {}, "start": {}}], "one key"),
        (["deploy"], "one key"),
        ([{"deploy": {}}, {"run": {}}], "command 1"),
        ([{"run": {"entry_point": 7}}], "run"),
        ([{"transfer": {"from": "a"}}], "to"),
        ([{"start": {"args": "x"}}], "start"),
        ([{"run": {"entry_point": "x", "capture": {"stdout": {"atEnd": {"format": "hex"}}}}}], "hex"),
        ([{"run": {"entry_point": "x", "capture": {"stderr": {"stream": {"limit": -1}}}}}], "negative"),
    ],
)
def test_a_bad_script_is_refused_with_the_place_of_the_offender(script, said):
    with pytest.raises(BadScript, match=said):
        commands.read(script)


@pytest.mark.parametrize("text", ["", "{", "{}", "7", '"x"', "[" * 100_000, "[1e999999]"])
def test_a_text_that_is_no_list_is_refused(text):
    with pytest.raises(BadScript):
        commands.read(commands.decode(text))


@given(st.lists(st.dictionaries(names, json_values, min_size=1, max_size=2) | json_values, max_size=4))
def test_any_json_list_is_read_or_refused_with_a_script_error(script):
    try:
        steps = commands.read(commands.decode(json.dumps(script)))
    except BadScript:
        return
    assert [step.raw for step in steps] == script


@given(st.text())
def test_any_text_is_decoded_or_refused_with_a_script_error(text):
    try:
        assert isinstance(commands.decode(text), list)
    except BadScript as error:
        assert str(error)
