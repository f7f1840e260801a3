"""Where a profile's private key lives, and what its machine may do with one on the host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

_RULE = re.compile(r"allow for ([1-9][0-9]{0,3}) minutes?\Z")
# One mail is opened with several operations; a yes counts for all of them.
ONE_ANSWER_S = 30.0


class Where(StrEnum):
    """On the encrypted volume, or in the profile's GnuPG on the host."""

    GUEST = "guest"
    HOST = "host"


class HeldBy(StrEnum):
    """Whose GnuPG on the host has the private key: the mailbox's own key ring, or the user's."""

    MAILBOX = "mailbox"
    USER = "user"


@dataclass(frozen=True)
class Rule:
    """What happens before an operation: nothing, or a question whose yes lasts `minutes`."""

    ask: bool = False
    minutes: int = 0

    def __str__(self) -> str:
        if not self.ask:
            return "allow"
        return f"allow for {self.minutes} minutes" if self.minutes else "ask"

    @property
    def lasts_s(self) -> float:
        """How long a yes counts, in seconds."""
        return max(ONE_ANSWER_S, 60.0 * self.minutes)


def parse_rule(text: str) -> Rule:
    """A rule: `allow`, `ask`, or `allow for N minutes` after a yes; ValueError if it is none."""
    if text in ("allow", "ask"):
        return Rule(ask=text == "ask")
    match = _RULE.match(text)
    if not match:
        raise ValueError(f"{text!r} is not allow, ask or `allow for N minutes`")
    return Rule(ask=True, minutes=int(match[1]))


@dataclass(frozen=True)
class Custody:
    """The custody of a profile's key; the rules matter only for a key on the host."""

    where: Where = Where.GUEST
    decrypt: Rule = field(default_factory=Rule)
    sign: Rule = field(default_factory=Rule)
    holder: HeldBy = HeldBy.MAILBOX

    def problem(self) -> str | None:
        """Why this cannot be; None when it can."""
        if self.holder is HeldBy.USER and self.where is not Where.HOST:
            return "is user, which needs a custody of host"
        return None

    def rule(self, operation: str) -> Rule:
        """The rule of an operation, `decrypt` or `sign`."""
        return self.sign if operation == "sign" else self.decrypt


class Grants:
    """Which answers still count; times are seconds of a clock that never goes back."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._until: dict[str, float] = {}
        self._denied_until: dict[str, float] = {}
        self._declined_until: dict[str, float] = {}

    def decide(self, operation: str, now: float) -> bool | None:
        """True and False as the user said, None when he has to be asked."""
        if now < self._declined_until.get(operation, 0.0):
            return False
        if not self._custody.rule(operation).ask or now < self._until.get(operation, 0.0):
            return True
        return False if now < self._denied_until.get(operation, 0.0) else None

    def answer(self, operation: str, *, yes: bool, now: float) -> None:
        """Note an answer: a yes lasts as its rule says, a no for one mail."""
        if yes:
            self._until[operation] = now + self._custody.rule(operation).lasts_s
        else:
            self._denied_until[operation] = now + ONE_ANSWER_S

    def decline(self, operation: str, now: float) -> None:
        """Note that the user did not unlock the key: a no for one mail, whatever the rule."""
        self._declined_until[operation] = now + ONE_ANSWER_S

    def allow(self, seconds: float, now: float) -> None:
        """Allow everything for a while, as a user said beforehand."""
        for operation in ("decrypt", "sign"):
            self._until[operation] = now + seconds
            self._denied_until.pop(operation, None)
            self._declined_until.pop(operation, None)


class Rate:
    """A bucket of operations: `most` at once, refilled by `per_second`."""

    def __init__(self, most: int, per_second: float) -> None:
        self._most = float(most)
        self._per_second = per_second
        self._left = float(most)
        self._last = 0.0

    def take(self, now: float) -> bool:
        """Whether one more operation fits."""
        self._left = min(self._most, self._left + max(0.0, now - self._last) * self._per_second)
        self._last = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
