"""What a built-in provider runs commands in.

`base` is the seam to the provider; behind it stand the sandbox (real processes) and the null runtime
(commands succeed at once without a process). Markets, agreements and money do not belong here.
"""
