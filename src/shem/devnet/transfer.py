"""The `transfer` command: one file between the runtime and a URL.

``container:/path`` is inside the runtime; ``gftp://<node id>/<uuid>`` is a requestor's service on the bus;
``http://`` and ``https://`` need a `Fetcher`. A source may be written ``hash:sha3:<hex>:<url>`` and is then
verified.

Source: contract 3.6, 5.4.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from shem.devnet.gsb import FILES, Gsb, Service
from shem.devnet.runtime.base import CommandError, Runtime
from shem.errors import TransferError
from shem.yagna.frames import CHUNK_SIZE

_SHA3 = {56: hashlib.sha3_224, 64: hashlib.sha3_256, 96: hashlib.sha3_384, 128: hashlib.sha3_512}


class Fetcher(Protocol):
    """Reads and writes http(s) URLs. Both methods raise `TransferError`."""

    def get(self, url: str) -> AsyncIterator[bytes]:
        """The content at a URL, in pieces."""

    async def put(self, url: str, content: AsyncIterator[bytes]) -> None:
        """Store content at a URL."""


class NoFetcher:
    """A fetcher that refuses, for a node that has no network."""

    def get(self, url: str) -> AsyncIterator[bytes]:
        """Refuses."""
        raise TransferError(f"{url}: http transfers are not supported by the in-process node")

    async def put(self, url: str, content: AsyncIterator[bytes]) -> None:
        """Refuses."""
        raise TransferError(f"{url}: http transfers are not supported by the in-process node")


async def transfer(runtime: Runtime, source: str, target: str, gsb: Gsb, fetcher: Fetcher) -> None:
    """Copy a file. Raises `CommandError` with what went wrong."""
    try:
        await _transfer(runtime, source, target, gsb, fetcher)
    except OSError as error:
        raise CommandError(f"transfer from {source} to {target}: {error.strerror or error}") from error


async def _transfer(runtime: Runtime, source: str, target: str, gsb: Gsb, fetcher: Fetcher) -> None:
    digest, source = _split_hash(source)
    inward, outward = _is_inside(source), _is_inside(target)
    if inward and not outward:
        await _send(runtime, _path(source), target, gsb, fetcher)
    elif outward and not inward:
        await _fetch(runtime, source, digest, _path(target), gsb, fetcher)
    elif inward:
        await _copy(runtime, _path(source), _path(target))
    else:
        raise CommandError(f"transfer from {source} to {target}: neither end is inside the runtime")


async def _copy(runtime: Runtime, source: str, target: str) -> None:
    with await runtime.open_to_read(source) as reader, await runtime.open_to_write(target) as writer:
        async for piece in _pieces(reader):
            writer.write(piece)


async def _fetch(
    runtime: Runtime, source: str, digest: str | None, path: str, gsb: Gsb, fetcher: Fetcher
) -> None:
    hasher = None if digest is None else _SHA3[len(digest)]()
    with await runtime.open_to_write(path) as writer:
        try:
            async for piece in _read_from(source, gsb, fetcher):
                writer.write(piece)
                if hasher is not None:
                    hasher.update(piece)
        except TransferError as error:
            raise CommandError(f"transfer from {source}: {error}") from error
    if hasher is not None and hasher.hexdigest() != digest:
        raise CommandError(
            f"transfer from {source}: hash mismatch, expected {digest}, got {hasher.hexdigest()}"
        )


async def _send(runtime: Runtime, path: str, target: str, gsb: Gsb, fetcher: Fetcher) -> None:
    with await runtime.open_to_read(path) as reader:
        try:
            if _scheme(target) == "gftp":
                await _upload(_service(target, gsb), reader)
            else:
                _require_http(target)
                await fetcher.put(target, _pieces(reader))
        except TransferError as error:
            raise CommandError(f"transfer to {target}: {error}") from error


async def _read_from(source: str, gsb: Gsb, fetcher: Fetcher) -> AsyncIterator[bytes]:
    if _scheme(source) == "gftp":
        async for piece in _download(_service(source, gsb)):
            yield piece
    else:
        _require_http(source)
        async for piece in fetcher.get(source):
            yield piece


async def _download(service: Service) -> AsyncIterator[bytes]:
    size = _number(await service.call("GetMetadata", {}), "fileSize")
    offset = 0
    while offset < size:
        reply = await service.call("GetChunk", {"offset": offset, "size": min(CHUNK_SIZE, size - offset)})
        content = reply.get("content") if isinstance(reply, Mapping) else None
        if not isinstance(content, bytes) or not content:
            raise TransferError(f"the requestor sent no content at byte {offset} of {size}")
        yield content
        offset += len(content)
        await asyncio.sleep(0)


async def _upload(service: Service, reader: BinaryIO) -> None:
    hasher, offset = hashlib.sha3_256(), 0
    async for piece in _pieces(reader):
        hasher.update(piece)
        await service.call("UploadChunk", {"chunk": {"offset": offset, "content": piece}})
        offset += len(piece)
    await service.call("UploadFinished", {"hash": hasher.hexdigest()})


async def _pieces(reader: BinaryIO) -> AsyncIterator[bytes]:
    while piece := reader.read(CHUNK_SIZE):
        yield piece
        # Nothing else in a copy need ever wait, and a large file must not keep the loop to itself.
        await asyncio.sleep(0)


def _service(url: str, gsb: Gsb) -> Service:
    parts = urlsplit(url)
    address = FILES + parts.path.lstrip("/")
    service = gsb.at(parts.netloc, address)
    if service is None:
        raise TransferError(f"GSB error: endpoint address not found: /net/{parts.netloc}{address}")
    return service


def _number(reply: Any, key: str) -> int:
    value = reply.get(key) if isinstance(reply, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TransferError(f"the requestor's answer holds no usable {key}: {reply!r}")
    return value


def _split_hash(source: str) -> tuple[str | None, str]:
    if not source.startswith("hash:"):
        return None, source
    parts = source.split(":", 3)
    if len(parts) != 4 or parts[1] != "sha3" or len(parts[2]) not in _SHA3:
        raise CommandError(f"transfer from {source}: expected hash:sha3:<hex>:<url>")
    return parts[2].lower(), parts[3]


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _is_inside(url: str) -> bool:
    return _scheme(url) == "container"


def _path(url: str) -> str:
    path = url.partition(":")[2]
    return path.removeprefix("//") if path.startswith("///") else path


def _require_http(url: str) -> None:
    if _scheme(url) not in ("http", "https"):
        raise TransferError(f"{url}: unknown scheme; known are container, gftp, http and https")
