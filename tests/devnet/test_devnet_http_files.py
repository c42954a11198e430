"""Files over the wire: the service bus and its web socket, and plain http URLs."""

from __future__ import annotations

import asyncio
import hashlib

import aiohttp
import pytest
from aiohttp import web

from shem.yagna.frames import SUBPROTOCOL, decode, encode

ROOT = "/gsb-api/v1"
CONTENT = bytes(range(256)) * 500


async def bind(http, uuid="abc"):
    body = {"listen": {"on": f"/public/gftp/{uuid}", "components": ["GetMetadata", "GetChunk"]}}
    reply = await http("POST", f"{ROOT}/services", body)
    assert reply.status == 201
    return reply


def connect(http, service, *, key=None):
    key = key or http.devnet.address.app_key
    url = f"{http.url.replace('http', 'ws')}{ROOT}/services/{service}?authToken={key}"
    return http.session.ws_connect(url, protocols=(SUBPROTOCOL,))


async def url_of(http, uuid="abc"):
    return f"gftp://{(await http.ok('GET', '/me'))['identity']}/{uuid}"


async def ready(http):
    activity = await http.activity()
    batch = await http.exec(activity, {"deploy": {}}, {"start": {}})
    await http.ok("GET", f"/activity-api/v1/activity/{activity}/exec/{batch}?timeout=5")
    return activity


async def copy(http, activity, source, target):
    return await http.exec(activity, {"transfer": {"from": source, "to": target}})


async def result(http, activity, batch):
    (found,) = await http.ok("GET", f"/activity-api/v1/activity/{activity}/exec/{batch}?timeout=10")
    return found


async def serve_content(socket, content=CONTENT):
    """Answer as a client that publishes a file, until the socket closes."""
    async for message in socket:
        call = decode(message.data)
        payload = call["payload"]
        if call["component"] == "GetMetadata":
            reply = {"fileSize": len(content)}
        else:
            reply = {"content": content[payload["offset"] :][: payload["size"]]}
        await socket.send_bytes(encode({"id": call["id"], "payload": reply}))


def test_a_service_has_the_form_of_the_contract(serve):
    async def main(http):
        reply = await bind(http)
        assert reply.json == {
            "listen": {"on": "/public/gftp/abc", "components": ["GetMetadata", "GetChunk"], "links": None},
            "servicesId": "L3B1YmxpYy9nZnRwL2FiYw",
        }
        assert reply.headers["Location"] == "/L3B1YmxpYy9nZnRwL2FiYw"
        reply = await http("DELETE", f"{ROOT}/services/L3B1YmxpYy9nZnRwL2FiYw")
        assert (reply.status, reply.body) == (200, b"null")

    serve(main)


def test_a_provider_reads_and_writes_through_the_socket(serve):
    async def main(http):
        service = (await bind(http)).json["servicesId"]
        activity = await ready(http)
        batch = await copy(http, activity, await url_of(http), "container:/a")
        async with connect(http, service) as socket:
            assert socket.protocol == SUBPROTOCOL
            answering = asyncio.create_task(serve_content(socket))
            assert (await result(http, activity, batch))["result"] == "Ok"
            assert http.runtimes.made[0].files["/a"] == CONTENT
            await http.ok("DELETE", f"{ROOT}/services/{service}")
            await asyncio.wait_for(answering, 2)
            assert socket.close_code == 1000

        service = (await bind(http, "up")).json["servicesId"]
        received = bytearray(len(CONTENT))
        batch = await copy(http, activity, "container:/a", await url_of(http, "up"))
        async with connect(http, service) as socket:
            while True:
                call = decode((await socket.receive()).data)
                if call["component"] == "UploadFinished":
                    assert call["payload"]["hash"] == hashlib.sha3_256(CONTENT).hexdigest()
                else:
                    chunk = call["payload"]["chunk"]
                    received[chunk["offset"] : chunk["offset"] + len(chunk["content"])] = chunk["content"]
                await socket.send_bytes(encode({"id": call["id"], "payload": None}))
                if call["component"] == "UploadFinished":
                    break
            assert (await result(http, activity, batch))["result"] == "Ok"
        assert bytes(received) == CONTENT

    serve(main)


def test_a_new_socket_takes_the_place_of_the_old_one_and_its_open_calls(serve):
    async def main(http):
        service = (await bind(http)).json["servicesId"]
        activity = await ready(http)
        batch = await copy(http, activity, await url_of(http), "container:/a")
        async with connect(http, service) as old:
            await old.receive()  # a call that it never answers
            async with connect(http, service) as new:
                answering = asyncio.create_task(serve_content(new))
                message = await asyncio.wait_for(old.receive(), 2)
                assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
                assert old.close_code == 1008
                assert (await result(http, activity, batch))["result"] == "Ok"
                answering.cancel()

    serve(main)


def test_an_error_answer_fails_the_transfer(serve):
    async def main(http):
        service = (await bind(http)).json["servicesId"]
        activity = await ready(http)
        batch = await copy(http, activity, await url_of(http), "container:/a")
        async with connect(http, service) as socket:
            await socket.send_bytes(b"garbage")
            await socket.send_bytes(encode({"id": "never asked", "payload": None}))
            await socket.send_str("text")
            call = decode((await socket.receive()).data)
            await socket.send_bytes(encode({"id": call["id"], "error": {"NoSuchFile": "it is gone"}}))
            outcome = await result(http, activity, batch)
        assert outcome["result"] == "Error"
        assert "it is gone" in outcome["message"]

    serve(main)


def test_the_socket_needs_the_key_and_a_service(serve):
    async def main(http):
        service = (await bind(http)).json["servicesId"]
        for which, key, status in ((service, "wrong", 401), ("none", None, 404)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await connect(http, which, key=key)
            assert caught.value.status == status
        assert (await http("GET", f"{ROOT}/services/{service}")).status == 400

    serve(main)


def test_a_service_without_an_address_is_refused_and_a_taken_one_too(serve):
    async def main(http):
        await bind(http)
        taken = {"listen": {"on": "/public/gftp/abc"}}
        assert (await http("POST", f"{ROOT}/services", taken)).status == 409
        assert (await http("POST", f"{ROOT}/services", {"listen": {"on": "abc"}})).status == 400
        assert (await http("DELETE", f"{ROOT}/services/none")).status == 404

    serve(main)


def test_stopping_the_node_closes_the_sockets(serve):
    async def main(http):
        service = (await bind(http)).json["servicesId"]
        async with connect(http, service) as socket:
            waiting = asyncio.create_task(socket.receive())
            await asyncio.sleep(0.1)
            await http.devnet.stop()
            message = await asyncio.wait_for(waiting, 2)
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    serve(main)


def test_plain_http_urls_are_read_and_put(serve):
    async def main(http):
        stored = {}

        async def put(request):
            stored[request.path] = await request.read()
            return web.Response(status=201)

        async def get(request):
            if request.path == "/none":
                raise web.HTTPNotFound
            return web.Response(body=CONTENT, headers={"Content-Encoding": "gzip"})

        app = web.Application(client_max_size=10**8)
        app.add_routes([web.get("/{name}", get), web.put("/{name}", put)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            activity = await ready(http)
            digest = hashlib.sha3_256(CONTENT).hexdigest()
            batch = await copy(http, activity, f"hash:sha3:{digest}:{host}/file", "container:/a")
            assert (await result(http, activity, batch))["result"] == "Ok"
            assert http.runtimes.made[0].files["/a"] == CONTENT
            batch = await copy(http, activity, "container:/a", f"{host}/up")
            assert (await result(http, activity, batch))["result"] == "Ok"
            assert stored == {"/up": CONTENT}
            for source in (f"{host}/none", "http://127.0.0.1:1/x", "http://"):
                batch = await copy(http, activity, source, "container:/b")
                outcome = await result(http, activity, batch)
                assert outcome["result"] == "Error"
                assert source in outcome["message"]
        finally:
            await runner.cleanup()

    serve(main)
