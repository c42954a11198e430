"""Files between requestor and runtime, through the node's service bus."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import BadRequest, NotFound, TransferError
from shem.yagna.content import BytesSink, BytesSource
from shem.yagna.frames import CHUNK_SIZE

SIZES = st.sampled_from([0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE + 7])


def copy(source, target):
    return {"transfer": {"from": source, "to": target}}


class Chunks:
    """A requestor's end that says what it is told to."""

    def __init__(self, **answers):
        self.answers, self.closed = answers, []

    async def answer(self, component, payload):
        answer = self.answers[component]
        return answer(payload) if callable(answer) else answer

    async def close(self, reason, *, replaced):
        self.closed.append((reason, replaced))


class BrokenSource:
    size = 100

    def read(self, offset, length):
        raise TransferError("the file was changed")


async def connect(w, responder, uuid="a"):
    me = (await w.api.me()).identity
    service = w.node.gsb.bind(me, f"/public/gftp/{uuid}", ["GetMetadata", "GetChunk"])
    await service.connect(responder)
    return f"gftp://{me}/{uuid}"


@given(SIZES, st.integers(0, 255))
def test_a_file_of_any_size_goes_there_and_back_unchanged(in_world, size, filler):
    async def main(w):
        content = bytes([filler]) * size
        _, activity_id = await w.ready()
        source, sink = await w.api.publish(BytesSource(content)), BytesSink()
        target = await w.api.receive(sink)
        results = await w.do(
            activity_id,
            copy(source.url, "container:/golem/a"),
            copy("container:/golem/a", "container:/golem/b"),
            copy("container:/golem/b", target.url),
        )
        assert [result.ok for result in results] == [True] * 3
        assert sink.content() == content
        assert w.runtimes.made[0].files == {"/golem/a": content, "/golem/b": content}
        await source.close()
        await target.close()

    in_world(main)


def test_a_service_answers_only_for_its_owner(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        channel = await w.other().publish(BytesSource(b"x"))
        me = (await w.api.me()).identity
        stolen = channel.url.replace("0x" + "e" * 40, me)
        (result,) = await w.do(activity_id, copy(stolen, "container:/a"))
        assert "endpoint address not found" in result.message
        await channel.close()

    in_world(main)


def test_a_closed_channel_is_not_found(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        channel = await w.api.publish(BytesSource(b"x"))
        await channel.close()
        await channel.close()
        (result,) = await w.do(activity_id, copy(channel.url, "container:/a"))
        assert "endpoint address not found" in result.message

    in_world(main)


@pytest.mark.parametrize("algorithm", ["sha3_224", "sha3_256", "sha3_384", "sha3_512"])
def test_a_source_with_a_hash_is_verified(in_world, algorithm):
    async def main(w):
        content = b"verify me" * 10_000
        digest = hashlib.new(algorithm, content).hexdigest()
        _, activity_id = await w.ready()
        channel = await w.api.publish(BytesSource(content))
        (good,) = await w.do(activity_id, copy(f"hash:sha3:{digest.upper()}:{channel.url}", "container:/a"))
        (bad,) = await w.do(activity_id, copy(f"hash:sha3:{'0' * len(digest)}:{channel.url}", "container:/a"))
        assert good.ok
        assert "hash mismatch" in bad.message

    in_world(main)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("http://host/a", "container:/a", "not supported by the in-process node"),
        ("container:/there", "https://host/a", "not supported by the in-process node"),
        ("file:///etc/passwd", "container:/a", "unknown scheme"),
        ("container:/there", "file:///tmp/x", "unknown scheme"),
        ("http://host/a", "http://host/b", "neither end is inside"),
        ("hash:md5:00:http://host/a", "container:/a", "hash:sha3"),
        ("container:/none", "container:/a", "no such file"),
        ("gftp://0xother/uuid", "container:/a", "endpoint address not found"),
        ("", "container:/a", "unknown scheme"),
    ],
)
def test_a_transfer_that_is_not_possible_says_why(in_world, source, target, said):
    async def main(w):
        _, activity_id = await w.ready()
        w.runtimes.made[0].files["/there"] = b"x"
        (result,) = await w.do(activity_id, copy(source, target))
        assert said in result.message

    in_world(main)


def test_an_error_at_the_requestors_end_fails_the_command(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        channel = await w.api.publish(BrokenSource())
        (result,) = await w.do(activity_id, copy(channel.url, "container:/a"))
        assert "the file was changed" in result.message

    in_world(main)


@pytest.mark.parametrize(
    "answers",
    [
        {"GetMetadata": None},
        {"GetMetadata": {"fileSize": "ten"}},
        {"GetMetadata": {"fileSize": -1}},
        {"GetMetadata": {"fileSize": 10}, "GetChunk": {}},
        {"GetMetadata": {"fileSize": 10}, "GetChunk": {"content": b""}},
        {"GetMetadata": {"fileSize": 10}, "GetChunk": {"content": "text"}},
    ],
)
def test_a_senseless_answer_fails_the_command(in_world, answers):
    async def main(w):
        _, activity_id = await w.ready()
        url = await connect(w, Chunks(**answers))
        (result,) = await w.do(activity_id, copy(url, "container:/a"))
        assert result.result == "Error"

    in_world(main)


def test_calls_wait_until_somebody_is_connected_and_the_newest_answers(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        me = (await w.api.me()).identity
        service = w.node.gsb.bind(me, "/public/gftp/a", [])
        batch_id = await w.send(activity_id, copy(f"gftp://{me}/a", "container:/a"))
        assert await w.api.batch_results(activity_id, batch_id, timeout=30) == []
        first, second = Chunks(), Chunks(GetMetadata={"fileSize": 2}, GetChunk={"content": b"ok"})
        service.disconnect(first)
        await service.connect(first)
        await service.connect(second)
        assert [replaced for _, replaced in first.closed] == [True]
        (result,) = await w.api.batch_results(activity_id, batch_id, timeout=30)
        assert result.ok, result
        assert w.runtimes.made[0].files["/a"] == b"ok"
        await w.node.gsb.unbind(me, service.id)
        assert second.closed == [("Unbinding service: /public/gftp/a", False)]

    in_world(main)


def test_withdrawing_a_service_fails_the_transfer_that_waits_for_it(in_world):
    async def main(w):
        _, activity_id = await w.ready()
        me = (await w.api.me()).identity
        service = w.node.gsb.bind(me, "/public/gftp/a", [])
        batch_id = await w.send(activity_id, copy(f"gftp://{me}/a", "container:/a"))
        await asyncio.sleep(5)
        await w.node.gsb.unbind(me, service.id)
        (result,) = await w.api.batch_results(activity_id, batch_id, timeout=30)
        assert "withdrew" in result.message

    in_world(main)


def test_an_address_is_bound_once_and_well_formed(in_world):
    async def main(w):
        me = (await w.api.me()).identity
        service = w.node.gsb.bind(me, "/public/gftp/a", [])
        assert "=" not in service.id
        with pytest.raises(BadRequest) as caught:
            w.node.gsb.bind(me, "/public/gftp/a", [])
        assert caught.value.status == 409
        with pytest.raises(BadRequest):
            w.node.gsb.bind(me, "public/gftp/a", [])
        with pytest.raises(NotFound):
            await w.node.gsb.unbind("0xother", service.id)
        await w.node.gsb.unbind(me, service.id)
        w.node.gsb.bind(me, "/public/gftp/a", [])

    in_world(main)
