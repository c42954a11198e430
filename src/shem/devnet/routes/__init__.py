"""The REST API over a node: one module per API, each only translates between HTTP and the node's parts.

`reading` turns requests into values, `writing` turns values into responses, `keyring` says who may call.
Rules of markets, activities or money do not belong here.
"""
