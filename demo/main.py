"""`make demo`: the main job from end to end, with real parts, and a report of what was proven.

KEEP=1 leaves the mailbox open and says how to look at it; CLIENT=evolution takes Evolution, and
CUSTODY=host leaves the private key on this computer.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from getpass import getuser
from pathlib import Path

from demo import leftovers
from demo.correspondent import Person, Reading
from demo.davserver import CALENDAR, HOST, LOGIN, DavServer, DavServerError
from demo.letters import ordinary
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer, MailServerError
from demo.proof import Composed, Facts, Proof, ProofError, Shown, elsewhere
from demo.session import Session, SessionError, find_bytes
from sandbox.host.storage import suspend_problem

NAME = "demo"
OPENING = "Open the mailbox"
CONTRACT = """
[contract]
controller = "Kunde GmbH, Köln"
processor = "Büro für Beratung, Łódź"
reference = "AV-Vertrag 2026/4"
"""
IMAP, SMTP = "imap.kunde.test", "smtp.kunde.test"
EVENT, CONTACT = "Übergabe beim Kunden", "Bert Partner <bert@partner.test>"
TEMPLATES = {"thunderbird": "default", "evolution": "evolution"}
CUSTODIES = ("guest", "host")


# Every place in a machine where a mail client would keep a private key.
SECRETS = (
    "find / -xdev -name '*.key' -path '*private-keys*' 2>/dev/null;"
    "find /home /run -name '*.key' -path '*private-keys*' 2>/dev/null;"
    "find /home /run -name secring.gpg -size +0 2>/dev/null;"
    "grep -rlE 'PGP PRIVATE KEY|protected-private-key' /home /run 2>/dev/null; true"
)


class DemoError(Exception):
    """Something that the demonstration claims is not true."""


@dataclass
class Report:
    """What was proven, and how long each step took."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Time a step; the body appends what it proved."""
        print(f"== {title}", flush=True)
        begun = time.monotonic()
        proven: list[str] = []
        yield proven
        self.rows.append((title, time.monotonic() - begun, "; ".join(proven)))
        print(f"   {self.rows[-1][1]:.1f} s: {self.rows[-1][2]}", flush=True)

    def seconds(self, title: str) -> float:
        """How long a step took, the last one of that title."""
        return next(seconds for done, seconds, _ in reversed(self.rows) if done == title)

    def print(self) -> None:
        """The short report at the end."""
        print("\nWhat was proven:")
        for title, seconds, proven in self.rows:
            print(f"  {seconds:7.1f} s  {title}")
            print(f"             {proven}")


def root_folder() -> Path:
    """Where the demonstration keeps its image between runs, and everything else during one."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("DEMO_HOME") or Path(cache) / "mailbox-demo")


def image_folder() -> Path:
    """The images that demonstration and tests share."""
    return root_folder() / "images"


def onboard_arguments(
    server: MailServer,
    customer: Person,
    partner: Person,
    *,
    paper: Path | None = None,
    client: str = "thunderbird",
    dav: DavServer | None = None,
    custody: str = "guest",
) -> list[str]:
    """The flags of `mailbox onboard` for the demonstration's customer; see `passwords`.

    The recovery code is written down on `paper`, a new file; without one, none is made.
    """
    authority = server.folder / "ca-for-mailbox.pem"
    authority.write_text(server.authority)
    return [
        *("--address", CUSTOMER, "--display-name", "Anna Kundin"),
        *("--imap", IMAP, "--smtp", SMTP, "--ca", str(authority)),
        *("--connect-to", f"{IMAP}:993:127.0.0.1:{server.ports.imaps}"),
        *("--connect-to", f"{SMTP}:465:127.0.0.1:{server.ports.submissions}"),
        *("--key", customer.fingerprint, "--correspondent", partner.fingerprint),
        *("--colour", "green", "--size", "2G", "--signature", "Anna Kundin, Kunde GmbH"),
        *("--template", TEMPLATES[client], "--password-stdin", "--marionette"),
        *("--custody", custody),
        *(("--recovery-code-to", str(paper)) if paper else ("--no-recovery-code",)),
        *(collection_arguments(dav) if dav else ()),
    ]


def collection_arguments(dav: DavServer) -> list[str]:
    """The flags for the customer's calendar and address book: their server knows where they are."""
    return [
        *("--caldav", HOST, "--carddav", HOST, "--dav-login", LOGIN, "--dav-password-stdin"),
        *("--connect-to", f"{HOST}:443:127.0.0.1:{dav.port}"),
    ]


def passwords(server: MailServer, dav: DavServer | None = None) -> bytes:
    """What `mailbox onboard` reads from its standard input."""
    words = [server.password(CUSTOMER), *([dav.password] if dav else [])]
    return "".join(f"{word}\n" for word in words).encode()


def fill(dav: DavServer) -> None:
    """What the customer's other devices have put on the server."""
    dav.add_event("uebergabe", EVENT)
    dav.add_contact("bert", *CONTACT.rstrip(">").split(" <"))


def prove(session: Session, name: str = NAME, *, client: str = "thunderbird") -> Proof:
    """Questions to the mail client in a mailbox's machine, asked through the channel."""

    def run(program: bytes) -> bytes:
        ran = session.mailbox("run", name, "--", "python3", "-", input=program, check=False)
        if not ran.stdout.strip():
            raise ProofError(f"no answer from inside ({ran.returncode}): {ran.stderr[-500:]}")
        return ran.stdout

    return elsewhere(run, client, deadline_s=240)


def message_id(message: bytes) -> str:
    """The Message-ID of a message, without its angle brackets (RFC 5322)."""
    return str(message_from_bytes(message)["Message-ID"]).strip("<> ")


def require(truth: object, claim: str) -> str:
    """The claim, when it is true."""
    if not truth:
        raise DemoError(f"not true: {claim}")
    return claim


class Demo:
    """One run of the demonstration."""

    def __init__(
        self,
        session: Session,
        server: MailServer,
        customer: Person,
        partner: Person,
        dav: DavServer,
        *,
        client: str = "thunderbird",
        custody: str = "guest",
    ) -> None:
        self.session = session
        self.dav = dav
        self.client = client
        self.custody = custody
        self.server = server
        self.customer = customer
        self.partner = partner
        self.report = Report()
        self.canary = f"canary-{secrets.token_hex(8)}"
        self.subject = "Vertraulich: Vertragsentwurf"
        # Until it is decrypted, its protected subject cannot name the message.
        self.letter = partner.letter(customer, self.subject, self._text())
        self.letter_id = message_id(self.letter)
        self.screenshot = session.root / "screenshot.png"
        self.certificate = session.root / "certificate.pdf"

    def deliver(self) -> None:
        """Put ordinary mail and one signed and encrypted message into the inbox."""
        for message in ordinary(self.partner.sender, self.customer.sender):
            self.server.deliver(message, CUSTOMER)
        self.server.deliver(self.letter, CUSTOMER)

    def _text(self) -> str:
        return f"Sehr geehrte Frau Kundin,\n\nder Entwurf: {self.canary}\n\nBert\n"

    def build_image(self) -> None:
        with self.report.step("Build the guest image (once)") as proven:
            self.session.mailbox("image", "build", self.client, stderr=None)  # type: ignore[arg-type]
            proven.append(self.session.mailbox("image", "verify").text.strip())

    def clean_up_earlier(self) -> None:
        listed = json.loads(self.session.mailbox("list", "--json").stdout)
        for name in (entry["name"] for entry in listed):
            self.session.mailbox("shred", name, "--yes")

    def onboard(self) -> None:
        with self.report.step("Onboard the customer") as proven:
            paper = self.server.folder / "recovery-code"
            people = (self.customer, self.partner)
            arguments = onboard_arguments(
                self.server,
                *people,
                paper=paper,
                client=self.client,
                custody=self.custody,
                dav=self.dav,
            )
            words = passwords(self.server, self.dav)
            self.session.mailbox("onboard", NAME, "--reuse-name", *arguments, input=words)
            proven.append("logins and certificates checked, keys taken, volume made")
            shown = json.loads(self.session.mailbox("show", NAME, "--json").stdout)["account"]
            urls = [each["url"] for each in (*shown["calendars"], *shown["address_books"])]
            found = urls == [self.dav.calendar, self.dav.address_book]
            proven.append(require(found, "calendar and address book found on their server"))
            groups = paper.read_text().strip().split("-")
            proven.append(require(len(groups) == 7, "the recovery code is on paper"))

    def open(self, title: str) -> None:
        with self.report.step(title) as proven:
            ran = self.session.mailbox("open", NAME, "--headless", "--json", stderr=None)  # type: ignore[arg-type]
            seconds = json.loads(ran.stdout)["facts"]["seconds"]
            slowest = ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items())
            proven.append(f"the mail client is ready ({slowest})")

    def read(self) -> Shown:
        proof = prove(self.session, client=self.client)
        with self.report.step(
            "Read the encrypted message in " + self.client.capitalize()
        ) as proven:
            facts = proof.facts(messages=4)
            proven.append(require(_has_account(facts), "the account is there"))
            proven.append(require(not facts.offline, "the inbox is synchronised"))
            shown = proof.open(
                message_id=self.letter_id,
                expect={"encrypted": "ok", "signed": "verified"},
                text=self.canary,
            )
            proven.append(require(shown.encrypted == "ok", "the message is decrypted"))
            proven.append(require(self.canary in shown.body, "its plaintext is shown"))
            if self.client == "thunderbird":  # Evolution shows the outer subject
                proven.append(require(shown.subject == self.subject, "its protected subject, too"))
            proven.append(require(shown.signed == "verified", "its signature is good and accepted"))
            proven.append(require(not proof.dialogs(), "no dialog lies over the window"))
        self.take_screenshot()
        return shown

    def take_screenshot(self) -> None:
        with self.report.step("Take a screenshot") as proven:
            taken = self.session.root / "taken.png"
            self.session.mailbox("screenshot", NAME, str(taken))
            # Shredding takes the screenshots that `mailbox` made, too; this copy stays.
            shutil.copy(taken, self.screenshot)
            proven.append(str(self.screenshot))

    def answer(self) -> None:
        answer = f"reply-{secrets.token_hex(6)}"
        with self.report.step("Reply, signed and encrypted") as proven:
            composed: Composed = prove(self.session, client=self.client).reply(
                f"Danke! {answer}", message_id=self.letter_id, of=self.canary
            )
            default = composed.encrypt and composed.sign
            proven.append(require(default, "signed and encrypted without being asked to"))
            message = self.server.wait_for_messages(CORRESPONDENT, 1, deadline_s=120)[-1]
            reading: Reading = self.partner.read(message)
            proven.append(require(reading.decrypted, "the correspondent's GnuPG decrypts it"))
            proven.append(require(answer in reading.text, "it says what was written"))
            good = reading.signature == "good" and reading.signer == self.customer.fingerprint
            proven.append(require(good, "its signature is the customer's"))

    def plan(self) -> None:
        """Calendar and address book: what the server has, and what is made in the client."""
        made = f"Rückruf {secrets.token_hex(4)}"
        with self.report.step("Use calendar and address book") as proven:
            proof = prove(self.session, client=self.client)
            proof.collections(entries=(EVENT, CONTACT))
            proven.append("an event and a contact of the server are there")
            proof.collections(add_event={"calendar": "Termine", "summary": made}, entries=(made,))
            self.dav.wait_for(CALENDAR, made)
            proven.append("an event made in the client is on the server")
            proven.append(require(not proof.dialogs(), "nothing was asked"))

    def prove_keys(self) -> None:
        """The mail client's own word, and where the private key is."""
        with self.report.step("Let the mail client prove its keys") as proven:
            said = json.loads(self.session.mailbox("keys", "check", NAME, "--json").stdout)
            serve = [each["role"] for each in said if not each["problem"]]
            both = sorted(serve) == ["correspondent", "own"]
            claim = f"the own key and the correspondent's serve {'' if both else said}"
            proven.append(require(both, claim.strip()))
            found = self.session.mailbox("run", NAME, "--root", "--", "sh", "-c", SECRETS).text
            if self.custody == "host":
                proven.append(require(not found.split(), "no private key is in the machine"))
                uses = json.loads(self.session.mailbox("keys", "activity", NAME, "--json").stdout)
                done = {use["operation"] for use in uses if use["outcome"] == "done"}
                used = done == {"decrypt", "sign"}
                proven.append(require(used, "this computer decrypted and signed for it"))
            else:
                proven.append(require(found.split(), "the private key is on the volume"))

    def rest(self) -> None:
        """Put the machine away and let it go on: the time of that beside the first open's."""
        problem = suspend_problem()
        if problem:
            print(f"== Nothing is suspended here: {problem}", flush=True)
            return
        with self.report.step("Suspend it") as proven:
            done = self.session.mailbox("suspend", NAME, "--json", stderr=None)  # type: ignore[arg-type]
            size = json.loads(done.stdout)["facts"]["bytes"]
            proven.append(f"its memory is put away, encrypted ({size // 1000**2} MB)")
            left = find_bytes(self.session.folders, [self.canary.encode()])
            proven.append(require(not left, "no plaintext of the message on this computer"))
        with self.report.step("Open it where it was") as proven:
            ran = self.session.mailbox("open", NAME, "--headless", "--json", stderr=None)  # type: ignore[arg-type]
            facts = json.loads(ran.stdout)["facts"]
            proven.append(require(facts["resumed"], "the same machine goes on"))
            first = self.report.seconds(OPENING)
            proven.append(f"after {ran.seconds:.1f} s; the first open took {first:.1f} s")

    def close(self) -> None:
        with self.report.step("Close") as proven:
            self.session.mailbox("close", NAME)
            status = json.loads(self.session.mailbox("status", NAME, "--json").stdout)
            proven.append(require(status["machine"] == "closed", "no machine is left"))
            left = find_bytes(self.session.folders, [self.canary.encode()])
            proven.append(require(not left, "no plaintext of the message on this computer"))

    def look_again(self) -> None:
        with self.report.step("Look whether everything is still there") as proven:
            proof = prove(self.session, client=self.client)
            facts = proof.facts(messages=4)
            proven.append(require(_has_account(facts), "one account, the same"))
            shown = proof.open(
                message_id=self.letter_id,
                expect={"encrypted": "ok", "signed": "verified"},
                text=self.canary,
            )
            proven.append(require(self.canary in shown.body, "the message is readable as before"))

    def name_the_parties(self) -> None:
        """What a user writes into the profile's [contract] with `mailbox edit`."""
        editor = self.session.root / "editor"
        editor.write_text(f"#!/bin/sh\ncat >> \"$1\" <<'END'\n{CONTRACT}END\n")
        editor.chmod(0o700)
        self.session.env["EDITOR"] = self.session.env["VISUAL"] = str(editor)
        self.session.mailbox("edit", NAME)

    def shred(self) -> None:
        with self.report.step("Shred") as proven:
            order = ("--because", "Vertragsende", "--ordered-by", "Anna Kundin")
            signed = ("--sign-with", self.customer.fingerprint)
            done = self.session.mailbox("shred", NAME, "--yes", "--json", *order, *signed)
            found = json.loads(done.stdout)["facts"]["left"]
            proven.append(require(not found, f"its own search found nothing {found or ''}".strip()))
            # The server's and the two people's own folders are not the mailbox's.
            needles = [self.canary.encode(), CUSTOMER.encode()]
            left = find_bytes((self.session.home, *self.session.desktop_folders), needles)
            proven.append(require(not left, f"no trace of message or address {left or ''}".strip()))
            volumes = list((self.session.home / "data" / "volumes").iterdir())
            proven.append(require(not volumes, "no volume is left"))

    def certify(self) -> None:
        with self.report.step("Read and verify the certificate") as proven:
            text = self.session.mailbox("certificate", NAME).text
            proven.append(require("Kunde GmbH, Köln" in text, "it names the parties"))
            write = ("certificate", NAME, "--format", "pdf", "--language", "de", "--sign-with")
            pdf = ("--out", str(self.certificate))
            self.session.mailbox(*write, self.customer.fingerprint, *pdf)
            verified = self.session.mailbox("certificate", "verify", str(self.certificate))
            good = f"signed by {self.customer.fingerprint}" in verified.text
            proven.append(require(good, "its signature is good"))
            content = bytearray(self.certificate.read_bytes())
            content[len(content) // 2] ^= 1
            changed = self.session.root / "changed.pdf"
            changed.write_bytes(content)
            refused = self.session.mailbox("certificate", "verify", str(changed), check=False)
            changed.unlink()
            proven.append(require(refused.returncode == 8, "a changed byte is found"))
        print(f"\n{text}\n{verified.text}", flush=True)

    def keep(self) -> None:
        """Leave the mailbox open until somebody ends the demonstration."""
        assigned = ("MAILBOX_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
        variables = " ".join(f"{key}={self.session.env[key]}" for key in assigned)
        self.report.print()
        machines = self.session.run(["virsh", "-q", "-c", "qemu:///session", "list", "--name"])
        domain = machines.stdout.decode().split()[0]
        print(f"\nThe mailbox is open. In another terminal, as the user {getuser()}:")
        print(f"  env {variables} virt-viewer -c qemu:///session --attach {domain}")
        print("Press Ctrl-C or Enter here to go on; then it is closed and shredded.", flush=True)
        with suppress(KeyboardInterrupt):
            if not sys.stdin.readline():
                signal.pause()  # no terminal: until it is interrupted


def _has_account(facts: Facts) -> bool:
    return [account.get("type") for account in facts.accounts].count("imap") == 1


def run(root: Path, *, keep: bool, client: str = "thunderbird", custody: str = "guest") -> Report:
    """The demonstration from end to end."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        leftovers.sweep(root)
        session = stack.enter_context(Session(root, images=image_folder()))
        server = stack.enter_context(MailServer())
        own_home = Path(session.env["GNUPGHOME"])
        customer = stack.enter_context(Person("Anna Kundin", CUSTOMER, home=own_home))
        partner = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
        dav = stack.enter_context(DavServer(server.credentials))
        fill(dav)
        for folder in (session.runtime, server.folder, partner.home, dav.folder):
            leftovers.note(root, folder)
        partner.learn(customer.public_key(), certify=True)
        customer.learn(partner.public_key())
        demo = Demo(session, server, customer, partner, dav, client=client, custody=custody)
        stack.callback(lambda: session.mailbox("close", "--all", check=False))
        demo.build_image()
        demo.clean_up_earlier()
        demo.deliver()
        demo.onboard()
        demo.open(OPENING)
        demo.read()
        demo.answer()
        demo.plan()
        demo.prove_keys()
        demo.rest()
        demo.close()
        demo.open("Open it again")
        demo.look_again()
        if keep:
            demo.keep()
        demo.close()
        demo.name_the_parties()
        demo.shred()
        demo.certify()
        demo.report.print()
        print(f"\nThe screenshot: {demo.screenshot}")
        print(f"The certificate: {demo.certificate}")
    return demo.report


def main() -> int:
    """The entry point of `make demo`."""
    try:
        client = os.environ.get("CLIENT") or "thunderbird"
        if client not in TEMPLATES:
            raise DemoError(f"CLIENT is {client!r}, not one of {', '.join(TEMPLATES)}")
        custody = os.environ.get("CUSTODY") or "guest"
        if custody not in CUSTODIES:
            raise DemoError(f"CUSTODY is {custody!r}, not one of {', '.join(CUSTODIES)}")
        keep = os.environ.get("KEEP") == "1"
        run(root_folder(), keep=keep, client=client, custody=custody)
    except (DemoError, MailServerError, DavServerError, ProofError, SessionError) as error:
        print(f"The demonstration failed: {error}", file=sys.stderr)
        return 1
    return 0
