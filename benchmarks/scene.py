"""What measurements with a real mailbox need: session, image, mail server, people, new mail."""

from __future__ import annotations

import email
import fcntl
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from demo.correspondent import Person
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

    def newest(self, text: str = "Hallo\n") -> str:
        """Deliver one more message; its Message-ID."""
        self._number += 1
        subject = f"Nachricht {self._number}"
        message = plain(self._partner.sender, self._customer.sender, subject, text)
        self._server.deliver(bytes(message), CUSTOMER)
        return str(email.message_from_bytes(bytes(message))["Message-ID"]).strip("<>")


@dataclass(frozen=True)
class Scene:
    """A session with an image, a mail server with mail, and two people who know each other."""

    session: Session
    server: MailServer
    customer: Person
    partner: Person
    post: Post

    @property
    def image(self) -> Path:
        """The folder of the image."""
        listed = json.loads(self.session.mailbox("image", "list", "--json").stdout)
        return Path(next(each["folder"] for each in listed if each["client"] == "thunderbird"))


@contextmanager
def prepared() -> Iterator[Scene]:
    """A scene of its own; nothing that was started is left, whatever happens."""
    with ExitStack() as stack:
        root = stack.enter_context(short_folder())
        session = stack.enter_context(Session(root, images=image_folder()))
        # A machine that nobody waits for would be measured, too.
        settings = session.home / "config" / "config.toml"
        settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.write_text("[images]\nwarm_in_background = false\n")
        say("building the mailbox's image, if it is not there")
        session.mailbox("image", "build", "thunderbird")
        server = stack.enter_context(MailServer())
        home = Path(session.env["GNUPGHOME"])
        customer = stack.enter_context(Person("Anna Kundin", CUSTOMER, home=home))
        partner = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
        customer.learn(partner.public_key())
        partner.learn(customer.public_key(), certify=True)
        post = Post(server, customer, partner)
        post.fill()
        stack.callback(session.mailbox, "close", "--all", "--shutdown", check=False)
        yield Scene(session, server, customer, partner, post)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder on a disk (/tmp may be memory) whose path leaves room for UNIX sockets."""
    folder = tempfile.TemporaryDirectory(prefix="mbb-", dir="/var/tmp", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


@contextmanager
def alone() -> Iterator[None]:
    """Two measurements at once would measure each other."""
    cache = root_folder()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (cache / "benchmark.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("Another measurement is running.") from None
        yield


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def run(measure: Callable[[], None], *failures: type[Exception]) -> int:
    """Measure as an ordinary user, by itself; the exit code."""
    if os.geteuid() == 0:
        say("Run it as an ordinary user: scripts/run python -m benchmarks")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    try:
        with alone():
            measure()
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    except (*failures, SessionError) as error:
        say(f"The measurement failed: {error}")
        return 1
    return 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
