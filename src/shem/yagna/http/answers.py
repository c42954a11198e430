"""What the node's answers mean: refusals become errors of shem, bodies become ids and values. Pure.

========================  ===========================================================================
status                    error
========================  ===========================================================================
2xx                       none, whatever the body; its form matters only where a value is asked for
401                       `Unauthorized`
404                       `NotFound`
410                       `Gone`
408, 504                  `RequestTimeout`
any other 4xx             `BadRequest`
any other 5xx             `NodeFailure`
anything else             `NodeAnswerError`; shem follows no redirects, they would carry the app key away
========================  ===========================================================================

Source: contract of the REST API, 1.2, 1.3, 3.4.1, and its appendix B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

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
from shem.log import redactor

T = TypeVar("T")

#: Most characters of the node's words that an error carries: enough for the mismatched constraints of a
#: refused proposal, too few for a proxy's error page to fill the log.
MESSAGE_LIMIT = 500

_BY_STATUS: dict[int, type[NodeError]] = {
    401: Unauthorized,
    404: NotFound,
    408: RequestTimeout,
    410: Gone,
    504: RequestTimeout,
}
#: The form of a bare id, as against an error page or a number that some proxy put there.
_BARE_ID = re.compile(rb"[\w.:~=+/-]{1,256}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer. `call` is method and path of the request."""

    call: str
    status: int
    body: bytes

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it: no body, or `null` (contract 1.2)."""
        return self.body.strip() in (b"", b"null")

    def value(self, kind: type[T]) -> T:
        """The body as a `kind`. Raises `NodeAnswerError` with the path of what is wrong."""
        return _decoded(self, self.body, kind)

    def elements(self) -> list[msgspec.Raw]:
        """The elements of a list, not looked into yet; an empty body is an empty list."""
        return [] if self.empty else _decoded(self, self.body, list[msgspec.Raw])

    def identifier(self, field: str | None = None) -> str:
        """The id in the body.

        It comes as a JSON string, as bare text from daemons that type it ``text/plain``, or, where `field` is
        given, in that field of an object.
        """
        text = self.body.strip()
        if field is not None and text.startswith(b"{"):
            found: Any = _decoded(self, text, dict[str, Any]).get(field)
        elif text.startswith(b'"'):
            found = _decoded(self, text, str)
        elif text != b"null" and _BARE_ID.fullmatch(text):
            found = text.decode("ascii")
        else:
            found = None
        if not isinstance(found, str) or not found:
            raise NodeAnswerError(self.call, self.status, f"an id was expected, not {bounded(_text(text))!r}")
        return found


def refusal(call: str, status: int, body: bytes) -> NodeError | None:
    """The error that an answer stands for; None where it is a success."""
    if 200 <= status < 300:
        return None
    return refused(call, status, message_in(body) or _phrase(status))


def refused(call: str, status: int, message: str) -> NodeError:
    """The error of a status that is no success."""
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = BadRequest if 400 <= status < 500 else NodeFailure if 500 <= status < 600 else NodeAnswerError
    return kind(call, status, bounded(message))


def message_in(body: bytes) -> str:
    """What the node says in the body of a refusal; empty where it says nothing.

    That is ``message`` of an object, ``title`` and ``detail`` of a problem (RFC 7807), or the text itself.
    """
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return _text(body)
    if isinstance(document, str):
        return document
    if not isinstance(document, dict):
        return "" if document is None else _text(body)
    if "message" in document:
        message = document["message"]
        return message if isinstance(message, str) else ""
    problem = [document[key] for key in ("title", "detail") if isinstance(document.get(key), str)]
    if not any(problem) and isinstance(document.get("type"), str):
        problem = [document["type"]]
    return ": ".join(part for part in problem if part) if problem else _text(body)


def bounded(text: str) -> str:
    """`text` on one line, without secrets, cut to `MESSAGE_LIMIT` characters."""
    line = " ".join(redactor.clean(text).split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


def _decoded(answer: Answer, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        what = "the answer is empty" if answer.empty else str(error)
        raise NodeAnswerError(answer.call, answer.status, bounded(what)) from error


def _text(body: bytes) -> str:
    return body.decode(errors="replace").strip()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "nothing more"
