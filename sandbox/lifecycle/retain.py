"""`retain`: a mailbox whose contract ended and whose mail must be kept: closed until its day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sandbox.lifecycle.close import close_locked, is_closed
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.kept import discard
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.state.retentions import Retention, today

STEPS = (
    Step("close", "Closing the machine", "nobody uses the mailbox from here on"),
    Step("seal", "Noting until when it is kept", "open and shred refuse until that day"),
)


def plan_retain(name: str, retention: Retention) -> Plan:
    """The steps of a retention."""
    facts = {
        "profile_id": retention.profile_id,
        "until": retention.until.isoformat(),
        "because": retention.because,
    }
    return Plan("retain", name, STEPS, facts)


def retain(house: House, name: str, until: date, because: str, day: date | None = None) -> Result:
    """Close the mailbox for use and keep it until a day; a longer retention replaces a shorter."""
    if until <= (day or today()):
        raise InvalidInputError("The input", [f"--until: {until} is not after today"])
    known = settle_name(house, name)
    with house.locked(known, "retain"):
        settle(house, known)
        profile = house.records.load(known)
        before = kept(house, known, str(profile.id))
        if before and before.until > until:
            raise _shorter(known, before)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        retention = Retention(str(profile.id), until, because, since)
        retain_locked(house, known, retention)
    summary = f"{known} is closed and kept until {until}."
    return Result("retain", known, summary, {"until": str(until), "because": because})


def retain_locked(house: House, name: str, retention: Retention) -> None:
    """Run the steps under a lock that the caller holds; each can be repeated."""

    def close() -> None:
        seen = observe(house, name)
        if not is_closed(house, seen):
            close_locked(house, seen)
        if seen.remains:
            discard(house, name)

    def seal() -> dict[str, Any]:
        house.records.retentions.keep(name, retention)
        volume = house.paths.volume(name)
        # What it was when it was sealed; `mailbox log` tells it later.
        return dict(house.remains.describe(volume)) | {"volume": volume.exists()}

    effects = {"close": close, "seal": seal}
    run(plan_retain(name, retention), effects, house.journal(name), house.progress)


def resume(house: House, name: str, facts: dict[str, Any]) -> None:
    """Finish a retention that was killed, as the journal has it."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    until = date.fromisoformat(str(facts["until"]))
    because = str(facts.get("because", ""))
    retain_locked(house, name, Retention(str(facts["profile_id"]), until, because, since))


def kept(house: House, name: str, profile_id: str) -> Retention | None:
    """The retention of a profile; a damaged note counts as none only where it is replaced."""
    try:
        return house.records.retentions.of(name, profile_id)
    except MailboxError as error:
        house.progress.warn(error.brief)
        return None


def refuse_kept(house: House, name: str, profile_id: str) -> None:
    """Refuse to use a mailbox that is kept."""
    retention = house.records.retentions.of(name, profile_id)
    if retention:
        raise MailboxError(
            f"{name} is closed for use and kept until {retention.until}: {retention.because}.",
            resolution=f"`mailbox shred {name}`, or --due for all, ends it from that day on.",
            code="retained",
            exit_code=Exit.BUSY,
        )


def running(house: House, name: str, profile_id: str, day: date) -> Retention | None:
    """The retention that runs on this day; None when there is none or it is over."""
    retention = house.records.retentions.of(name, profile_id)
    return retention if retention and not retention.is_over(day) else None


def due(house: House, day: date) -> list[str]:
    """The mailboxes whose retention is over, and those whose shredding was begun and not ended."""
    begun = {
        path.stem
        for path in house.paths.journals.glob("*.jsonl")
        if (pending := house.journal(path.stem).read().pending()) and pending.verb == "shred"
    }
    over = {name for name in house.records.names() if _is_over(house, name, day)}
    return sorted(begun | over, key=str.casefold)


def _is_over(house: House, name: str, day: date) -> bool:
    try:
        retention = house.records.retentions.of(name, str(house.records.load(name).id))
    except MailboxError as error:
        # One that cannot be read is told, and hides no other.
        house.progress.warn(f"{name}: {error.brief}")
        return False
    return retention is not None and retention.is_over(day)


def too_early(name: str, retention: Retention) -> MailboxError:
    """The refusal of a shredding before its time."""
    return MailboxError(
        f"{name} is kept until {retention.until}: {retention.because}. Nothing was destroyed.",
        resolution="Wait for that day; or say why not with --override-retention TEXT, which goes "
        "on record.",
        code="retained",
        exit_code=Exit.BUSY,
    )


def _shorter(name: str, before: Retention) -> MailboxError:
    return MailboxError(
        f"{name} is kept until {before.until} already: {before.because}; that stays so.",
        resolution="A retention can be made longer. `mailbox shred --override-retention TEXT` ends "
        "it before its day.",
        code="retained",
        exit_code=Exit.BUSY,
    )
