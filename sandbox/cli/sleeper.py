"""The process that guards open mailboxes when this computer goes to sleep: one for a user's home.

`open` starts it; it ends when no mailbox is open. It holds no secret: what it runs are the
ordinary commands, each with its lock and its journal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.lifecycle.house import House
from sandbox.lifecycle.sleep import guard, open_names
from sandbox.model.config import AtSleep
from sandbox.model.errors import MailboxError
from sandbox.state import files, lock
from sandbox.state.config import load_config
from sandbox.state.paths import Paths


def start(paths: Paths) -> None:
    """Start the process, unless it runs, is not wished for, or could not work here."""
    from sandbox.host import logind, process

    if lock.is_held(paths.sleep_lock) or not logind.has_bus():
        return
    if load_config(paths).at_sleep is not AtSleep.LEAVE:
        process.spawn_daemon([sys.executable, "-P", "-m", "sandbox.cli.sleeper"], config=b"")


def main() -> int:
    """The entry point."""
    from sandbox.host.logind import SleepDelay

    house = compose(Printer(as_json=True))
    with lock.attempt(house.paths.sleep_lock) as mine:
        if mine and open_names(house):
            try:
                guard(house, SleepDelay(), lambda names: _put_away(house, names))
            except MailboxError as error:
                _note(house, [f"{error.brief} {error.details}"])
    return 0


def _put_away(house: House, names: Sequence[str]) -> None:
    """All at once, for there is little time."""
    try:
        wish = house.config().at_sleep
    except MailboxError:  # edited since; what is safe is done
        wish = AtSleep.SUSPEND
    if wish is AtSleep.LEAVE:
        return
    with ThreadPoolExecutor(len(names)) as pool:
        _note(house, list(pool.map(lambda name: _end(name, wish), names)))


def _end(name: str, wish: AtSleep) -> str:
    verbs: list[tuple[str, ...]] = [("close", name)]
    if wish is AtSleep.SUSPEND:
        verbs = [("suspend", name), ("close", name, "--shutdown")]
    return "; ".join(_until_one_works(verbs))


def _until_one_works(verbs: Sequence[tuple[str, ...]]) -> list[str]:
    from sandbox.host import process

    told = []
    for verb in verbs:
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        done = process.run([sys.executable, "-P", "-m", "sandbox.cli", *verb], check=False)
        worked = done.returncode == os.EX_OK
        told.append(f"{begun} {' '.join(verb)}: {'done' if worked else done.last_error()}")
        if worked:
            break
    return told


def _note(house: House, lines: Sequence[str]) -> None:
    """What happened last, for whoever wonders; no secret and no address is in it."""
    files.replace(house.paths.sleep_log, "".join(f"{line}\n" for line in lines).encode())


if __name__ == "__main__":
    sys.exit(main())
