"""Talking to a node, and nothing else.

`models` are the values of the REST contract, `api` the protocols that the engine is written against, `http`
the client over aiohttp. Policies (what to rent, when to retry, what to pay) do not belong here.
"""
