"""The embedded node: the node's REST API on loopback, with built-in providers that really run commands.

Nothing of the rest of shem imports this package except the facade, which offers it as the default node.
"""
