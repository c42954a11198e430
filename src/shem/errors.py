"""Every error that shem raises, as one tree.

::

    ShemError
    ├── ConfigError                 an argument or a setting is wrong; nothing was rented
    ├── ServiceDefinitionError      a Service class or one of its handlers is malformed
    ├── LifecycleError
    │   ├── IllegalEvent            an event that the table forbids in this state: a bug in shem
    │   ├── WaitError               what was waited for can no longer happen
    │   ├── HandlerTimeout          start() or shutdown() overran its time budget
    │   ├── ProbeFailed             the service's own probe found it unwell
    │   └── ProviderSilent          the provider was silent for longer than its grace
    ├── NodeError                   the node (yagna) refused a call or cannot be reached
    │   ├── NodeUnavailable         no connection, cut connection, or no answer in time
    │   ├── NodeAnswerError         the answer is not what the REST contract says
    │   ├── Unauthorized            401: wrong or missing app key
    │   ├── BadRequest              400, 409 and other refusals of what was sent
    │   ├── NotFound                404
    │   ├── Gone                    410: expired, released, countered, rejected
    │   ├── RequestTimeout          408, 504: the node or the remote side ran out of time
    │   └── NodeFailure             500 and its kin
    ├── ProvisionError
    │   ├── NoOffers                no acceptable offer within the time allowed
    │   ├── AgreementRefused        the provider rejected, cancelled or never answered
    │   └── ActivityRefused         the agreement stands, but no activity came of it
    ├── ScriptError
    │   ├── ScriptMisuse            a script was used twice, or is no script at all
    │   ├── CommandFailed           a command ended with an error; carries its output
    │   ├── CommandSkipped          an earlier command of the same script failed
    │   ├── ScriptTimeout           the script's own time limit passed
    │   ├── ScriptInterrupted       the instance was stopped while the script ran
    │   └── ActivityGone            the activity ended while, or before, the script ran
    ├── TransferError               a file could not be moved between the two sides
    └── PaymentError                allocation refused, amount wrong, budget spent

Each error says what was attempted, on what, what happened, and what to do next. Builtin families are
joined where a user would expect it: `ConfigError` is a `ValueError`, `ServiceDefinitionError` a
`TypeError`, the time-outs a `TimeoutError`.

Errors of foreign libraries do not leave shem's calls, with one exception: what the user's own handler
raises is passed on untouched.
"""

from __future__ import annotations

import enum


class Blame(enum.Enum):
    """Whose failure it is. Supervision decides by this whether another provider is worth a try."""

    USER = "user"
    PROVIDER = "provider"
    INFRASTRUCTURE = "infrastructure"
    PAYMENT = "payment"
    EXPIRY = "expiry"


class ShemError(Exception):
    """Base of everything shem raises."""

    blame: Blame = Blame.INFRASTRUCTURE


class ConfigError(ShemError, ValueError):
    """An argument or a setting is wrong. Raised before anything is rented."""

    blame = Blame.USER


class ServiceDefinitionError(ShemError, TypeError):
    """A Service class is malformed: a handler is no async generator, or yields no Script."""

    blame = Blame.USER


class LifecycleError(ShemError):
    """Base of the errors of state machines."""


class IllegalEvent(LifecycleError):
    """An event that the table forbids in this state.

    Users, providers, probes and clocks can never cause it; it always means a bug in shem.

    Attributes:
        subject: kind and id of the thing, such as ``instance 4f1a``.
        state, event, actor: the values (lower-case words) of the state, the event and who raised it.
    """

    def __init__(self, subject: str, state: str, event: str, actor: str, reason: str = "") -> None:
        super().__init__(subject, state, event, actor, reason)
        self.subject, self.state, self.event = subject, state, event
        self.actor, self.reason = actor, reason

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.subject}: event {self.event!r} raised by {self.actor}{why} is illegal in state "
            f"{self.state!r}; this is a bug in shem, please report it with the instance's records"
        )


class WaitError(LifecycleError):
    """What was waited for can no longer happen, or waiting for it would never end."""


class HandlerTimeout(LifecycleError, TimeoutError):
    """`start()` or `shutdown()` overran its time budget. Mostly the provider is slow, or a command hangs."""

    blame = Blame.PROVIDER


class ProbeFailed(LifecycleError):
    """A startup or liveness probe had too many bad answers in a row.

    `__cause__` is the exception of the last one, if it was one. The provider is to blame, so that another one
    is worth a try, unless the check itself is broken.
    """

    blame = Blame.PROVIDER


class ProviderSilent(LifecycleError, TimeoutError):
    """The provider gave no sign of life for longer than it is waited for."""

    blame = Blame.PROVIDER


class NodeError(ShemError):
    """The node refused a call.

    Attributes:
        call: method and path of the request, such as ``POST /market-api/v1/demands``.
        status: the HTTP status, or None where there was no answer.
        message: what the node said.
    """

    hint = "see the node's log"

    def __init__(self, call: str, status: int | None, message: str) -> None:
        super().__init__(call, status, message)
        self.call, self.status, self.message = call, status, message

    def __str__(self) -> str:
        status = f" {self.status}" if self.status is not None else ""
        return f"{self.call}: the node answered{status} {self.message!r}; {self.hint}"


class NodeUnavailable(NodeError):
    """The node cannot be reached, cut the connection, or did not answer in time.

    Attributes:
        unsent: whether the call surely never reached the node, so that repeating it is safe.
    """

    hint = "is it running, and is YAGNA_API_URL right?"

    def __init__(self, call: str, status: int | None, message: str, *, unsent: bool = False) -> None:
        super().__init__(call, status, message)
        self.unsent = unsent

    def __str__(self) -> str:
        return f"{self.call}: no answer from the node: {self.message}; {self.hint}"


class NodeAnswerError(NodeError):
    """The node's answer does not follow the REST contract."""

    hint = "is this a yagna of a supported version (0.15.2 or later)?"


class Unauthorized(NodeError):
    """401: the app key is missing or wrong."""

    blame = Blame.USER
    hint = "check YAGNA_APPKEY (`yagna app-key list` shows the node's keys)"


class BadRequest(NodeError):
    """400, 403, 409 and other refusals of what was sent."""


class NotFound(NodeError):
    """404: the node does not know this id (any more)."""


class Gone(NodeError):
    """410: expired, released, already countered, rejected or cancelled."""


class RequestTimeout(NodeError, TimeoutError):
    """408 or 504: the node, or the provider behind it, ran out of time. Usually worth asking again."""


class NodeFailure(NodeError):
    """500 and its kin: the node, or the provider behind it, failed."""


class ProvisionError(ShemError):
    """No activity could be had for an instance."""

    blame = Blame.PROVIDER


class NoOffers(ProvisionError, TimeoutError):
    """No acceptable offer came within the time allowed."""

    blame = Blame.INFRASTRUCTURE


class _ProviderRefused(ProvisionError):
    """A provider did not do its part.

    Attributes:
        provider_id, provider_name: who it was; the name is not unique.
        reason: what happened.
    """

    def __init__(self, provider_id: str, provider_name: str, reason: str) -> None:
        super().__init__(provider_id, provider_name, reason)
        self.provider_id, self.provider_name, self.reason = provider_id, provider_name, reason

    def __str__(self) -> str:
        return f"provider {self.provider_name or self.provider_id}: {self.reason}"


class AgreementRefused(_ProviderRefused):
    """The provider rejected or cancelled the agreement, let it expire, or never answered."""


class ActivityRefused(_ProviderRefused):
    """The agreement stands, but the provider made no activity of it."""


class ScriptError(ShemError):
    """Base of what can go wrong with a script or one of its commands."""

    blame = Blame.PROVIDER


class ScriptMisuse(ScriptError):
    """A script was used in a way that has no meaning, such as sending it twice."""

    blame = Blame.USER


class CommandFailed(ScriptError):
    """A command ended with an error.

    Attributes:
        command: the command in short, such as ``run /bin/sh -c …``.
        index: its place in the script, from 0.
        exit_code: exit code of a `run`, where the runtime told it.
        stdout, stderr: what it wrote, where captured.
        message: what the runtime said.
    """

    def __init__(
        self,
        command: str,
        index: int,
        message: str,
        *,
        exit_code: int | None = None,
        stdout: str | bytes | None = None,
        stderr: str | bytes | None = None,
    ) -> None:
        super().__init__(command, index, message)
        self.command, self.index, self.message = command, index, message
        self.exit_code, self.stdout, self.stderr = exit_code, stdout, stderr

    def __str__(self) -> str:
        code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
        said = self.stderr or self.stdout or ""
        if isinstance(said, bytes):
            said = said.decode(errors="replace")
        tail = f"; it wrote: {said.strip()[-500:]}" if said.strip() else ""
        return f"command {self.index} ({self.command}) failed{code}: {self.message}{tail}"


class CommandSkipped(ScriptError):
    """The command was not run, because an earlier one of the same script failed (see `__cause__`)."""


class ScriptTimeout(ScriptError, TimeoutError):
    """The script's own time limit passed before its last command ended."""


class ScriptInterrupted(ScriptError):
    """The instance left the state whose handler sent the script, so its results are nobody's any more."""

    blame = Blame.USER


class ActivityGone(ScriptError):
    """The activity ended while the script ran, or before it could be sent."""


class TransferError(ShemError):
    """A file or value could not be moved between requestor and provider."""


class PaymentError(ShemError):
    """Allocation refused, amount wrong, or budget spent."""

    blame = Blame.PAYMENT


def blame_of(error: BaseException | None) -> Blame:
    """Class of an arbitrary error: shem's own carry theirs, anything else comes from the user's code."""
    return error.blame if isinstance(error, ShemError) else Blame.USER
