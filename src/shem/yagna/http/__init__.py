"""The client over HTTP: `HttpNode` is a `shem.yagna.api.YagnaApi` before a real node or the devnet.

`transport` is the one session with its key, limits and shutdown, `answers` what an answer means (errors, ids,
values), `requests` how arguments look on the wire, `polls` the event polls, `files` the transfers, `exchange`
what is said in them, `assembly` the order of an upload's pieces, `node` the calls themselves.

Nothing here retries a call or decides what an error means for a rental: that is the engine's. The one
exception is the socket of an open transfer, which is made anew when it is cut, because the provider at the
other end knows nothing of sockets.

Source: contract of the node's REST API, 1, 3 and 6.
"""

from shem.yagna.http.node import HttpNode

__all__ = ["HttpNode"]
