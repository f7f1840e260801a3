"""The demonstration's mail server, with a real Dovecot."""

from __future__ import annotations

import shutil
import smtplib
import socket
import ssl
from collections.abc import Iterator

import pytest

from demo import letters
from demo.correspondent import Person
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer

pytestmark = pytest.mark.skipif(
    shutil.which("dovecot", path="/usr/sbin:/usr/bin") is None, reason="Dovecot is not installed"
)


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


def context(server: MailServer) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=server.authority)


def greeted(server: MailServer, name: str) -> bool:
    """Whether a client that trusts the authority accepts the certificate for this name."""
    with (
        socket.create_connection(("127.0.0.1", server.ports.imaps), timeout=10) as plain,
        context(server).wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.recv(100).startswith(b"* OK")


def test_every_name_is_in_the_certificate(server: MailServer) -> None:
    assert all(greeted(server, name) for name in server.names)


def test_another_name_is_refused(server: MailServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(server, "imap.example.org")


def test_mail_is_delivered_unchanged(server: MailServer) -> None:
    before = len(server.messages(CUSTOMER))
    for message in letters.ordinary("Bert <bert@partner.test>", f"Anna <{CUSTOMER}>"):
        server.deliver(message, CUSTOMER)
        assert server.messages(CUSTOMER)[-1].endswith(message)
    assert len(server.messages(CUSTOMER)) == before + 3


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_sent_mail_arrives(server: MailServer, security: str) -> None:
    before = len(server.messages(CORRESPONDENT))
    tls = context(server)
    tls.check_hostname = False
    smtp = (
        smtplib.SMTP_SSL("127.0.0.1", server.ports.submissions, context=tls)
        if security == "tls"
        else smtplib.SMTP("127.0.0.1", server.ports.submission)
    )
    with smtp:
        if security == "starttls":
            smtp.starttls(context=tls)
        smtp.login(CUSTOMER, server.password(CUSTOMER))
        smtp.sendmail(CUSTOMER, [CORRESPONDENT], b"Subject: x\r\n\r\n.dot\r\n..two\r\n")
    arrived = server.wait_for_messages(CORRESPONDENT, before + 1)
    assert arrived[-1].endswith(b"\r\n.dot\r\n..two\r\n")


def test_a_wrong_password_is_refused(server: MailServer) -> None:
    tls = context(server)
    tls.check_hostname = False
    with (
        smtplib.SMTP_SSL("127.0.0.1", server.ports.submissions, context=tls) as smtp,
        pytest.raises(smtplib.SMTPAuthenticationError),
    ):
        smtp.login(CUSTOMER, "wrong")


def test_a_paused_server_does_not_answer(server: MailServer) -> None:
    with server.pause(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.ports.imaps), timeout=5)
    assert greeted(server, server.names[0])


def test_nothing_is_left() -> None:
    with MailServer() as server:
        folder, ports = server.folder, server.ports
        assert folder.exists()
    assert not folder.exists()
    for port in (*ports.listening(), ports.relay):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_people_tell_signatures_apart() -> None:
    with Person("Anna", CUSTOMER) as anna, Person("Bert", CORRESPONDENT) as bert:
        bert.learn(anna.public_key(), certify=True)
        anna.learn(bert.public_key())
        signed = bert.read(anna.letter(bert, "Betreff ü", "Text ü\n"))
        unsigned = bert.read(anna.letter(bert, "Betreff", "Text\n", sign=False))
        unreadable = anna.read(bert.letter(bert, "Betreff", "Text\n"))
        home = anna.home
    assert (signed.decrypted, signed.signature, signed.signer) == (True, "good", anna.fingerprint)
    assert (signed.validity, signed.subject, signed.text) == ("fully", "Betreff ü", "Text ü\n")
    assert signed.outer_subject == "..."
    assert (unsigned.decrypted, unsigned.signature, unsigned.signer) == (True, "none", None)
    assert (unreadable.encrypted, unreadable.decrypted) == (True, False)
    assert not home.exists()
