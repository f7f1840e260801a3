"""Runs a few slow calls side by side, each in a thread, and waits for all with one deadline.

A server that sends a byte now and then defeats a socket's timeout; this deadline it does not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class NoAnswerError(Exception):
    """A call was still running at the deadline."""


def side_by_side(calls: Sequence[Callable[[], T]], deadline_s: float) -> list[T | Exception]:
    """The result of each call, or its exception, in the order of `calls`."""
    results: list[T | Exception] = [NoAnswerError() for _ in calls]

    def keep(place: int, call: Callable[[], T]) -> None:
        try:
            results[place] = call()
        except Exception as error:
            results[place] = error

    # daemon threads: one that hangs must not keep the program from ending
    threads = [
        threading.Thread(target=keep, args=(place, call), daemon=True)
        for place, call in enumerate(calls)
    ]
    end = time.monotonic() + deadline_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(results)
