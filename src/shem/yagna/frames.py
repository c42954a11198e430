"""Frames of the node's service bridge (GSB), over which files travel between requestor and provider.

Each web socket message is one FlexBuffers map; both sides of the socket use this module. File contents are
FlexBuffers *blobs*: as a string or vector the other clients' readers reject them.

Source: contract of the GSB API, 3.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flatbuffers import flexbuffers

from shem.errors import TransferError

#: Subprotocol that both sides name when the socket is opened.
SUBPROTOCOL = "gsb+flexbuffers"
#: Bytes of file content per frame.
CHUNK_SIZE = 40 * 1024


def encode(message: Mapping[str, Any]) -> bytes:
    """One frame. `bytes` become blobs; otherwise str, int, float, bool, None, lists and maps are allowed."""
    builder = flexbuffers.Builder()
    _add(builder, message)
    return bytes(builder.Finish())


def decode(frame: bytes) -> dict[str, Any]:
    """The map in a frame, blobs as `bytes`. Raises `TransferError` where it holds none."""
    try:
        message = flexbuffers.Loads(frame)
    except Exception as error:  # the reader raises whatever its struct unpacking raises
        raise TransferError(f"a GSB frame of {len(frame)} bytes is no FlexBuffers value: {error}") from error
    if not isinstance(message, dict):
        raise TransferError(f"a GSB frame holds {type(message).__name__} where a map was expected")
    return message


def _add(builder: Any, value: Any) -> None:
    match value:
        case Mapping():
            with builder.Map():
                for key, item in value.items():
                    builder.Key(key)
                    _add(builder, item)
        case bytes() | bytearray() | memoryview():
            builder.Blob(bytes(value))
        case None:
            builder.Null()
        case list() | tuple():
            with builder.Vector():
                for item in value:
                    _add(builder, item)
        case _:
            builder.Add(value)
