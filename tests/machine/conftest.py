"""One customer's world for all tests that boot a machine: an emulated boot takes a minute."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.correspondent import Person
from demo.davserver import DavServer
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer
from demo.main import fill, image_folder, message_id, onboard_arguments, passwords, prove
from demo.proof import Proof
from demo.session import Ran, Session
from sandbox.model.names import parse_memory
from tests.host.conftest import need

NAME = "kunde-a"
SECRETS = ("volume-key", "mail-password", "openpgp-passphrase", "dav-password")
SUBJECT = "Vertraulich: Vertragsentwurf"


@dataclass
class World:
    """A session with one onboarded mailbox, its mail server and its correspondent."""

    session: Session
    server: MailServer
    customer: Person
    partner: Person
    canary: str
    letter: str
    paper: Path
    dav: DavServer
    begun: float  # s, Unix time

    def mailbox(self, *arguments: str, **options: object) -> Ran:
        """Run the command as a user would."""
        return self.session.mailbox(*arguments, **options)  # type: ignore[arg-type]

    def open(self) -> Ran:
        """Open the mailbox; an open one is left as it is."""
        return self.mailbox("open", NAME, "--headless", "--json")

    def inside(self, *command: str, root: bool = False, check: bool = False) -> Ran:
        """Run a command in the machine."""
        flags = ("--root",) if root else ()
        return self.mailbox("run", NAME, *flags, "--", *command, check=check)

    def python_inside(self, program: str, *, root: bool = False) -> str:
        """Run a Python program in the machine; returns what it prints."""
        flags = ("--root",) if root else ()
        command = ("run", NAME, *flags, "--", "python3", "-")
        return self.mailbox(*command, input=program.encode()).text.strip()

    @property
    def volume(self) -> Path:
        """The volume's file on this computer."""
        return self.session.home / "data" / "volumes" / f"{NAME}.luks"

    @property
    def warm_state(self) -> Path:
        """The warm state of the image that opens begin with."""
        newest = json.loads(self.mailbox("image", "list", "--json").stdout)
        found = next(each for each in newest if each["client"] == "thunderbird")
        profile = json.loads(self.mailbox("show", NAME, "--json").stdout)["machine"]
        memory = parse_memory(profile["memory"])
        return Path(found["folder"]) / f"warm-{memory}-{profile['cpus']}.state"

    @property
    def secrets(self) -> list[bytes]:
        """The mailbox's secrets, read from the keyring in a process that has the session."""
        identity = json.loads(self.mailbox("show", NAME, "--json").stdout)["id"]
        program = (
            "import keyring, sys; "
            "[print(keyring.get_password('mailbox', line.strip())) for line in sys.stdin]"
        )
        items = "".join(f"{identity}/{kind}\n" for kind in SECRETS)
        found = self.session.run([sys.executable, "-c", program], input=items.encode())
        secrets = found.stdout.split()
        assert len(secrets) == len(SECRETS) and b"None" not in secrets, "the keyring lost a secret"
        return secrets

    @property
    def servers(self) -> tuple[Path, ...]:
        """What is the servers' and the people's own; the recovery code's paper is there, too."""
        homes = (self.customer.home, self.partner.home)
        return (self.server.folder, self.dav.folder, *homes)

    @property
    def proof(self) -> Proof:
        """Questions to the Thunderbird in the machine."""
        return prove(self.session, NAME)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need("mmdebstrap", "dovecot")
    begun = time.time()
    root = tmp_path_factory.mktemp("world")
    with ExitStack() as stack:
        session = stack.enter_context(Session(root, images=image_folder()))
        server = stack.enter_context(MailServer())
        dav = stack.enter_context(DavServer(server.credentials))
        fill(dav)
        home = Path(session.env["GNUPGHOME"])
        customer = stack.enter_context(Person("Anna Kundin", CUSTOMER, home=home))
        partner = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
        partner.learn(customer.public_key(), certify=True)
        customer.learn(partner.public_key())
        canary = f"canary-{secrets.token_hex(8)}"
        letter = partner.letter(customer, SUBJECT, f"Der Entwurf: {canary}\n")
        paper = server.folder / "recovery-code"
        letter_id = message_id(letter)
        world = World(session, server, customer, partner, canary, letter_id, paper, dav, begun)
        stack.callback(lambda: session.mailbox("close", "--all", check=False))
        # No other machine beside those that are looked at, unless a test wants one.
        settings = session.home / "config" / "config.toml"
        settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.write_text("[images]\nwarm_in_background = false\n")
        session.mailbox("image", "build")
        server.deliver(letter, CUSTOMER)
        arguments = onboard_arguments(server, customer, partner, paper=paper, dav=dav)
        session.mailbox("onboard", NAME, *arguments, input=passwords(server, dav))
        # Once, here: where no machine starts, every test says so at once.
        world.open()
        yield world


@pytest.fixture
def opened(world: World) -> World:
    """The world with its mailbox open."""
    world.open()
    return world
