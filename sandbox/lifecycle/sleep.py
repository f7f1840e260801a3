"""Open mailboxes are put away before this computer sleeps: their keys would stay in its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sandbox.lifecycle.house import House
from sandbox.model.names import name_problem
from sandbox.ports import SleepDelay
from sandbox.state.journal import History, Journal
from sandbox.state.paths import Paths

# How often to look whether there is still a mailbox to guard (seconds).
POLL_S = 20.0

PutAway = Callable[[Sequence[str]], None]


def open_names(house: House) -> list[str]:
    """Mailboxes that have a machine, or had one when they were killed; asks no other process."""
    names = (name for name in house.records.names() if not name_problem(name))
    return [name for name in names if house.paths.machine(name).exists()]


def slowest(paths: Paths, verb: str) -> float | None:
    """The longest of the mailboxes' last times that a verb took (seconds), by their journals."""
    histories = (Journal(path).recent() for path in paths.journals.glob("*.jsonl"))
    return max(filter(None, (_seconds(history, verb) for history in histories)), default=None)


def _seconds(history: History, verb: str) -> float | None:
    end = history.last(verb, outcome="done")
    begun = [e for e in history.entries if e.event == "begin" and end and e.run == end.run]
    if end is None or not begun:
        return None
    times = (datetime.fromisoformat(entry.time) for entry in (end, begun[0]))
    return (next(times) - next(times)).total_seconds()


def guard(house: House, delay: SleepDelay, put_away: PutAway, poll_s: float = POLL_S) -> None:
    """Delay each sleep until open mailboxes are put away; returns when none is open.

    When that takes longer than the delay, the computer sleeps in the middle of it, and it goes on
    when the computer wakes: what puts away are ordinary commands, which nothing breaks.
    """
    delay.hold()
    try:
        while names := open_names(house):
            coming = delay.wait(poll_s)
            if coming:
                put_away(names)
                delay.release()
            elif coming is False:
                delay.hold()
    finally:
        delay.release()
