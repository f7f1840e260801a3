"""One link that goes wrong harms neither the channel nor the other links."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any, cast

from sandbox.channel.link import Link


class HungUpTransport:
    """A transport whose other end is gone though nobody has noticed yet."""

    def __init__(self) -> None:
        self.aborted = False

    def is_closing(self) -> bool:
        return self.aborted

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.aborted = True


def test_an_end_that_crosses_a_hang_up_stays_within_its_link() -> None:
    forgotten: list[Link] = []
    counters = SimpleNamespace(sent=0, received=0, last_error="")
    link = Link(counters, forgotten.append)
    transport = HungUpTransport()
    link.transport = cast(Any, transport)
    assert link.guest.eof_received() is True
    assert transport.aborted
    assert forgotten == [link]
