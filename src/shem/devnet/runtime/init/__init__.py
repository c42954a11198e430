"""The program that holds the activities' processes: it runs on its own, outside the node's process.

`__main__` starts `server`, of which the node has one. For each activity the server forks a `keeper`, which
makes the namespaces, forks process 1 of the activity (`commands.Init`), waits for it and clears up behind it.
The node speaks to the two over one socket per activity; its side is `shem.devnet.runtime.link`.

Only the standard library is imported here, and within the package only by relative names: the program runs
without site-packages and does not depend on what the node has loaded.
"""
