from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shem.errors import (
    BadRequest,
    Gone,
    NodeAnswerError,
    NodeError,
    NodeFailure,
    NotFound,
    RequestTimeout,
    Unauthorized,
)
from shem.yagna.http.answers import MESSAGE_LIMIT, Answer, message_in, refusal
from shem.yagna.models import ActivityStateDoc, CommandOutcome, Identity

CALL = "GET /market-api/v1/agreements/1"


def answer(body: bytes, status: int = 200) -> Answer:
    return Answer(CALL, status, body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, BadRequest),
        (404, NotFound),
        (405, BadRequest),
        (408, RequestTimeout),
        (409, BadRequest),
        (410, Gone),
        (413, BadRequest),
        (429, BadRequest),
        (500, NodeFailure),
        (501, NodeFailure),
        (502, NodeFailure),
        (503, NodeFailure),
        (504, RequestTimeout),
        (599, NodeFailure),
        (302, NodeAnswerError),
        (304, NodeAnswerError),
        (100, NodeAnswerError),
        (700, NodeAnswerError),
    ],
)
def test_each_refusal_has_its_error(status: int, kind: type[NodeError]) -> None:
    error = refusal(CALL, status, b'{"message":"so it is"}')
    assert type(error) is kind
    assert (error.call, error.status, error.message) == (CALL, status, "so it is")


@given(st.integers(200, 299), st.binary(max_size=40))
def test_any_2xx_is_a_success_whatever_its_body(status: int, body: bytes) -> None:
    assert refusal(CALL, status, body) is None


@given(st.integers(0, 999).filter(lambda status: not 200 <= status < 300), st.binary(max_size=2000))
@example(500, b"[" * 100_000)
@example(400, b'{"message":"' + b"x" * 10_000 + b'"}')
def test_any_other_status_is_an_error_with_a_bounded_message_on_one_line(status: int, body: bytes) -> None:
    error = refusal(CALL, status, body)
    assert isinstance(error, NodeError)
    assert 0 < len(error.message) <= MESSAGE_LIMIT or not body.strip()
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":"Invalid maxEvents"}', "Invalid maxEvents"),
        (b'{"message":null}', ""),
        (b"", ""),
        (b"null", ""),
        (b"Missing application key", "Missing application key"),
        (b'"a bare string"', "a bare string"),
        (b'{"title":"No funds","detail":"needs 2"}', "No funds: needs 2"),
        (b'{"title":"","detail":"needs 2"}', "needs 2"),
        (b'{"type":"/timeout-passed"}', "/timeout-passed"),
        (b'{"type":"/timeout-passed","title":""}', "/timeout-passed"),
        (b'{"odd":1}', '{"odd":1}'),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "��"),
    ],
)
def test_the_message_is_found_in_every_form_of_refusal(body: bytes, message: str) -> None:
    assert message_in(body) == message


def test_a_refusal_without_words_says_what_its_status_means() -> None:
    error = refusal(CALL, 404, b'{"message":null}')
    assert error is not None and error.message == "Not Found"


ids = st.from_regex(r"R-[0-9a-f]{4,64}|[0-9a-f]{32}-[0-9a-f]{64}|[0-9]{32}", fullmatch=True)


@given(ids, st.sampled_from(["string", "bare", "object"]), st.sampled_from(["", " ", "\r\n"]))
def test_ids_are_read_in_every_form_the_daemons_give_them(identifier: str, form: str, space: str) -> None:
    text = {"string": json.dumps(identifier), "bare": identifier, "object": json.dumps({"id": identifier})}[
        form
    ]
    assert answer((space + text + space).encode()).identifier("id") == identifier


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'""',
        b"{}",
        b'{"id":3}',
        b'{"id":""}',
        b"[1]",
        b"<html>Bad gateway</html>",
        b'"\xff"',
        b"a b",
    ],
)
def test_what_is_no_id_is_refused(body: bytes) -> None:
    with pytest.raises(NodeAnswerError) as caught:
        answer(body).identifier("id")
    assert caught.value.call == CALL


def test_an_object_is_no_id_where_none_is_expected() -> None:
    with pytest.raises(NodeAnswerError, match="an id was expected"):
        answer(b'{"activityId":"a"}').identifier()


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b'{"name":"n"}', Identity, "identity"),
        (b'{"identity":5}', Identity, "$.identity"),
        (b'[{"index":0,"eventDate":"x","result":"Ok"}]', list[CommandOutcome], "$[0].eventDate"),
        (b'{"state":["Ready"]}', ActivityStateDoc, "$.state"),
        (b"", Identity, "empty"),
        (b"null", Identity, "empty"),
        (b"{", Identity, "truncated"),
        (b'{"identity":"\xff"}', Identity, "utf-8"),
        (b"<html>", Identity, "malformed"),
    ],
)
def test_an_invalid_answer_is_refused_with_the_path_of_the_offender(
    body: bytes, kind: type[object], says: str
) -> None:
    with pytest.raises(NodeAnswerError) as caught:
        answer(body, 201).value(kind)
    assert says in caught.value.message
    assert caught.value.status == 201


@given(st.binary(max_size=60))
@example(b"[" * 100_000)
def test_no_body_raises_anything_but_an_answer_error(body: bytes) -> None:
    reads: list[Callable[[Answer], object]] = [
        lambda given: given.value(Identity),
        lambda given: given.identifier("x"),
        lambda given: given.elements(),
    ]
    raised = set()
    for read in reads:
        try:
            read(answer(body))
        except Exception as error:
            raised.add(type(error))
    assert raised <= {NodeAnswerError}


@given(
    st.lists(
        st.builds(
            CommandOutcome,
            index=st.integers(0, 100),
            event_date=st.datetimes(timezones=st.just(UTC)),
            result=st.sampled_from(["Ok", "Error"]),
            is_batch_finished=st.booleans(),
            stdout=st.none() | st.text() | st.lists(st.integers(0, 255)),
            stderr=st.none() | st.text(),
            message=st.none() | st.text(),
        ),
        max_size=3,
    )
)
def test_results_survive_the_way_from_the_node(outcomes: list[CommandOutcome]) -> None:
    assert answer(msgspec.json.encode(outcomes)).value(list[CommandOutcome]) == outcomes


def test_nanoseconds_and_unknown_fields_are_tolerated() -> None:
    body = b'[{"index":0,"eventDate":"2026-11-22T04:08:27.508351123Z","result":"Ok","stdout":null,"new":1}]'
    outcome = answer(body).value(list[CommandOutcome])[0]
    assert outcome.event_date == datetime(2026, 11, 22, 4, 8, 27, 508351, tzinfo=UTC)


def test_an_empty_list_may_come_as_nothing_at_all() -> None:
    assert answer(b"").elements() == answer(b"null").elements() == answer(b"[]").elements() == []
