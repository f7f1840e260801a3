"""What a warden tells about itself: its state and the counters of its forwards, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

State = Literal["connecting", "ready", "lost"]
STATES = ("connecting", "ready", "lost")


@dataclass(frozen=True)
class ForwardStatus:
    """The counters of one forward; `sent` went to the server, `received` came from it."""

    name: str
    listen: str
    port: int
    open: int = 0
    connections: int = 0
    refused: int = 0
    sent: int = 0
    received: int = 0
    last_error: str = ""


@dataclass(frozen=True)
class WardenStatus:
    """The state of the channel since a moment (seconds of the epoch), and why it is so."""

    state: State
    since: float
    reason: str = ""
    forwards: tuple[ForwardStatus, ...] = ()


def status_fields(status: WardenStatus) -> dict[str, Any]:
    """Return the status as a JSON object."""
    return asdict(status)


def parse_status(fields: Mapping[str, Any]) -> WardenStatus:
    """Return the status in a JSON object; ValueError if it is none."""
    try:
        state = fields["state"]
        if state not in STATES:
            raise ValueError("unknown state")
        forwards = tuple(ForwardStatus(**item) for item in fields["forwards"])
        return WardenStatus(
            cast(State, state), float(fields["since"]), str(fields["reason"]), forwards
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not a warden's status") from error
