"""S/MIME: real PKCS#12 files on the host, and a real Thunderbird that signs, verifies and reads."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import pkcs12 as crypto
from cryptography.x509.oid import ExtendedKeyUsageOID

from demo.correspondent import Person
from demo.desired import desired_state
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer
from demo.native import NativeThunderbird, missing
from demo.smime import SmimeAuthority, SmimePerson, verified
from sandbox.host import pkcs12
from sandbox.model.errors import MailboxError
from sandbox.model.smime import certificate_problem

Json = dict[str, Any]
NEW = "bmV3LXBhc3NwaHJhc2U="


def never(_description: str) -> str:
    raise AssertionError("nobody should be asked")


@pytest.fixture(scope="module")
def authority() -> SmimeAuthority:
    return SmimeAuthority()


@pytest.fixture(scope="module")
def anna(authority: SmimeAuthority) -> SmimePerson:
    return authority.issue(CUSTOMER)


def code(content: bytes, said: str = "") -> str:
    with pytest.raises(MailboxError) as refused:
        pkcs12.take(content, lambda _: said, NEW)
    assert said == "" or said not in str(refused.value)
    return refused.value.code


def test_a_file_is_locked_anew(anna: SmimePerson) -> None:
    facts, locked = pkcs12.take(anna.pkcs12("old"), lambda _: "old", NEW)
    assert facts.addresses == (CUSTOMER,) and facts.signs and facts.encrypts and facts.for_mail
    assert pkcs12.read(locked, NEW) == facts
    with pytest.raises(MailboxError) as refused:
        pkcs12.read(locked, "old")
    assert refused.value.code == "smime-passphrase-wrong"
    held = crypto.load_pkcs12(locked, NEW.encode())
    assert [each.certificate for each in held.additional_certs] == [anna.authority]


def test_a_file_without_passphrase_asks_nobody(anna: SmimePerson) -> None:
    plain = crypto.serialize_key_and_certificates(
        None, anna.key, anna.certificate, None, serialization.NoEncryption()
    )
    assert pkcs12.take(plain, never, NEW)[0].addresses == (CUSTOMER,)


def test_what_is_no_certificate_with_its_key_is_refused(anna: SmimePerson) -> None:
    none = serialization.NoEncryption()
    without_key = crypto.serialize_key_and_certificates(None, None, anna.certificate, None, none)
    odd = ed25519.Ed25519PrivateKey.generate()
    other_key = crypto.serialize_key_and_certificates(None, odd, None, None, none)
    for content in (b"", b"junk", b"\x30" * (2 << 20), without_key, other_key):
        assert code(content) == "smime-unusable"
    assert code(anna.pkcs12("old"), "wrong") == "smime-passphrase-wrong"
    assert code(anna.pkcs12("old")[:-20], "old") == "smime-passphrase-wrong"


def test_dates_and_purpose_are_read(authority: SmimeAuthority) -> None:
    now = datetime.now(UTC)
    expired = authority.issue(CUSTOMER, life=-timedelta(hours=1))
    server = authority.issue(CUSTOMER, purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    for person, problem in ((expired, "expired on"), (server, "is not meant for mail")):
        facts, _ = pkcs12.take(person.pkcs12("old"), lambda _: "old", NEW)
        assert (certificate_problem(facts, CUSTOMER, now) or "").startswith(problem)


# --- the real Thunderbird


@dataclass
class World:
    server: MailServer
    customer: Person
    thunderbird: NativeThunderbird
    authority: SmimeAuthority
    anna: SmimePerson
    bert: SmimePerson

    def desired(self, person: SmimePerson | None, *, trusted: bool = True) -> Json:
        """The state of a mailbox without an OpenPGP key."""
        desired = desired_state(self.server, self.customer, ())
        desired["openpgp"]["key"] = None
        desired["smime"] = None
        if person is not None:
            facts, locked = pkcs12.take(person.pkcs12("old"), lambda _: "old", NEW)
            desired["smime"] = {
                "fingerprint": facts.fingerprint,
                "certificate": facts.pem,
                "pkcs12": base64.b64encode(locked).decode(),
                "passphrase": NEW,
                "signs": facts.signs,
                "encrypts": facts.encrypts,
                "ca": [self.authority.pem] if trusted else [],
            }
        return desired

    def identity(self) -> Json:
        """What the account's identity names, and the user certificates that are stored."""
        identity: Json = self.thunderbird.proof.facts(certificates=True).identity
        return identity


@pytest.fixture(scope="module")
def world(authority: SmimeAuthority, anna: SmimePerson) -> Iterator[World]:
    if missing():
        pytest.skip(missing())
    with ExitStack() as stack:
        customer = stack.enter_context(Person("Anna Kundin", CUSTOMER))
        server = stack.enter_context(MailServer())
        bert = authority.issue(CORRESPONDENT)
        signed = bert.letter(CUSTOMER, "Signed by Bert", "Guten Tag")
        assert verified(signed, [authority.pem]) is not None
        server.deliver(signed, CUSTOMER)
        server.deliver(bert.letter(CUSTOMER, "Sealed by Bert", "Geheim 4711", anna), CUSTOMER)
        thunderbird = stack.enter_context(NativeThunderbird(local_names=server.names))
        yield World(server, customer, thunderbird, authority, anna, bert)


def troubles(events: list[Json]) -> list[Json]:
    return [event for event in events if event["event"] != "phase"]


def test_the_certificate_is_there_and_mail_is_read_and_verified(world: World) -> None:
    assert troubles(world.thunderbird.open(world.desired(world.anna))) == []
    shown = world.thunderbird.proof.open(subject="Signed by Bert", expect={"signed": "ok"})
    assert (shown.signed, shown.encrypted, shown.technology) == ("ok", None, "S/MIME")
    sealed = world.thunderbird.proof.open(subject="Sealed by Bert", expect={"encrypted": "ok"})
    assert (sealed.encrypted, sealed.signed, sealed.body) == ("ok", "ok", "Geheim 4711")
    identity = world.identity()
    assert identity["certificates"]["signing"] == identity["certificates"]["encryption"]
    assert identity["certificates"]["signing"]["has_key"] is True
    assert identity["sign"] is True


def test_an_answer_is_signed_and_encrypted_for_who_signed_before(world: World) -> None:
    world.thunderbird.open(world.desired(world.anna))
    world.thunderbird.proof.open(subject="Signed by Bert", expect={"signed": "ok"})
    before = len(world.server.messages(CORRESPONDENT))
    composed = world.thunderbird.proof.write("carla@partner.test", "signed", "Text", send=False)
    assert (composed.sign, composed.openpgp) == (True, False)
    composed = world.thunderbird.proof.write(CORRESPONDENT, "answer", "Grüße")
    assert (composed.sent, composed.sign, composed.openpgp) == (True, True, False)
    arrived = world.server.wait_for_messages(CORRESPONDENT, before + 1)[-1]
    # Bert's certificate came with his mail, so Thunderbird encrypts to it by itself.
    assert composed.encrypt and b"enveloped-data" in arrived
    inner = world.bert.read(arrived)
    content = verified(inner, [world.authority.pem])
    assert content is not None and "Grüße".encode() in content


def test_a_second_start_changes_nothing(world: World) -> None:
    world.thunderbird.open(world.desired(world.anna))
    before = world.identity()
    world.thunderbird.close()
    assert troubles(world.thunderbird.open(world.desired(world.anna))) == []
    assert world.identity() == before


def test_an_authority_that_is_not_trusted_is_said(world: World) -> None:
    world.thunderbird.close()
    events = world.thunderbird.open(world.desired(world.anna, trusted=False))
    assert [each["code"] for each in troubles(events)] == ["smime-not-trusted"]
    world.thunderbird.close()
    assert troubles(world.thunderbird.open(world.desired(world.anna))) == []


def test_another_certificate_takes_its_place_and_none_leaves_nothing(world: World) -> None:
    world.thunderbird.open(world.desired(world.anna))
    first = world.identity()["certificates"]["signing"]
    other = world.authority.issue(CUSTOMER)
    world.thunderbird.close()
    assert troubles(world.thunderbird.open(world.desired(other))) == []
    second = world.identity()["certificates"]
    assert second["signing"]["fingerprint"] != first["fingerprint"]
    assert second["stored"] == [second["signing"]["fingerprint"]]
    world.thunderbird.close()
    assert troubles(world.thunderbird.open(world.desired(None))) == []
    gone = world.identity()
    assert gone["certificates"] == {"signing": None, "encryption": None, "stored": []}
    assert gone["sign"] is False


def test_a_broken_file_is_an_error_with_a_code(world: World) -> None:
    world.thunderbird.close()
    broken = copy.deepcopy(world.desired(world.authority.issue(CUSTOMER)))
    broken["smime"]["passphrase"] = "wrong"
    events = world.thunderbird.open(broken)
    assert [each["code"] for each in troubles(events)] == ["smime-import"]
    world.thunderbird.close()
    assert troubles(world.thunderbird.open(world.desired(None))) == []


def test_no_secret_lies_in_the_open(world: World) -> None:
    world.thunderbird.open(world.desired(world.anna))
    world.thunderbird.close()
    folder = world.thunderbird.home.parent
    for path in (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        content = path.read_bytes() if "thunderbird-bin" not in path.name else b""
        assert NEW.encode() not in content, path
    assert not list(folder.rglob("*.p12"))
