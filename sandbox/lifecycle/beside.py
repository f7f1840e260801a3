"""Work that goes on beside a step, and is waited for by a later one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Work = Callable[[], Any]


def in_thread(work: Work) -> Work:
    """Begin the work; what is returned waits for its result, or raises what it raised."""
    # Imported here: commands that only look do not wait for it.
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1)
    result = thread.submit(work).result
    thread.shutdown(wait=False)
    return result
