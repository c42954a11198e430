"""Delegation between handlers, in both directions, and classes whose handlers are none."""

from __future__ import annotations

import asyncio
import functools
import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import CommandFailed, ScriptError, ServiceDefinitionError
from shem.lifecycle import Event, State
from shem.script import Script
from shem.service.handlers import HANDLERS, HandlerStream, check_handlers, open_handler
from shem.service.service import Service
from shem.testing.sim import run

# --- delegation


class Base(Service):
    """Notes what it learns of its scripts; `handles` says whether it deals with a failure."""

    handles = False

    def __init__(self) -> None:
        self.log: list[Any] = []

    def one(self, *command: str) -> Script:
        script = self._ctx.new_script()
        script.run(*command)
        return script

    async def start(self):
        for _nothing in ():
            yield _nothing

    shutdown = start


def lives(stage: type[Any], service: type[Service]) -> Any:
    async def main() -> Any:
        one = stage(service)
        one.provide()
        await one.until(State.TERMINATED)
        await one.instance.handlers_finished()
        return one

    return run(main)


def test_the_inner_generator_learns_the_results_of_its_own_scripts(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            for text in ("a", "b"):
                results = await (yield self.one("say", text))
                self.log.append(results[0].stdout)

    class Outer(Inner):
        async def run(self):
            async for script in super().run():
                yield script
            results = await (yield self.one("say", "c"))
            self.log.append(results[0].stdout)

    one = lives(stage, Outer)
    assert one.service.log == ["a", "b", "c"]
    assert one.lease.ran == ["run say a", "run say b", "run say c"]


def test_a_failure_reaches_the_innermost_first_and_what_it_handles_the_outer_never_sees(
    stage: type[Any],
) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("fail", "1")
            except CommandFailed:
                self.log.append("inner handled it")
            results = await (yield self.one("say", "on"))
            self.log.append(results[0].stdout)

    class Outer(Inner):
        async def run(self):
            async for script in super().run():
                try:
                    yield script
                except ScriptError as error:
                    self.log.append(error)
            self.log.append("outer goes on")

    one = lives(stage, Outer)
    assert one.service.log == ["inner handled it", "on", "outer goes on"]
    assert one.instance.error is None


def test_an_inner_generator_that_handles_a_failure_by_ending_lets_the_outer_go_on(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("fail", "1")
            except CommandFailed:
                return

    class Outer(Inner):
        async def run(self):
            async for script in super().run():
                yield script
            self.log.append("outer goes on")
            yield self.one("say", "x")

    one = lives(stage, Outer)
    assert one.service.log == ["outer goes on"] and one.lease.ran == ["run say x"]


def test_what_the_inner_does_not_handle_is_thrown_at_the_outer_s_yield(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("fail", "1")
            finally:
                self.log.append("inner cleaned up")

    class Outer(Inner):
        async def run(self):
            async for script in super().run():
                try:
                    yield script
                except CommandFailed as error:
                    self.log.append(error.exit_code)
            self.log.append("outer goes on")

    assert lives(stage, Outer).service.log == ["inner cleaned up", 1, "outer goes on"]


def test_the_error_that_the_inner_raises_instead_is_the_one_the_outer_gets(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("fail", "1")
            except CommandFailed as error:
                raise LookupError("translated") from error

    class Outer(Inner):
        async def run(self):
            try:
                async for script in super().run():
                    yield script
            except LookupError as error:
                self.log.append((str(error), type(error.__cause__)))

    assert lives(stage, Outer).service.log == [("translated", CommandFailed)]


@given(st.data())
def test_through_any_number_of_levels_the_innermost_willing_one_handles_a_failure(
    stage: type[Any], data: st.DataObject
) -> None:
    depth = data.draw(st.integers(1, 4), label="levels")
    willing = data.draw(st.sets(st.integers(0, depth - 1)), label="levels that handle it")
    commands = data.draw(st.lists(st.sampled_from(["say", "fail"]), max_size=3), label="commands")
    pauses = data.draw(st.booleans(), label="with pauses")

    async def innermost(self: Any):
        for place, command in enumerate(commands):
            try:
                results = await (yield self.one(command, str(place)))
                self.log.append((0, place, results[0].stdout))
            except CommandFailed:
                self.log.append((0, place, "failed"))
                if 0 not in willing:
                    raise
            if pauses:
                await asyncio.sleep(1)

    def around(level: int, below: type[Base]) -> type[Base]:
        async def handler(self: Any):
            try:
                async for script in below.run(self):
                    yield script
            except CommandFailed:
                self.log.append((level, "failed"))
                if level not in willing:
                    raise

        return type(f"Level{level}", (below,), {"run": handler})

    service = type("Level0", (Base,), {"run": innermost})
    for level in range(1, depth):
        service = around(level, service)
    one = lives(stage, service)

    expected: list[Any] = []
    handled = True
    for place, command in enumerate(commands):
        expected.append((0, place, str(place) if command == "say" else "failed"))
        if command == "fail" and 0 not in willing:
            for level in range(1, depth):
                expected.append((level, "failed"))
                if level in willing:
                    break
            else:
                handled = False
            break
    assert one.service.log == expected
    assert (one.instance.error is None) == handled


def test_closing_the_outer_closes_the_inner_first_and_both_before_the_next_handler(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("sleep", "60")
            finally:
                await asyncio.sleep(1)
                self.log.append("inner cleaned up")

    class Middle(Inner):
        async def run(self):
            try:
                async for script in super().run():
                    yield script
            finally:
                await asyncio.sleep(1)
                self.log.append("middle cleaned up")

    class Outer(Middle):
        async def run(self):
            try:
                async for script in super().run():
                    yield script
            finally:
                await asyncio.sleep(1)
                self.log.append("outer cleaned up")

        async def shutdown(self):
            self.log.append("shutdown")
            for _nothing in ():
                yield _nothing

    async def main() -> None:
        one = stage(Outer)
        one.provide()
        await asyncio.sleep(5)
        one.stop()
        await one.until(State.TERMINATED)
        assert one.service.log == ["inner cleaned up", "middle cleaned up", "outer cleaned up", "shutdown"]
        assert asyncio.get_running_loop().time() == 8

    run(main)
    gc.collect()


def test_an_error_of_the_outer_closes_the_inner_before_the_next_handler(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("say", "x")
            finally:
                await asyncio.sleep(1)
                self.log.append("inner cleaned up")

    class Outer(Inner):
        async def run(self):
            async for script in super().run():
                yield script
                raise ValueError("enough")

        async def shutdown(self):
            self.log.append("shutdown")
            for _nothing in ():
                yield _nothing

    assert lives(stage, Outer).service.log == ["inner cleaned up", "shutdown"]


def test_an_inner_whose_clean_up_fails_does_not_keep_the_outer_from_its_own(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                yield self.one("sleep", "60")
            finally:
                raise ValueError("broken")

    class Outer(Inner):
        async def run(self):
            try:
                async for script in super().run():
                    yield script
            finally:
                self.log.append("outer cleaned up")

    async def main() -> None:
        one = stage(Outer)
        one.provide()
        await asyncio.sleep(1)
        await one.end()
        assert one.service.log == ["outer cleaned up"]
        assert one.events[-1] is Event.SERVICE_STOPPED

    run(main)


def test_an_inner_one_left_by_break_is_closed_when_the_outer_ends(stage: type[Any]) -> None:
    class Inner(Base):
        async def run(self):
            try:
                for number in range(5):
                    yield self.one("say", str(number))
            finally:
                self.log.append("inner cleaned up")

    class Outer(Inner):
        async def run(self):
            async for script in super().run():
                yield script
                break
            self.log.append("outer ends")

    assert lives(stage, Outer).service.log == ["outer ends", "inner cleaned up"]


def test_the_default_handlers_can_be_delegated_to(stage: type[Any]) -> None:
    class Demo(Service):
        async def start(self):
            async for script in super().start():
                results = await (yield script)
                assert len(results) == 2
            yield self.script("say", "started")

        async def run(self):
            yield self.script("say", "ran")

        async def shutdown(self):
            async for script in super().shutdown():
                yield script

        def script(self, *command: str) -> Script:
            script = self._ctx.new_script()
            script.run(*command)
            return script

    one = lives(stage, Demo)
    assert one.lease.ran == ["deploy", "start", "run say started", "run say ran", "terminate"]


def test_a_stream_is_an_async_generator_like_any_other() -> None:
    closed = []

    async def numbers():
        try:
            got = yield 1
            closed.append(got)
            yield 2
        except KeyError:
            yield 3
        finally:
            closed.append("closed")

    async def main() -> None:
        stream = HandlerStream(numbers())
        assert await anext(stream) == 1
        assert await stream.asend("sent") == 2
        assert await stream.athrow(KeyError("thrown")) == 3
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert closed == ["sent", "closed"]
        again = HandlerStream(numbers())
        await anext(again)
        assert await again.athrow(KeyError) == 3
        await again.aclose()

    run(main)


def test_what_a_stream_kept_for_its_next_turn_is_dropped_when_it_is_closed() -> None:
    async def forgiving():
        for number in (1, 2):
            try:
                yield number
            except KeyError:
                pass

    async def main() -> None:
        stream = HandlerStream(forgiving())
        await anext(stream)
        assert await stream.absorb(KeyError("x")) is None
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run(main)


# --- wrong handlers


async def coroutine(self: Any) -> None: ...


def plain(self: Any) -> None: ...


def generator(self: Any) -> Any:
    yield


async def good(self: Any) -> Any:
    yield


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (coroutine, "it is a coroutine function: it never yields"),
        (decorated(coroutine), "it is a coroutine function: it never yields"),
        (plain, "it is a plain function"),
        (generator, "it is a plain function"),
        (staticmethod(coroutine), "it is a coroutine function: it never yields"),
        (None, "it is None"),
        (0, "it is 0"),
        ("start", "it is 'start'"),
    ],
    ids=["coroutine", "decorated coroutine", "plain", "generator", "static", "None", "0", "text"],
)
def test_a_class_with_a_wrong_handler_is_refused_with_class_method_and_what_was_found(
    name: str, wrong: object, found: str
) -> None:
    service = type("Demo", (Service,), {name: wrong})
    with pytest.raises(ServiceDefinitionError) as refusal:
        check_handlers(service)
    assert str(refusal.value) == (
        f"Demo.{name}() must be an async generator, but {found}; "
        f"write `async def {name}(self): … yield script`, with at least one `yield` in its body"
    )
    assert isinstance(refusal.value, TypeError)


@pytest.mark.parametrize("right", [good, decorated(good), decorated(decorated(good))])
def test_a_class_with_async_generators_is_taken_decorated_or_not(right: object) -> None:
    check_handlers(type("Demo", (Service,), dict.fromkeys(HANDLERS, right)))
    check_handlers(Service)


def test_a_class_without_a_handler_is_refused() -> None:
    with pytest.raises(ServiceDefinitionError, match=r"Nothing\.start\(\) must be .* but it is None"):
        check_handlers(type("Nothing", (), {}))


@pytest.mark.parametrize(
    ("returned", "found"),
    [(None, "NoneType"), (5, "int"), ([], "list"), ("coroutine", "coroutine")],
    ids=str,
)
def test_a_handler_that_returns_no_async_generator_is_told_when_it_is_called(
    stage: type[Any], returned: object, found: str
) -> None:
    def run_(self: Any) -> Any:
        return coroutine(self) if returned == "coroutine" else returned

    one = lives(stage, type("Demo", (Base,), {"run": run_}))
    error = one.instance.error
    assert isinstance(error, ServiceDefinitionError)
    assert str(error).startswith(f"Demo.run() must be an async generator, but it returned {found};")
    assert one.path[-3:] == ["running", "stopping", "terminated"]


def test_a_handler_that_raises_when_it_is_called_ends_in_an_event(stage: type[Any]) -> None:
    def run_(self: Any) -> Any:
        raise LookupError("no generator today")

    one = lives(stage, type("Demo", (Base,), {"run": run_}))
    assert isinstance(one.instance.error, LookupError)


def test_any_async_generator_can_be_a_handler_also_one_made_elsewhere() -> None:
    class Foreign:
        start = good

    async def main() -> None:
        stream = open_handler(Foreign(), "start")
        assert await anext(stream) is None
        await stream.aclose()

    run(main)
