"""Talking to a node, and nothing else.

`models` are the values of the REST contract, `api` the protocols that the engine is written against.
`content` is where transferred bytes come from and go to, `frames` how they travel. `http` is the client over
aiohttp, `registry` that of the image registry. What to rent, when to retry and what to pay is decided
elsewhere.
"""
