"""Which processes descend from one process, and how much CPU time they have used, from ``/proc``."""

from __future__ import annotations

import os
import resource

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PPID, _SESSION, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 3, 11, 12, 13, 14


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the third (state) on, or None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096).decode("ascii", "replace")
    except OSError:
        return None
    # The second field is the program's name in brackets and may itself hold brackets and spaces.
    return text.rpartition(")")[2].split()


def _all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []


def descendants(root: int) -> list[int]:
    """Every process below `root`, parents before their children. Empty where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        fields = _stat(pid)
        if fields is not None:
            children.setdefault(int(fields[_PPID]), []).append(pid)
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def with_session(session: int) -> list[int]:
    """Every process of a session, also those whose parent is gone."""
    return [pid for pid in _all_pids() if (fields := _stat(pid)) and int(fields[_SESSION]) == session]


def cpu_of_children() -> float:
    """CPU time in seconds of the calling process's descendants: the living and all that were waited for.

    A child's time moves to its parent when it is waited for, so a parent is read before its children: what
    moves meanwhile may be missed for a moment, but is never counted twice. Processes whose parent ignores
    SIGCHLD count only while they live, since the kernel adds their time to nobody's.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for pid in descendants(os.getpid()):
        fields = _stat(pid)
        if fields is not None:
            ticks += sum(int(fields[index]) for index in (_UTIME, _STIME, _CUTIME, _CSTIME))
    return usage.ru_utime + usage.ru_stime + ticks / _TICKS_PER_SECOND


def cpu_of_self() -> float:
    """CPU time in seconds of the calling process alone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
