"""GnuPG's agents of one home: ended, and gone."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox.host import process

_GONE_S = 5.0


def end(home: Path) -> None:
    """End every daemon of a GnuPG home, and wait until its `gpg-agent` is gone.

    One that is going still lets the next gpg in, and then leaves it alone (gpg-agent(1)).
    """
    with contextlib.ExitStack() as stack:
        going = []
        for pid in _agents(home):
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                stack.callback(os.close, descriptor)
                going.append(descriptor)
        process.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
        deadline = time.monotonic() + _GONE_S
        for descriptor in going:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))


def _agents(home: Path) -> Iterator[int]:
    """Those that gpg started for this home: it names it to them."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"gpg-agent") and os.fsencode(home) in words:
                yield int(folder.name)
