"""The machinery of the marketplace, written against `shem.yagna.api` only.

`market` finds and negotiates offers by a `strategy`, `agreement` signs and watches, `activity` runs scripts,
`payment` pays, `lease` is all of that for one instance, `engine` puts it together for one run. Services and
what to do about a failure do not belong here: what happens is told by resolved futures and by events.
"""
