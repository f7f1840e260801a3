"""Where keys are looked up: a real HTTPS server with good and bad manners, and a real Dovecot."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.correspondent import Person
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer
from sandbox.host import keysources, mailfetch
from sandbox.host.keyreader import KeyReader
from sandbox.lifecycle import correspondents
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.mailkeys import keys_of_mail
from sandbox.model.offers import Way, offered
from sandbox.model.packets import read_keys
from sandbox.model.wkd import hashed
from tests.host.test_mailcheck import Script, certificate, listening

ADVANCED, DIRECT = "openpgpkey.partner.test", "partner.test"
KEYS = "keys.partner.test"
Reply = Callable[[str, str], bytes]


class Web:
    """An HTTPS server; `asked` is the host and path of every request."""

    def __init__(self, folder: Path, reply: Reply) -> None:
        self.chain = certificate(ADVANCED, DIRECT, KEYS)
        self._script = Script(folder, self.chain, {})
        self._reply = reply
        self.asked: list[str] = []

    def __call__(self, plain: socket.socket) -> None:
        with self._script.context.wrap_socket(plain, server_side=True) as connection:
            head = b""
            while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                head += more
            lines = head.decode().splitlines()
            path = lines[0].split(" ")[1]
            host = next(line[6:] for line in lines if line.lower().startswith("host: "))
            self.asked.append(host + path)
            connection.sendall(self._reply(host, path))

    @contextlib.contextmanager
    def served(self, *hosts: str) -> Iterator[Way]:
        with listening(self) as port:
            yield Way(self.chain[0], {(host, 443): ("127.0.0.1", port) for host in hosts})


def ok(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n" + body


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(MailboxError) as caught:
        action()
    return caught.value.code


def no_name(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A name service that does not know our names; who is reached is reached by a detour."""
    real = socket.getaddrinfo

    def ask(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".test"):
            raise socket.gaierror(number, "unknown")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ask)


def test_the_advanced_place_is_asked_first(tmp_path: Path) -> None:
    web = Web(tmp_path, lambda _host, _path: ok(b"key"))
    with web.served(ADVANCED, DIRECT) as way:
        place, content = keysources.web_key("Bert@Partner.test", way)
    path = f"/.well-known/openpgpkey/partner.test/hu/{hashed('Bert')}"
    assert (place, content) == (f"https://{ADVANCED}{path}", b"key")
    assert web.asked == [f"{ADVANCED}{path}?l=Bert"]


def test_the_direct_place_counts_only_where_the_other_name_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_name(monkeypatch, socket.EAI_NONAME)
    web = Web(tmp_path, lambda _host, _path: ok(b"key"))
    with web.served(DIRECT) as way:
        place, _ = keysources.web_key("bert@partner.test", way)
    assert place == f"https://{DIRECT}/.well-known/openpgpkey/hu/{hashed('bert')}"


def test_no_failure_leads_to_the_direct_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = {ADVANCED: b"HTTP/1.0 404 Not Found\r\n\r\n", DIRECT: ok(b"an attacker's key")}
    web = Web(tmp_path, lambda host, _path: replies[host])
    with web.served(ADVANCED, DIRECT) as way:
        assert refused(lambda: keysources.web_key("bert@partner.test", way)) == "key-not-found"

    no_name(monkeypatch, socket.EAI_AGAIN)
    with web.served(DIRECT) as way:
        code = refused(lambda: keysources.web_key("bert@partner.test", way))
    assert code == "key-lookup-failed" and web.asked[1:] == []


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 500 Oops\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: http://partner.test/key\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: /again\r\n\r\n",
        b"nonsense\r\n\r\n",
        ok(b"x" * (keysources.MAX_KEY + 1)),
    ],
)
def test_bad_answers_are_said(tmp_path: Path, reply: bytes) -> None:
    with Web(tmp_path, lambda _host, _path: reply).served(ADVANCED) as way:
        assert refused(lambda: keysources.web_key("bert@partner.test", way)) == "key-lookup-failed"


def test_an_untrusted_server_is_not_believed(tmp_path: Path) -> None:
    with Web(tmp_path, lambda _host, _path: ok(b"key")).served(ADVANCED) as way:
        alien = Way(None, way.detours)
        code = refused(lambda: keysources.web_key("bert@partner.test", alien))
    assert code == "key-lookup-failed"


def test_a_slow_server_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keysources, "DEADLINE_S", 0.5)
    released = threading.Event()

    def slow(_host: str, _path: str) -> bytes:
        released.wait(60)
        return b""

    with Web(tmp_path, slow).served(ADVANCED) as way:
        code = refused(lambda: keysources.web_key("bert@partner.test", way))
        released.set()
    assert code == "key-lookup-failed"


def test_a_key_server_is_asked_by_address_and_by_fingerprint(tmp_path: Path) -> None:
    web = Web(tmp_path, lambda _host, _path: ok(b"key"))
    with web.served(KEYS) as way:
        assert keysources.key_server(f"hkps://{KEYS}", "bert@partner.test", way)[1] == b"key"
        keysources.key_server(KEYS, "A" * 40, way)
    lookup = f"{KEYS}/pks/lookup?op=get&options=mr&search="
    assert web.asked == [f"{lookup}bert%40partner.test", f"{lookup}0x{'A' * 40}"]


@pytest.mark.parametrize(
    "server",
    ["hkp://keys.test", "http://keys.test", "hkps://a:b@keys.test", "ldap://x", "hkps://x/y"],
)
def test_a_server_without_protection_is_not_asked(server: str) -> None:
    with pytest.raises(InvalidInputError):
        keysources.parse_key_server(server)


# --- from a server to a key that can be accepted, with real keys


@pytest.fixture(scope="module")
def bert() -> Iterator[Person]:
    with Person("Bert Partner", CORRESPONDENT) as person:
        yield person


def test_a_published_key_is_offered_for_its_address(tmp_path: Path, bert: Person) -> None:
    binary = read_keys(bert.public_key().encode())[0].data
    web = Web(tmp_path, lambda _host, _path: ok(binary))
    with web.served(ADVANCED) as way:
        place, content = keysources.web_key(CORRESPONDENT, way)
    source = correspondents.Source(place, content, address=CORRESPONDENT)
    (reading,) = KeyReader(tmp_path / "run").read([content])
    (offer,) = offered(source, reading).offers
    assert offer.accepted().fingerprint == bert.fingerprint
    assert offer.accepted().addresses == (CORRESPONDENT,)


# --- mails on the customer's server


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    if shutil.which("dovecot", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("Dovecot is not installed")
    with MailServer() as running:
        yield running


def with_key(bert: Person, identity: str) -> bytes:
    head = (
        f"From: {bert.sender}\r\nMessage-ID: {identity}\r\nContent-Type: application/pgp-keys\r\n"
    )
    return f"{head}\r\n{bert.public_key()}".replace("\r\n", "\n").replace("\n", "\r\n").encode()


def fetch(server: MailServer, identity: str, security: Security = Security.TLS) -> bytes:
    port = server.ports.imaps if security is Security.TLS else server.ports.imap
    host = server.names[0]
    endpoint = Endpoint(host, port, security, ("127.0.0.1", port))
    password = server.password(CUSTOMER)
    return mailfetch.fetch(endpoint, CUSTOMER, password, server.authority, identity)


@pytest.mark.parametrize("security", list(Security))
def test_a_mail_is_fetched_and_stays_unread(
    server: MailServer, bert: Person, security: Security
) -> None:
    identity = f"<key-{security}@partner.test>"
    server.deliver(with_key(bert, identity), CUSTOMER)
    deadline = time.monotonic() + 20
    while True:
        try:
            content = fetch(server, identity, security)
            break
        except MailboxError as error:
            assert error.code == "mail-not-found" and time.monotonic() < deadline
    sender, keys = keys_of_mail(content)
    assert sender == CORRESPONDENT
    assert [each.fingerprint for each in read_keys(keys)] == [bert.fingerprint]
    assert fetch(server, identity, security) == content


def test_a_mail_that_is_not_there_is_said(server: MailServer) -> None:
    assert refused(lambda: fetch(server, "<nobody@partner.test>")) == "mail-not-found"


@pytest.mark.parametrize("identity", ["", "<a b@c>", '<a"b@c>', "<a@b>\r\nA LOGOUT", "<a>"])
def test_what_is_no_message_id_is_refused(identity: str) -> None:
    with pytest.raises(InvalidInputError):
        mailfetch.parse_message_id(identity)


def test_a_server_that_floods_is_left(tmp_path: Path) -> None:
    """A literal that is announced larger than any mail may be."""
    chain = certificate("localhost")
    answers = {
        "greeting": "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n",
        "CAPABILITY": "* CAPABILITY IMAP4rev1\r\n{tag} OK\r\n",
    }
    flood = FloodingImap(tmp_path, chain, answers)
    with listening(flood) as port:
        endpoint = Endpoint("localhost", port)
        action = lambda: mailfetch.fetch(endpoint, "anna", "pw", chain[0], "<a@b.test>")  # noqa: E731
        assert refused(action) == "server-unreachable"


class FloodingImap(Script):
    """An IMAP server that agrees to everything and then announces four gigabytes."""

    def __call__(self, plain: socket.socket) -> None:
        with self.context.wrap_socket(plain, server_side=True) as connection:
            lines = connection.makefile("rwb", buffering=0)
            lines.write(b"* OK [CAPABILITY IMAP4rev1] hi\r\n")
            while line := lines.readline().decode(errors="replace"):
                tag, _, command = line.strip().partition(" ")
                word = command.upper()
                if word.startswith("CAPABILITY"):
                    lines.write(b"* CAPABILITY IMAP4rev1\r\n")
                elif word.startswith("UID SEARCH"):
                    lines.write(b"* SEARCH 7\r\n")
                elif word.startswith("UID FETCH"):
                    lines.write(b"* 1 FETCH (UID 7 BODY[] {4294967295}\r\n")
                    return
                elif word.startswith("EXAMINE"):
                    lines.write(b"* 1 EXISTS\r\n")
                lines.write(f"{tag} OK done\r\n".encode())
