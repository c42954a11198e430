"""A requestor in the node's process: hooks around its calls, and its end."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from shem.devnet.local import LocalApi
from shem.errors import NodeUnavailable, NotFound
from shem.yagna import models as wire
from shem.yagna.api import YagnaApi
from shem.yagna.content import BytesSource

NEW = wire.NewAllocation(address="0x", payment_platform="erc20-holesky-tglm", total_amount=Decimal(1))


def test_it_is_a_whole_yagna_api(in_world):
    async def main(w):
        api: YagnaApi = w.api
        assert (await api.me()) == w.node.identity

    in_world(main)


def test_a_hook_before_the_call_can_delay_it_and_replace_it(in_world):
    async def main(w):
        calls = []

        async def before(name, args):
            calls.append((name, args))
            await asyncio.sleep(3)
            if name == "create_allocation":
                raise NodeUnavailable(name, None, "no route")

        api = LocalApi(w.node, before_call=before)
        await api.me()
        assert w.clock.monotonic() == 3
        with pytest.raises(NodeUnavailable):
            await api.create_allocation(NEW)
        assert calls == [("me", ()), ("create_allocation", (NEW,))]
        assert w.node.audit().open_allocations == ()

    in_world(main)


def test_a_hook_after_the_call_can_lose_its_answer_but_not_its_effect(in_world):
    async def main(w):
        async def after(name, args):
            raise NodeUnavailable(name, None, "connection cut")

        api = LocalApi(w.node, after_call=after)
        with pytest.raises(NodeUnavailable):
            await api.create_allocation(NEW)
        assert len(w.node.audit().open_allocations) == 1
        with pytest.raises(NotFound):
            await api.allocation("none")  # the node's own refusal comes through

    in_world(main)


def test_every_call_is_named_to_the_hooks_as_the_protocol_names_it(in_world):
    async def main(w):
        names = []

        async def before(name, args):
            names.append(name)
            raise NodeUnavailable(name, None, "stop here")

        api = LocalApi(w.node, before_call=before)
        public = [name for name in dir(YagnaApi) if not name.startswith("_") and name != "close"]
        for name in public:
            method = getattr(api, name)
            code = method.__func__.__code__
            required = code.co_argcount - 1 - len(method.__defaults__ or ())
            keywords = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
            with pytest.raises(NodeUnavailable):
                await method(*[None] * required, **dict.fromkeys(keywords))
        assert names == public

    in_world(main)


def test_closing_ends_the_transfers_and_refuses_later_calls(in_world):
    async def main(w):
        api = LocalApi(w.node)
        channel = await api.publish(BytesSource(b"x"))
        _, activity_id = await w.ready()
        await api.close()
        with pytest.raises(NodeUnavailable):
            await api.me()
        (result,) = await w.do(activity_id, {"transfer": {"from": channel.url, "to": "container:/a"}})
        assert not result.ok
        await channel.close()

    in_world(main)


def test_two_identities_do_not_see_each_other(in_world):
    async def main(w):
        other = w.other()
        assert (await other.me()).identity != (await w.api.me()).identity
        mine = await w.allocation()
        with pytest.raises(NotFound):
            await other.release_allocation(mine)

    in_world(main)
