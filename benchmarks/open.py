"""How long `mailbox open` takes, beside an ordinary Debian desktop machine on the same computer.

    python -m benchmarks.open [--rounds N] [--json FILE]

Run as an ordinary user.  README.md says what is measured and why the comparison is fair.
"""

from __future__ import annotations

import argparse
import email
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from benchmarks import computer, report
from benchmarks.mailbox import Mailbox, MailboxError
from benchmarks.samples import Sample
from benchmarks.stock import Hardware, StockMachine, short_folder, stock_machine
from benchmarks.stockimage import StockError, build
from demo.correspondent import Person
from demo.desired import desired_state
from demo.letters import ordinary, plain
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer
from demo.main import image_folder, root_folder
from demo.session import Session, SessionError

_SECRET = "Vertraulich"


class Post:
    """Delivers mail; before each start a new message, so that an old inbox never counts."""

    def __init__(self, server: MailServer, customer: Person, partner: Person) -> None:
        self._server = server
        self._customer = customer
        self._partner = partner
        self._number = 0

    def fill(self) -> None:
        """An inbox as in the demonstration: ordinary mail and an encrypted message."""
        letters = ordinary(self._partner.sender, self._customer.sender)
        letters.append(self._partner.letter(self._customer, _SECRET, "Der Entwurf.\n"))
        for letter in letters:
            self._server.deliver(letter, CUSTOMER)

    def newest(self) -> str:
        """Deliver one more message; its Message-ID."""
        self._number += 1
        message = plain(
            self._partner.sender, self._customer.sender, f"Nachricht {self._number}", "Hallo\n"
        )
        self._server.deliver(bytes(message), CUSTOMER)
        return str(email.message_from_bytes(bytes(message))["Message-ID"]).strip("<>")


class Benchmark:
    """One run: rounds of a first open, a later one, a resume, and a start of the stock machine."""

    def __init__(self, mailbox: Mailbox, post: Post) -> None:
        self.samples: list[Sample] = []
        self._mailbox = mailbox
        self._post = post

    def rounds(self, count: int, stock: StockMachine | None) -> None:
        """The sides take turns, so that another load on this computer meets both."""
        for number in range(1, count + 1):
            self._mailbox.renew()
            for kind in ("first open", "later open"):
                self._add(self._mailbox.measure(kind, number, self._post.newest()))
            self._add(self._mailbox.measure_suspended(number, self._post.newest))
            if stock is not None:
                self._add(stock.measure(number, self._post.newest()))

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        seconds = sample.seconds[report.END]
        say(f"round {sample.round}: {sample.side}, {sample.kind}: {seconds:.1f} s to the inbox")
        for warning in sample.warnings:
            say(f"  warning: {warning}")


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def run(rounds: int, *, with_stock: bool) -> tuple[list[Sample], Hardware]:
    """All measurements; nothing that was started is left, whatever happens."""
    cache = root_folder()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_alone(cache))
        image = build(cache, say) if with_stock else None
        root = stack.enter_context(short_folder())
        session = stack.enter_context(Session(root, images=image_folder()))
        say("building the mailbox's image, if it is not there")
        session.mailbox("image", "build", "thunderbird")
        server = stack.enter_context(MailServer())
        customer, partner = _people(stack, Path(session.env["GNUPGHOME"]))
        post = Post(server, customer, partner)
        post.fill()
        mailbox = Mailbox(session, server, customer, partner)
        stack.callback(session.mailbox, "close", "--all", check=False)
        mailbox.renew()
        say("opening once to learn what its machine has")
        hardware = mailbox.learn_hardware()
        stock = None
        if image is not None:
            stock = stack.enter_context(stock_machine(image, hardware))
            say("setting the account up in the stock machine")
            stock.set_up(desired_state(server, customer, (partner,)), post.newest())
        benchmark = Benchmark(mailbox, post)
        benchmark.rounds(rounds, stock)
    return benchmark.samples, hardware


def _people(stack: ExitStack, home: Path) -> tuple[Person, Person]:
    """The customer, with the user's own GnuPG, and a correspondent; each knows the other."""
    customer = stack.enter_context(Person("Anna Kundin", CUSTOMER, home=home))
    partner = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
    customer.learn(partner.public_key())
    partner.learn(customer.public_key(), certify=True)
    return customer, partner


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Two measurements at once would measure each other."""
    with (cache / "benchmark.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("Another measurement is running.") from None
        yield


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--without-stock", action="store_true", help="measure the mailbox alone")
    return parser.parse_args(argv)


def main() -> int:
    """Measure and print."""
    wanted = arguments()
    if os.geteuid() == 0:
        say("Run it as an ordinary user: scripts/run python -m benchmarks.open")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    try:
        samples, hardware = run(wanted.rounds, with_stock=not wanted.without_stock)
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    except (MailboxError, StockError, SessionError) as error:
        say(f"The measurement failed: {error}")
        return 1
    machine = {f"machine {name}": str(value) for name, value in asdict(hardware).items()}
    facts = computer.facts() | machine
    for name, value in facts.items():
        print(f"{name + ':':<21} {value}")
    print("\n" + report.table(samples))
    if wanted.json is not None:
        report.write(wanted.json, facts, samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
