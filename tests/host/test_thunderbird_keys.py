"""Keys in a Thunderbird on this machine: every shape decrypts and signs, old ones open old mail."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.correspondent import Person
from demo.desired import desired_state
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer
from demo.native import NativeThunderbird, missing
from sandbox.host.gnupg import ProfileKeyring
from sandbox.host.own_keys import OwnKeyring
from sandbox.model.keydetails import Reason
from tests.host.test_gnupg import NEW, Home
from tests.host.test_key_shapes import SHAPES

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

Json = dict[str, Any]
# Those that ask something of a mail client beyond what every key does.
ASKING = ("with a passphrase", "an offline primary", "an encryption subkey that ended", "RSA 4096")


class Owner(Person):
    """Somebody whose key a mailbox has taken into a ring of its own."""

    def __init__(self, shape: str, stack: ExitStack) -> None:
        home = Home()
        stack.callback(home.end)
        made = SHAPES[shape].make(home)
        super().__init__("Anna Kundin", CUSTOMER, home=home.path, key="")
        self.fingerprint = made.fingerprint
        folder = Path(tempfile.mkdtemp(prefix="ring-"))
        stack.callback(shutil.rmtree, folder)
        self.ring, self.own = ProfileKeyring(folder / "keys"), OwnKeyring(folder / "keys")
        self.ring.create()
        stack.callback(self.ring.destroy)
        self.ring.add_own(made.secret, "", NEW, lambda _: made.passphrase, retired=True)

    def public_key(self) -> str:
        return self.ring.public([self.fingerprint])[self.fingerprint]

    def exported(self) -> Json:
        """As `open` sends it."""
        exported = self.ring.export(self.fingerprint, NEW)
        return {
            "fingerprint": self.fingerprint,
            "secret": exported.secret,
            "passphrase": exported.passphrase,
            "public": exported.public,
        }

    def revoke(self) -> None:
        certificate = self.own.make_certificate(self.fingerprint, NEW, Reason.SUPERSEDED)
        self.own.revoke(self.fingerprint, certificate or b"")


@dataclass
class World:
    server: MailServer
    bert: Person

    def write(self, owner: Person, text: str) -> None:
        self.server.deliver(self.bert.letter(owner, "geheim", text), CUSTOMER)

    def desired(self, key: Json, retired: tuple[Json, ...] = ()) -> Json:
        with Person("Niemand", "niemand@kunde.test") as nobody:
            desired = desired_state(self.server, nobody, (self.bert,))
        desired["account"]["display_name"] = "Anna Kundin"
        desired["openpgp"] |= {"key": key, "retired": list(retired)}
        return desired

    def show(self, thunderbird: NativeThunderbird, desired: Json) -> None:
        """Open anew, and have all the mail there."""
        thunderbird.close()
        events = thunderbird.open(desired)
        assert [event for event in events if event["event"] != "phase"] == []
        thunderbird.proof.facts(messages=len(self.server.messages(CUSTOMER)))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        bert = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
        yield World(stack.enter_context(MailServer()), bert)


@pytest.fixture(scope="module")
def thunderbird(world: World) -> Iterator[NativeThunderbird]:
    with NativeThunderbird(local_names=world.server.names) as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("shape", ASKING)
def test_it_decrypts_and_signs(
    shape: str, world: World, thunderbird: NativeThunderbird, stack: ExitStack
) -> None:
    owner = Owner(shape, stack)
    world.write(owner, f"Hallo {shape}")
    world.show(thunderbird, world.desired(owner.exported()))
    last = len(world.server.messages(CUSTOMER)) - 1
    shown = thunderbird.proof.open(index=last, expect={"signed": "verified"})
    assert (shown.encrypted, shown.body) == ("ok", f"Hallo {shape}")
    before = len(world.server.messages(CORRESPONDENT))
    composed = thunderbird.proof.reply("Danke", index=last)
    assert (composed.encrypt, composed.sign, composed.sent) == (True, True, True)
    reading = world.bert.read(world.server.wait_for_messages(CORRESPONDENT, before + 1)[-1])
    assert (reading.signature, reading.signer) == ("good", owner.fingerprint)


def test_a_key_that_expired_is_said_and_reads_on(
    world: World, thunderbird: NativeThunderbird, stack: ExitStack
) -> None:
    owner = Owner("expired", stack)
    serving = Owner("plain", stack)
    world.write(serving, "vor dem Ende")
    thunderbird.close()
    events = thunderbird.open(world.desired(owner.exported(), (serving.exported(),)))
    codes = {event["code"] for event in events if event["event"] == "warning"}
    assert codes == {"key-expired"}
    last = len(world.server.messages(CUSTOMER)) - 1
    thunderbird.proof.facts(messages=last + 1)
    assert thunderbird.proof.open(index=last).body == "vor dem Ende"
    # Extended on the host, it comes with other dates at the next open, and serves.
    owner.own.extend(owner.fingerprint, "2y", NEW)
    world.write(owner, "nach der Verlängerung")
    world.show(thunderbird, world.desired(owner.exported(), (serving.exported(),)))
    assert thunderbird.proof.open(index=last + 1).body == "nach der Verlängerung"
    composed = thunderbird.proof.write(CORRESPONDENT, "wieder", "Text", send=False)
    assert (composed.encrypt, composed.sign) == (True, True)


def test_a_key_that_ends_while_it_is_open_reads_on_and_signs_nothing(
    world: World, thunderbird: NativeThunderbird, stack: ExitStack
) -> None:
    owner = Owner("plain", stack)
    world.write(owner, "noch in der Zeit")
    owner.own.extend(owner.fingerprint, "seconds=30", NEW)
    details = owner.own.describe(owner.fingerprint)
    assert details is not None
    ends = max(part.expires or 0 for part in details.parts)
    world.show(thunderbird, world.desired(owner.exported()))
    last = len(world.server.messages(CUSTOMER)) - 1
    composed = thunderbird.proof.write(CORRESPONDENT, "in der Zeit", "Text", send=False)
    assert any("will expire" in bar for bar in composed.bars), composed
    time.sleep(max(0, ends - time.time() + 1))
    shown = thunderbird.proof.open(index=last)
    assert (shown.encrypted, shown.body) == ("ok", "noch in der Zeit")
    before = len(world.server.messages(CORRESPONDENT))
    late = thunderbird.proof.write(CORRESPONDENT, "danach", "Text")
    assert any("has expired" in bar for bar in late.bars) and not late.sent, late
    assert [each["kind"] for each in late.dialogs] == ["window"], late.dialogs
    assert len(world.server.messages(CORRESPONDENT)) == before


def test_retired_keys_open_the_mail_of_their_time(world: World, stack: ExitStack) -> None:
    old, dead, new = (Owner(shape, stack) for shape in ("a signing subkey", "plain", "plain"))
    first = len(world.server.messages(CUSTOMER))
    world.write(old, "an den alten")
    world.write(dead, "an den widerrufenen")
    world.write(new, "an den neuen")
    dead.revoke()
    thunderbird = stack.enter_context(NativeThunderbird(local_names=world.server.names))
    world.show(thunderbird, world.desired(new.exported(), (old.exported(), dead.exported())))
    for place, text in enumerate(("an den alten", "an den widerrufenen", "an den neuen")):
        shown = thunderbird.proof.open(index=first + place)
        assert (shown.encrypted, shown.body) == ("ok", text)
    facts = thunderbird.proof.facts()
    assert facts.identity["openpgp_key_id"] == new.fingerprint[-16:]
    keys = {key["fingerprint"]: key for key in facts.keys}
    assert keys[old.fingerprint]["secret"] and keys[old.fingerprint]["acceptance"] == "personal"
    # A second start finds them there, and asks nothing.
    world.show(thunderbird, world.desired(new.exported(), (old.exported(), dead.exported())))
    # What was the mailbox's only key is revoked: it reads, and writes unsigned.
    world.show(thunderbird, world.desired(None, (new.exported(),)))  # type: ignore[arg-type]
    assert thunderbird.proof.open(index=first + 2).body == "an den neuen"
    composed = thunderbird.proof.write(CORRESPONDENT, "offen", "Text", send=False)
    assert not composed.sign
    # Destroyed on the host, its secret is gone from here, and the mail cannot be read.
    forgotten = world.desired(None)  # type: ignore[arg-type]
    forgotten["openpgp"]["forgotten"] = [new.fingerprint]
    world.show(thunderbird, forgotten)
    assert not any(
        key["secret"]
        for key in thunderbird.proof.facts().keys
        if key["fingerprint"] == new.fingerprint
    )
    assert thunderbird.proof.open(index=first + 2).encrypted != "ok"
