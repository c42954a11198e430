"""The tree of errors: as drawn, telling what they know, and fit to travel."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shem
from shem import errors
from shem.errors import Blame, ShemError, blame_of


def classes() -> dict[str, type[BaseException]]:
    return {
        name: found
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, BaseException) and found.__module__ == errors.__name__
    }


PUBLIC = {name: found for name, found in classes().items() if not name.startswith("_")}


def drawn_tree() -> Iterator[tuple[str, str | None, str]]:
    """Name, parent and meaning of each error in the docstring's drawing."""
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.fullmatch(r"    (?P<branches>[│├└─ ]*)(?P<name>[A-Z]\w+)\s*(?P<meaning>.*)", line):
            depth = len(found["branches"]) // 4
            path[depth:] = [found["name"]]
            yield found["name"], path[depth - 1] if depth else None, found["meaning"]


def public_parent(error: type[BaseException]) -> str | None:
    for base in error.__mro__[1:]:
        if base.__name__ in PUBLIC:
            return base.__name__
    return None


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = {name: parent for name, parent, _meaning in drawn_tree()}
    assert drawn == {name: public_parent(found) for name, found in PUBLIC.items()}


def test_every_leaf_of_the_drawing_says_what_it_means() -> None:
    parents = {parent for _name, parent, _meaning in drawn_tree()}
    assert [name for name, _parent, meaning in drawn_tree() if name not in parents and not meaning] == []


def test_no_error_of_a_user_s_calls_lives_outside_the_tree() -> None:
    for module in pkgutil.walk_packages(shem.__path__, "shem."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def descendants(error: type[BaseException]) -> Iterator[type[BaseException]]:
        for child in error.__subclasses__():
            yield child
            yield from descendants(child)

    # The devnet is the other side: its own errors become answers to its clients.
    elsewhere = {
        found
        for found in descendants(ShemError)
        if found.__module__.startswith("shem.")
        and not found.__module__.startswith("shem.devnet.")
        and found.__module__ != errors.__name__
    }
    assert elsewhere == set()


def test_every_error_has_a_docstring_of_its_own() -> None:
    assert [name for name, found in PUBLIC.items() if not found.__dict__.get("__doc__")] == []


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("ConfigError", ValueError),
        ("ServiceDefinitionError", TypeError),
        *((name, TimeoutError) for name in PUBLIC if name.endswith("Timeout")),
        ("NoOffers", TimeoutError),
    ],
)
def test_builtin_families_are_joined_where_a_user_would_expect_it(name: str, family: type[Exception]) -> None:
    assert issubclass(PUBLIC[name], family)


words = st.text(min_size=1, max_size=30)


@st.composite
def an_error(draw: st.DrawFn) -> tuple[ShemError, list[str]]:
    """Any error of the tree, and the facts that its text must tell."""
    kind = draw(st.sampled_from(sorted(PUBLIC.values(), key=lambda found: found.__name__)))
    facts: list[str]
    if issubclass(kind, errors.IllegalEvent):
        facts = [draw(words) for _ in range(5)]
        error: ShemError = kind(*facts)
        facts[1:3] = [repr(fact) for fact in facts[1:3]]
    elif issubclass(kind, errors.NodeError):
        call, message, status = draw(words), draw(words), draw(st.none() | st.integers(400, 599))
        error = kind(call, status, message)
        facts = [call, message if issubclass(kind, errors.NodeUnavailable) else repr(message)]
        if status is not None and not issubclass(kind, errors.NodeUnavailable):
            facts.append(str(status))
    elif issubclass(kind, errors._ProviderRefused):
        provider, name, reason = draw(words), draw(st.just("") | words), draw(words)
        error = kind(provider, name, reason)
        facts = [name or provider, reason]
    elif issubclass(kind, errors.CommandFailed):
        command, index, message = draw(words), draw(st.integers(0, 99)), draw(words)
        code, stderr = draw(st.none() | st.integers(-255, 255)), draw(st.none() | words | st.binary())
        error = kind(command, index, message, exit_code=code, stderr=stderr)
        facts = [command, f"command {index} ", message]
        facts += [f"exit code {code}"] if code is not None else []
        facts += [stderr.strip()] if isinstance(stderr, str) else []
    else:
        facts = [draw(words)]
        error = kind(*facts)
    return error, facts


@given(an_error())
def test_every_error_s_text_carries_its_facts(error_and_facts: tuple[ShemError, list[str]]) -> None:
    error, facts = error_and_facts
    assert str(error).strip() or facts == [str(error)]
    for fact in facts:
        assert fact in str(error)


@given(an_error())
def test_every_error_survives_pickling_with_all_it_knows(
    error_and_facts: tuple[ShemError, list[str]],
) -> None:
    error, _facts = error_and_facts
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy), copy.args) == (str(error), vars(error), error.args)
    assert blame_of(copy) is blame_of(error)


@given(an_error())
def test_shem_s_own_errors_carry_their_blame(error_and_facts: tuple[ShemError, list[str]]) -> None:
    error, _facts = error_and_facts
    assert blame_of(error) is type(error).blame
    assert isinstance(type(error).blame, Blame)


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), KeyboardInterrupt(), None], ids=repr)
def test_what_is_not_shem_s_is_the_user_s(error: BaseException | None) -> None:
    assert blame_of(error) is Blame.USER


def test_a_failed_command_quotes_the_end_of_what_it_wrote_and_prefers_stderr() -> None:
    error = errors.CommandFailed("run /bin/false", 3, "it failed", stdout="out", stderr="x" * 600 + "the end")
    assert str(error).endswith("xthe end")
    assert len(str(error)) < 700 and "out" not in str(error)
    assert "out" in str(errors.CommandFailed("run /bin/false", 3, "it failed", stdout=b"out"))
    assert "wrote" not in str(errors.CommandFailed("run /bin/false", 3, "it failed", stdout=" \n"))


def test_every_refusal_of_the_node_says_what_to_do_next() -> None:
    for name, found in PUBLIC.items():
        if issubclass(found, errors.NodeError):
            assert str(found("GET /x", None, "no")).endswith(found.hint), name
            assert len(found.hint) > 10
