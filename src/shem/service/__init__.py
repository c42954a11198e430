"""The service model: what users write, and what keeps it alive.

Lowest first: `handlers` (the generator pattern), `context` and `service` (what users subclass and hold),
`instance` (the gate: one run on one provider), `policy`, `supervisor` and `cluster` (slots that are kept
filled). How a provider is found and paid does not belong here; it is reached through protocols.
"""
