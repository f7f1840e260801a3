"""Is a mailbox put away before this computer sleeps, and is there time for it."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.host.probes.finding import Verdict, ok, problem, warning

_STAYS = "Open mailboxes stay open while this computer sleeps, with their keys in its memory"
_BY_HAND = "mailbox close --all before a sleep"
_SETTING = "/etc/systemd/logind.conf.d/mailbox.conf"


@dataclass(frozen=True)
class SleepFacts:
    """What is wished (or what is wrong with the settings), and seconds.

    `delay_s`: how long logind lets a sleep be delayed, None without logind; `took_s`: the slowest
    of the last times that a mailbox was put away, None before the first.
    """

    wish: str
    mistake: str = ""
    delay_s: float | None = None
    took_s: float | None = None


def judge_sleep(facts: SleepFacts) -> Verdict:
    """Whether the wish can come true."""
    if facts.mistake:
        return problem(f"The settings cannot be read: {facts.mistake}", "Mend config.toml")
    if facts.wish == "leave":
        return warning(_STAYS, f'open_mailboxes = "suspend" in config.toml; or {_BY_HAND}')
    if facts.delay_s is None:
        return warning(f"systemd-logind does not answer. {_STAYS}", _BY_HAND)
    waits = f"logind delays a sleep by {facts.delay_s:g} s at the most"
    if facts.took_s is None:
        return ok(f"Open mailboxes are put away before a sleep ({facts.wish}); {waits}")
    took = f"putting a mailbox away took up to {facts.took_s:.0f} s lately"
    if facts.took_s < facts.delay_s:
        return ok(f"Open mailboxes are put away before a sleep ({facts.wish}); {waits}, {took}")
    wanted = int(facts.took_s * 2) + 1
    return warning(
        f"{waits}, and {took}. {_STAYS} when that is too short; they are put away after it",
        f"[Login] and InhibitDelayMaxSec={wanted} in {_SETTING}, then: "
        "sudo systemctl reload systemd-logind",
    )
