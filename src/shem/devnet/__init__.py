"""The embedded node: the node's REST API on loopback, with built-in providers that really run commands.

The core knows nothing of HTTP and waits by the running loop only, so it also lives in virtual time:

* `market`, `agreements`, `activities` (with `activity`, `batches`, `executor`), `allocations`, `documents`
  and `gsb` are the parts of a node; `node` puts them together;
* `provider` is a built-in provider, with its rules in `negotiation` and `engagement`;
* `faults` makes things go wrong on order, `audit` says what is left over;
* `local` is a requestor's view of a node in the same process.

`server` and `routes` are the REST API over it, `devnet` is all of it ready to use, `runtime` what commands
run in.

Nothing of the rest of shem imports this package except the facade, which offers it as the default node.
"""
