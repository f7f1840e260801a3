"""A private key that stays on the host: keyring, custodian, filter and a Thunderbird without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
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
from demo.session import Session, find_bytes
from sandbox.host import agents, daemons
from sandbox.host.custody.client import Custodians
from sandbox.host.gnupg import ProfileKeyring
from sandbox.host.vault import Vault
from sandbox.model.keydetails import NewKey
from sandbox.model.secrets import KEY_PASSPHRASE
from sandbox.state.activity import Activity
from tests.host.conftest import need
from tests.host.test_keyring_locks import lock, unlock

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

Json = dict[str, Any]
TEXT = "Der Code für die Tür ist 4711."


class Held(Person):
    """A customer whose secret key does not leave its ring."""

    def secret_key(self) -> str:
        return ""


@dataclass
class World:
    server: MailServer
    anna: Held
    bert: Person
    thunderbird: NativeThunderbird
    folder: Path
    profile: uuid.UUID
    passphrase: str

    def desired(self) -> Json:
        desired = desired_state(self.server, self.anna, (self.bert,))
        desired["openpgp"] |= {"custody": "host", "agent": str(self.folder / "agent.sock")}
        desired["openpgp"]["key"]["secret"] = None
        return desired

    def hold(
        self, decrypt: str = "allow", sign: str = "allow", own: str = "", retired: str = ""
    ) -> None:
        Custodians().start(
            {
                "profile_id": str(self.profile),
                "name": "kunde",
                "fingerprint": own or self.anna.fingerprint,
                "retired": [retired] if retired else [],
                "home": str(self.anna.home),
                "socket": str(self.folder / "agent.sock"),
                "control": str(self.folder / "custody.sock"),
                "log_file": str(self.folder / "custody.log"),
                "activity": str(self.folder / "activity.jsonl"),
                "turns": str(self.folder / "turns"),
                "decrypt": decrypt,
                "sign": sign,
            }
        )

    def uses(self) -> list[tuple[str, str]]:
        activity = Activity(self.folder / "activity.jsonl").read()
        return [(use.operation, use.outcome) for use in activity]

    def read(self, index: int) -> Any:
        self.thunderbird.proof.open(index=0)
        return self.thunderbird.proof.open(index=index)


@pytest.fixture(scope="module")
def world(in_session: Session) -> Iterator[World]:
    need("gpg", "gpgconf")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="cst-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        profile, vault = uuid.uuid4(), Vault()
        passphrase = vault.new_key().decode()
        vault.put(profile, KEY_PASSPHRASE, passphrase)
        ring = ProfileKeyring(folder / "ring")
        ring.create()
        ring.generate("Anna Kundin", CUSTOMER, passphrase, NewKey(split=True))
        anna = stack.enter_context(Held("Anna Kundin", CUSTOMER, home=folder / "ring", key=""))
        bert = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
        bert.learn(anna.public_key(), certify=True)
        server = stack.enter_context(MailServer())
        server.deliver(bert.letter(anna, "unverfänglich", "Hallo", sign=False), CUSTOMER)
        server.deliver(bert.letter(anna, "Geheim", TEXT), CUSTOMER)
        stack.callback(lambda: Custodians().stop(folder / "custody.sock"))
        thunderbird = stack.enter_context(NativeThunderbird(local_names=server.names))
        yield World(server, anna, bert, thunderbird, folder, profile, passphrase)


def test_thunderbird_reads_and_verifies_with_a_key_it_does_not_have(world: World) -> None:
    world.hold()
    events = world.thunderbird.open(world.desired())
    assert [event for event in events if event["event"] != "phase"] == []
    shown = world.thunderbird.proof.open(index=1, expect={"signed": "verified"})
    assert (shown.encrypted, shown.signed, shown.body) == ("ok", "verified", TEXT)
    assert world.thunderbird.proof.dialogs() == []
    assert ("decrypt", "done") in world.uses()
    # The pinentry took its turn at the keyring.
    assert (world.folder / "turns").exists()


def test_a_reply_is_signed_on_the_host(world: World) -> None:
    composed = world.thunderbird.proof.reply("Danke!", index=1)
    assert (composed.encrypt, composed.sign, composed.sent) == (True, True, True)
    reading = world.bert.read(world.server.wait_for_messages(CORRESPONDENT, 1)[-1])
    assert (reading.decrypted, reading.signature) == (True, "good")
    assert reading.signer == world.anna.fingerprint
    assert ("sign", "done") in world.uses()


def test_keys_are_proven_with_the_gnupg_that_has_none(world: World) -> None:
    other = {"fingerprint": world.bert.fingerprint, "addresses": [CORRESPONDENT]}
    own = world.anna.fingerprint
    request = {"own": own, "custody": "host", "correspondents": [other]}
    before = world.uses()
    assert world.thunderbird.check(request) == {own: "", world.bert.fingerprint: ""}
    assert {("sign", "done"), ("decrypt", "done")} <= set(world.uses()[len(before) - 1 :])
    world.hold(sign="ask")  # there is no desktop here: nobody can be asked
    problems = world.thunderbird.check({**request, "correspondents": []})
    assert problems == {own: "GPGME.sign failed"}
    world.hold()


def test_what_nobody_allows_is_an_error_on_the_screen_and_passes(world: World) -> None:
    world.hold(decrypt="ask")  # there is no desktop here: nobody can be asked
    shown = world.read(1)
    assert shown.encrypted == "notok"
    assert any("decryptionFailed" in bar for bar in shown.bars)
    assert world.uses()[-1] == ("decrypt", "no answer")
    assert Custodians().allow(world.folder / "custody.sock", 3600)
    assert world.read(1).body == TEXT


def test_a_locked_keyring_is_an_error_on_the_screen_and_passes(
    world: World, in_session: Session
) -> None:
    world.hold()  # a new agent, which remembers no passphrase
    lock(in_session)
    assert world.read(1).encrypted == "notok"
    assert world.uses()[-1] == ("decrypt", "locked")
    unlock(in_session)
    assert world.read(1).body == TEXT


def test_a_custodian_that_is_away_is_an_error_on_the_screen_and_passes(world: World) -> None:
    Custodians().stop(world.folder / "custody.sock")
    assert not (world.folder / "agent.sock").exists()
    assert world.read(1).encrypted == "notok"
    world.hold()
    assert world.read(1).body == TEXT


def test_what_a_killed_custodian_left_is_ended(world: World) -> None:
    control, ring = world.folder / "custody.sock", world.anna.home
    assert world.read(1).body == TEXT  # the agent remembers the passphrase
    custodian = daemons.peer(control)
    assert custodian is not None
    os.kill(custodian, signal.SIGKILL)
    assert agents.of(ring) and (ring / "pinentry").exists()
    Custodians().stop(control, ring)
    assert not agents.of(ring) and not (ring / "pinentry").exists()
    assert "pinentry-program" not in (ring / "gpg-agent.conf").read_text()
    world.hold()
    assert world.read(1).body == TEXT


def test_a_retired_key_only_opens_old_mail(world: World) -> None:
    old = world.anna.fingerprint
    ring = ProfileKeyring(world.anna.home)
    new = ring.generate("Anna Kundin", CUSTOMER, world.passphrase, NewKey(split=True))
    Custodians().stop(world.folder / "custody.sock")
    world.hold(own=new, retired=old)
    desired = world.desired()
    public = ring.public([old, new])
    key = {"secret": None, "passphrase": None}
    desired["openpgp"]["retired"] = [{**key, "fingerprint": old, "public": public[old]}]
    desired["openpgp"]["key"] = {**key, "fingerprint": new, "public": public[new]}
    world.thunderbird.close()
    events = world.thunderbird.open(desired)
    assert [event for event in events if event["event"] != "phase"] == []
    assert world.read(1).body == TEXT
    world.bert.learn(public[new])
    before = len(world.server.messages(CORRESPONDENT))
    assert world.thunderbird.proof.reply("Neuer Schlüssel", index=1).sent
    arrived = world.server.wait_for_messages(CORRESPONDENT, before + 1)[-1]
    assert world.bert.read(arrived).signer == new
    # The machine's own GnuPG, asked for a signature of the old key.
    gnupg = world.thunderbird.client.GNUPG_DIR
    sign = ["gpg", "--homedir", str(gnupg), "--batch", "--local-user", old, "--clearsign"]
    refused = subprocess.run(sign, input=b"x", capture_output=True, check=False)
    assert refused.returncode and b"BEGIN PGP SIGNATURE" not in refused.stdout
    sign[sign.index(old)] = new
    assert b"BEGIN PGP SIGNATURE" in subprocess.run(sign, input=b"x", capture_output=True).stdout


def test_the_private_key_is_nowhere_in_the_mail_client(world: World) -> None:
    world.thunderbird.close()
    folder = world.thunderbird.home.parent
    secrets = [path.read_bytes() for path in (world.anna.home / "private-keys-v1.d").iterdir()]
    assert len(secrets) == 6  # the retired key's, too
    # What is behind the name of the protection: the encrypted numbers themselves.
    needles = [secret[-64:-16] for secret in secrets] + [b"PGP PRIVATE KEY", b"private-key"]
    assert find_bytes([folder / "home", folder / "state"], needles) == []
    assert not list(folder.rglob("*.key"))
    rings = [path.name for path in folder.rglob("secring.gpg") if path.stat().st_size]
    assert rings == []


def test_nothing_of_a_custodian_stays(world: World) -> None:
    world.hold()
    Custodians().stop(world.folder / "custody.sock")
    left = {path.name for path in world.folder.iterdir()}
    assert left <= {"ring", "activity.jsonl", "custody.log", "custody.sock.lock", "turns"}
    assert not (world.anna.home / "pinentry").exists()
    log = (world.folder / "custody.log").read_text()
    assert "Traceback" not in log and world.anna.fingerprint not in log
    for line in (world.folder / "activity.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"time", "operation", "what", "outcome", "count"}
