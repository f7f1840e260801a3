"""systemd-logind: told before this computer sleeps, and able to delay it for a while.

https://systemd.io/INHIBITOR_LOCKS. A delay lock holds a sleep back for `InhibitDelayMaxSec` at the
most (logind.conf(5), usually 5 s). A block lock would leave a closed notebook running.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import Any

from jeepney import (
    DBusAddress,
    MatchRule,
    Message,
    MessageType,
    Properties,
    message_bus,
    new_method_call,
)
from jeepney.io.blocking import DBusConnection, Proxy, open_dbus_connection

from sandbox.model.errors import Exit, MailboxError

_LOGIND = DBusAddress(
    "/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager"
)
_SLEEP = MatchRule(
    type="signal",
    interface="org.freedesktop.login1.Manager",
    member="PrepareForSleep",
    path="/org/freedesktop/login1",
)
_WHY = ("sleep", "mailbox", "Open mailboxes are put away first", "delay")
_DEADLINE_S = 10.0


class SleepDelay:
    """A delay lock of logind's, and the news of a sleep (sandbox.ports.SleepDelay).

    Raises:
        MailboxError: `logind-missing`.
    """

    def __init__(self) -> None:
        self._bus = _connect()
        self._news: deque[Message] = deque()
        self._lock: Any = None
        # From now on: a sleep between the first lock and the first look must not be missed.
        self._filter = self._bus.filter(_SLEEP, queue=self._news)
        Proxy(message_bus, self._bus, timeout=_DEADLINE_S).AddMatch(_SLEEP)

    def hold(self) -> None:
        """Take the lock, unless it is held."""
        if self._lock is None:
            (self._lock,) = _ask(self._bus, new_method_call(_LOGIND, "Inhibit", "ssss", _WHY))

    def release(self) -> None:
        """Let the computer sleep."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def wait(self, timeout: float) -> bool | None:
        """True when a sleep is coming, False when it is over, None when nothing was said."""
        try:
            news = self._bus.recv_until_filtered(self._news, timeout=timeout)
        except TimeoutError:
            return None
        except OSError as error:
            raise _missing(f"The system bus is gone: {error}") from None
        return bool(news.body[0])


def longest_delay() -> float:
    """How long logind lets a sleep be delayed (seconds).

    Raises:
        MailboxError: `logind-missing`.
    """
    bus = _connect()
    try:
        ((_kind, microseconds),) = _ask(bus, Properties(_LOGIND).get("InhibitDelayMaxUSec"))
    finally:
        bus.close()
    return float(microseconds) / 1_000_000


def has_bus() -> bool:
    """Whether there is a system bus at all, by its address."""
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
    return bool(address) or os.path.exists("/run/dbus/system_bus_socket")  # noqa: PTH110 - a socket


def _connect() -> DBusConnection:
    try:
        bus = open_dbus_connection(bus="SYSTEM", enable_fds=True)
    except (OSError, ValueError, KeyError) as error:
        raise _missing(f"There is no system bus: {error}") from None
    return bus


def _ask(bus: DBusConnection, question: Message) -> tuple[Any, ...]:
    try:
        answer = bus.send_and_get_reply(question, timeout=_DEADLINE_S)
    except OSError as error:  # a timeout, too
        with suppress(OSError):
            bus.close()
        raise _missing(f"The system bus does not answer: {error}") from None
    if answer.header.message_type is MessageType.error:
        raise _missing(" ".join(map(str, answer.body)))
    return tuple(answer.body)


def _missing(details: str) -> MailboxError:
    return MailboxError(
        "systemd-logind does not answer, so open mailboxes are not put away before a sleep.",
        details=details,
        resolution="Close them by hand first: `mailbox close --all`.",
        code="logind-missing",
        exit_code=Exit.HOST,
    )
