"""How observations are shown."""

from __future__ import annotations

from typing import Any

from sandbox.cli.output import Printer
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import Observation
from sandbox.model.errors import MailboxError
from sandbox.model.keycare import cares
from sandbox.model.machine import MachineState
from sandbox.model.names import human_size
from sandbox.model.profile import Profile, write_profile
from sandbox.state.journal import History
from sandbox.state.retentions import today


def observation_facts(seen: Observation) -> dict[str, Any]:
    """An observation as a JSON object."""
    profile, volume = seen.profile, seen.volume
    return {
        "name": seen.name,
        "state": seen.state,
        "machine": str(seen.machine),
        "address": profile.account.address if profile else None,
        "client": profile.settings.client if profile else None,
        "colour": profile.colour if profile else None,
        "error": seen.error or None,
        "volume": {"size": volume.size, "allocated": volume.allocated} if volume else None,
        "blank": seen.blank,
        "image": seen.image or None,
        "last_opened": seen.last_opened or None,
        "suspended": seen.suspended,
        "unfinished": seen.pending.verb if seen.pending else None,
        "retained_until": str(seen.retention.until) if seen.retention else None,
        "key_expires": (profile.keys.expires or None) if profile else None,
        "key_cares": list(cares(profile.keys)) if profile else [],
        "retained_because": seen.retention.because if seen.retention else None,
    }


def print_list(printer: Printer, observations: list[Observation]) -> None:
    """All mailboxes, a line each."""
    if printer.as_json:
        printer.document([observation_facts(seen) for seen in observations])
        return
    if not observations:
        printer.line("There is no mailbox yet. `mailbox onboard NAME` makes one.")
        return
    rows = [
        (
            seen.name,
            seen.state,
            seen.profile.account.address if seen.profile else "-",
            human_size(seen.volume.allocated) if seen.volume else "missing",
            seen.last_opened[:16].replace("T", " ") or "never",
        )
        for seen in observations
    ]
    printer.table(("NAME", "STATE", "ADDRESS", "VOLUME", "LAST OPENED (UTC)"), rows)
    for seen in observations:
        if seen.error:
            printer.warn(f"{seen.name}: {seen.error}")
    _remind(printer, observations)


def _remind(printer: Printer, observations: list[Observation]) -> None:
    """What is kept and until when, and what may be shredded now."""
    for seen in observations:
        for care in cares(seen.profile.keys) if seen.profile and not seen.buried else ():
            printer.warn(f"{seen.name}: {care}")
        if seen.retention and seen.retention.is_over(today()):
            printer.note(
                f"{seen.name} was kept until {seen.retention.until} and may be shredded now: "
                f"mailbox shred {seen.name}"
            )
        elif seen.retention:
            kept = seen.retention
            printer.note(f"{seen.name} is kept until {kept.until}: {kept.because}")


def print_status(printer: Printer, house: House, seen: Observation) -> None:
    """One mailbox, closely."""
    channel = _channel(house, seen)
    known = seen.machine is not MachineState.UNKNOWN
    facts = observation_facts(seen) | {"channel": channel}
    facts["volume_plugged"] = seen.plugged if known else None
    if printer.as_json:
        printer.document(facts)
        return
    volume = seen.volume
    shown = {
        "name": seen.name,
        "state": seen.state,
        "address": facts["address"] or "-",
        "volume": f"{human_size(volume.allocated)} of {human_size(volume.size)}"
        if volume
        else "missing",
        "image": seen.image or "-",
        "last opened": seen.last_opened or "never",
    }
    if seen.retention:
        shown["kept until"] = f"{seen.retention.until}: {seen.retention.because}"
    if seen.error:
        shown["error"] = seen.error
    if channel:
        shown["channel"] = channel["state"]
        for forward in channel["forwards"]:
            shown[f"{forward['name']}:{forward['port']}"] = (
                f"{forward['open']} open, {forward['connections']} so far, "
                f"{human_size(forward['sent'])} sent, {human_size(forward['received'])} received"
                + (f", last error: {forward['last_error']}" if forward["last_error"] else "")
            )
    printer.fields(shown)


def _channel(house: House, seen: Observation) -> dict[str, Any] | None:
    if not seen.warden:
        return None
    from dataclasses import asdict

    try:
        return asdict(house.wardens.find(house.paths.control_socket(seen.name)).status())
    except MailboxError as error:
        return {"state": "lost", "reason": error.brief, "forwards": []}


def print_profile(printer: Printer, profile: Profile) -> None:
    """What is written down about a mailbox."""
    document = write_profile(profile)
    if printer.as_json:
        printer.document(document)
        return
    printer.fields(dict(_flat("", document)))


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            pair
            for key, inner in value.items()
            for pair in _flat(f"{prefix}.{key}" if prefix else key, inner)
        ]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [
            pair for index, item in enumerate(value) for pair in _flat(f"{prefix}[{index}]", item)
        ]
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(prefix, shown if len(shown) < 200 else f"({len(shown)} characters)")]


def print_log(printer: Printer, history: History) -> None:
    """The journal, oldest entry first; a broken chain is said."""
    if printer.as_json:
        entries = [vars(entry) for entry in history.entries]
        printer.document({"broken_at": history.broken_at, "entries": entries})
        return
    for entry in history.entries:
        facts = ", ".join(f"{key}={value}" for key, value in (entry.facts or {}).items())
        line = f"{entry.time}  {entry.verb:<8} {entry.event:<7} {entry.step:<10} {facts}"
        printer.line(line.rstrip())
    if history.broken_at is not None:
        printer.warn(f"The chain of this journal is broken at line {history.broken_at}.")
