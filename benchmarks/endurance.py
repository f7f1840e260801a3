"""Opening and suspending again and again, and everything that may change in between.

    python -m benchmarks.endurance [--opens 20] [--suspends 50] [--json FILE]

Each round delivers a message and looks whether Thunderbird shows it.  A failed round is told and
counted, the mailbox is closed, and the next round begins.  The exit status says whether all went
well.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import computer, question, scene
from benchmarks.mailbox import Mailbox, MailboxError, without_warm_state
from benchmarks.scene import Scene, say
from demo import traces
from demo.mailserver import CUSTOMER
from demo.main import message_id, prove
from demo.proof import ProofError
from demo.session import SessionError

MAIL_S = 240.0
HOUR_S = 3600
CLOCK_S = 5.0


class WrongError(Exception):
    """Something that should be so is not."""


@dataclass
class Round:
    """One round: what was done, how long it took, what went wrong."""

    kind: str
    number: int
    seconds: dict[str, float] = field(default_factory=dict)
    told: str = ""
    failure: str = ""


class Endurance:
    """All rounds on one mailbox; a second one where two are wanted."""

    def __init__(self, made: Scene) -> None:
        self.rounds: list[Round] = []
        self._made = made
        self._mailbox = Mailbox(made)
        self._canary = f"canary-{secrets.token_hex(8)}"
        self._begun = time.time()

    def opens(self, count: int) -> None:
        """New machines, from the warm state and with a boot by turns."""
        self._mailbox.renew()
        for number in range(1, count + 1):
            warm = number % 2 == 1
            with self._round("open from the warm state" if warm else "open with a boot", number):
                self._open_anew(warm)

    def _open_anew(self, warm: bool) -> None:
        newest = self._made.post.newest()
        if warm:
            facts = self._timed("open", self._mailbox.open)
        else:
            with without_warm_state(self._made.image):
                facts = self._timed("open", self._mailbox.open)
        require(facts["warm"] == warm, f"warm: {facts['warm']} ({facts['cold_reason']})")
        self._shows(newest)
        self._timed("close", self._mailbox.shut)

    def suspends(self, count: int) -> None:
        """One machine that is suspended and goes on, with a message in between."""
        self._mailbox.open()
        for number in range(1, count + 1):
            with self._round("suspend and go on", number):
                self._there_and_back()

    def _there_and_back(self, change: Callable[[], None] = lambda: None) -> None:
        """Suspend, change something, let a message arrive, go on."""
        self._mailbox.open()  # which a failed round may have left closed
        self._timed("suspend", self._mailbox.suspend)
        change()
        newest = self._made.post.newest()
        facts = self._timed("go on", self._mailbox.open)
        require(facts["resumed"], "it did not go on where it was")
        self._shows(newest)

    def changes(self) -> None:
        """What may be different when a machine goes on."""
        with self._round("the server has another certificate", 1):
            self._there_and_back(self._made.server.renew_certificate)
        with self._round("an hour has passed", 1):
            self._an_hour_later()
        with self._round("the server has moved", 1):
            self._moved()
        with self._round("two at once", 1):
            self._two_at_once()
        with self._round("nothing in plain", 1):
            self._nothing_in_plain()

    def _an_hour_later(self) -> None:
        """The machine's clock is put back by an hour before it is suspended."""
        back = f"import time; time.clock_settime(time.CLOCK_REALTIME, time.time() - {HOUR_S})"
        self._mailbox.open()
        self._mailbox.run(back.encode(), root=True)
        before = self._clock_is_off()
        require(abs(before + HOUR_S) < 60, f"the clock was not put back: {before:.0f} s")
        self._there_and_back()
        after = self._clock_is_off()
        require(abs(after) < CLOCK_S, f"the clock is wrong by {after:.0f} s")
        self.rounds[-1].told = f"the clock was off by {before:.0f} s, then by {after:.1f} s"

    def _clock_is_off(self) -> float:
        """How far the machine's clock is ahead, in seconds."""
        inside = float(self._mailbox.run(b"import time; print(time.time())"))
        return inside - time.time()

    def _moved(self) -> None:
        """The profile is changed accordingly; a new machine is started, and says why."""
        self._mailbox.open()
        self._mailbox.suspend()
        old = self._made.server.ports
        self._made.server.move()
        new = self._made.server.ports
        script = (
            f"s/127.0.0.1:{old.imaps}/127.0.0.1:{new.imaps}/;"
            f"s/127.0.0.1:{old.submissions}/127.0.0.1:{new.submissions}/"
        )
        self._edit(script)
        newest = self._made.post.newest()
        ran = self._made.session.mailbox("open", self._mailbox.name, "--headless", "--json")
        require(not json.loads(ran.stdout)["facts"]["resumed"], "an unfit machine went on")
        require("its profile was changed" in ran.stderr, "the reason was not said")
        self._shows(newest)
        self.rounds[-1].told = "the profile was edited; a new machine shows the mail"

    def _edit(self, script: str) -> None:
        env = self._made.session.env
        env["EDITOR"] = env["VISUAL"] = f"sed -i {script}"
        self._made.session.mailbox("edit", self._mailbox.name)

    def _two_at_once(self) -> None:
        """Both are suspended, and both go on at the same moment."""
        both = [self._mailbox, Mailbox(self._made, "second")]
        both[1].renew()
        for each in both:
            each.open()
            each.suspend()
        newest, failures = self._made.post.newest(), []

        def go_on(mailbox: Mailbox) -> None:
            try:
                require(mailbox.open()["resumed"], f"{mailbox.name} did not go on")
                shows(mailbox, newest)
            except (SessionError, WrongError, ValueError) as error:
                failures.append(str(error))

        threads = [threading.Thread(target=go_on, args=(each,)) for each in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        both[1].shut()
        both[1].remove()
        require(not failures, "; ".join(failures))

    def _nothing_in_plain(self) -> None:
        """A decrypted message was on the screen; no file of this computer holds it."""
        made = self._made
        letter = made.partner.letter(made.customer, "Vertraulich", f"{self._canary}\n")
        made.server.deliver(letter, CUSTOMER)
        self._mailbox.open()
        shown = prove(made.session, self._mailbox.name).open(
            message_id=message_id(letter), expect={"encrypted": "ok"}
        )
        require(self._canary in shown.body, "the message was not decrypted")
        del shown
        self._mailbox.suspend()
        states = list((made.session.home / "data" / "states").glob("*.luks"))
        require(len(states) == 1, f"{len(states)} suspended states")
        needles = [self._canary.encode()]
        readable = traces.held(states[0], [*needles, b"LibvirtQemudSave"])
        require(not readable, "the state is readable")
        searched = traces.changed(self._begun)
        found = [str(each) for each in searched if traces.held(each, needles)]
        require(searched and not found, f"the message is in plain in {found}")
        require(self._mailbox.open()["resumed"], "it did not go on")
        told = f"{len(searched)} files that were changed since the begin, and the state"
        self.rounds[-1].told = told

    def _shows(self, newest: str) -> None:
        begun = time.monotonic()
        shows(self._mailbox, newest)
        self.rounds[-1].seconds["mail shown"] = round(time.monotonic() - begun, 2)

    def _timed(self, name: str, action: Callable[[], object]) -> dict[str, object]:
        begun = time.monotonic()
        found = action()
        self.rounds[-1].seconds[name] = round(time.monotonic() - begun, 2)
        return found if isinstance(found, dict) else {}

    def _round(self, kind: str, number: int) -> _Counting:
        self.rounds.append(Round(kind, number))
        return _Counting(self.rounds[-1], self._mailbox)


class _Counting:
    """Around one round: says how it went; a failure is noted and the mailbox closed."""

    def __init__(self, one: Round, mailbox: Mailbox) -> None:
        self._round = one
        self._mailbox = mailbox

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> bool:
        failed = isinstance(error, SessionError | WrongError | MailboxError | ProofError)
        if failed:
            self._round.failure = str(error)
            with suppress(SessionError):
                self._mailbox.shut()
        told = ", ".join(f"{name} {value:.1f} s" for name, value in self._round.seconds.items())
        words = self._round.failure and f"FAILED: {self._round.failure}"
        say(f"{self._round.kind} {self._round.number}: {words or told or self._round.told}")
        return failed


def require(truth: object, otherwise: str) -> None:
    """Raise WrongError unless it is true."""
    if not truth:
        raise WrongError(otherwise)


def shows(mailbox: Mailbox, newest: str) -> None:
    """Wait until Thunderbird's inbox has the message."""
    answer = mailbox.run(question.program(["inbox"], newest, deadline_s=MAIL_S))
    require(json.loads(answer)["question"] == "inbox", f"Thunderbird did not answer: {answer}")


def report(rounds: Sequence[Round]) -> str:
    """Counts and times by kind."""
    lines = ["", "What was done, how often, and how long it took (median, ends in s):"]
    for kind in dict.fromkeys(one.kind for one in rounds):
        same = [one for one in rounds if one.kind == kind]
        good = sum(not one.failure for one in same)
        lines.append(f"  {kind}: {good} of {len(same)} without a failure")
        for name in dict.fromkeys(name for one in same for name in one.seconds):
            values = [one.seconds[name] for one in same if name in one.seconds]
            middle, ends = statistics.median(values), (min(values), max(values))
            lines.append(f"    {name}: {middle:.1f} ({ends[0]:.1f} to {ends[1]:.1f})")
        lines += [f"    {one.told}" for one in same if one.told]
        lines += [f"    round {one.number}: {one.failure}" for one in same if one.failure]
    return "\n".join(lines)


def main() -> int:
    """Do everything, and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--opens", type=int, default=20, help="new machines (default 20)")
    parser.add_argument("--suspends", type=int, default=50, help="rounds (default 50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to FILE")
    said = parser.parse_args()
    rounds: list[Round] = []

    def measure() -> None:
        with scene.prepared() as made:
            proof = Endurance(made)
            try:
                proof.opens(said.opens)
                proof.suspends(said.suspends)
                proof.changes()
            finally:
                rounds.extend(proof.rounds)
                print(report(rounds))

    status = scene.run(measure, MailboxError, WrongError, ProofError)
    if said.json is not None:
        document = {"computer": computer.facts(), "rounds": [asdict(one) for one in rounds]}
        said.json.write_text(json.dumps(document, indent=2) + "\n")
    return status or int(any(one.failure for one in rounds))


if __name__ == "__main__":
    raise SystemExit(main())
