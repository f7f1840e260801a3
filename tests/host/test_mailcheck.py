"""The check of login and certificate, against Dovecot and against servers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demo.mailserver import CUSTOMER, MailServer
from sandbox.host import autoconfig
from sandbox.host.mailcheck import MailCheck, check
from sandbox.host.servercert import context_for
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.errors import InvalidInputError, MailboxError
from tests.host.conftest import need

PASSWORD = "Canary-Geheim-4711"
LOGIN = "anna@kunde.test"
IMAP, SMTP = "imap.kunde.test", "smtp.kunde.test"


# --- certificates and servers of our own


def certificate(
    *names: str, days: int = 10, age_days: int = 1, authority: str = "Own authority"
) -> tuple[str, str, str]:
    """An authority, a server certificate and its key, as PEM."""
    now = datetime.now(UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority)])

    def build(
        subject: x509.Name, public: ec.EllipticCurvePublicKey, end: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=age_days))
            .not_valid_after(now + timedelta(days=end))
        )

    root = build(issuer, authority_key.public_key(), 10).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    leaf = build(subject, key.public_key(), days).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    signed = [each.sign(authority_key, hashes.SHA256()) for each in (root, leaf)]
    return signed[0].public_bytes(pem).decode(), signed[1].public_bytes(pem).decode(), secret


Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(talk: Talk) -> Iterator[int]:
    """A server on the loopback that talks to each connection in a thread; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            connection.settimeout(5)
            with connection, contextlib.suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()


class Script:
    """Speaks just enough IMAP or SMTP over TLS; `heard` is every line that came."""

    def __init__(self, folder: Path, chain: tuple[str, str, str], answers: dict[str, str]) -> None:
        path = folder / "server.pem"
        path.write_text(chain[1] + chain[2])
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(path)
        self.answers = answers
        self.heard: list[str] = []

    def __call__(self, plain: socket.socket) -> None:
        with self.context.wrap_socket(plain, server_side=True) as connection:
            lines = connection.makefile("rwb", buffering=0)
            lines.write(self.answers["greeting"].encode())
            while line := lines.readline().decode(errors="replace"):
                self.heard.append(line.strip())
                lines.write(self._answer(line).encode())

    def _answer(self, line: str) -> str:
        tag, *rest = line.split()
        for command, answer in self.answers.items():
            if command in (tag.upper(), *(word.upper() for word in rest[:1])):
                return answer.replace("TAG", tag)
        return self.answers.get("else", "").replace("TAG", tag)


IMAP_TALK = {
    "greeting": "* OK ready\r\n",
    "CAPABILITY": "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nTAG OK done\r\n",
    "AUTHENTICATE": "+ \r\n",
    "LOGIN": "TAG OK in\r\n",
    "LOGOUT": "* BYE\r\nTAG OK bye\r\n",
    "else": "A1 NO nothing\r\n",
}
SMTP_TALK = {
    "greeting": "220 ready\r\n",
    "EHLO": "250-here\r\n250 AUTH PLAIN\r\n",
    "AUTH": "235 in\r\n",
    "QUIT": "221 bye\r\n",
    "else": "500 what\r\n",
}


def at(host: str, port: int, security: Security = Security.TLS) -> Endpoint:
    wanted = 993 if security is Security.TLS else 143
    return Endpoint(host, wanted, security, ("127.0.0.1", port))


def refused(
    imap: Endpoint,
    smtp: Endpoint,
    ca: str | None = None,
    *,
    password: str = PASSWORD,
    timeout_s: float = 10,
) -> MailboxError:
    """The error of a check; the password is nowhere in it, nor in its traceback."""
    with pytest.raises(MailboxError) as caught:
        check(imap, smtp, LOGIN, password, ca, timeout_s)
    error = caught.value
    said = "".join(traceback.format_exception(error))
    assert password not in said + error.brief + error.details + error.resolution
    return error


# --- a real server


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    need("dovecot")
    with MailServer() as running:
        yield running


def real(server: MailServer, security: Security) -> tuple[Endpoint, Endpoint]:
    ports = server.ports
    if security is Security.TLS:
        return at(IMAP, ports.imaps), at(SMTP, ports.submissions)
    return at(IMAP, ports.imap, security), at(SMTP, ports.submission, security)


@pytest.mark.parametrize("security", list(Security))
def test_a_good_login_on_both_servers(server: MailServer, security: Security) -> None:
    imap, smtp = real(server, security)
    found = check(imap, smtp, CUSTOMER, server.password(CUSTOMER), server.authority)
    assert isinstance(found, MailCheck)
    assert found.imap.server == str(imap)
    assert found.imap.certificate.issuer == "CN=Mail authority of imap.kunde.test"
    assert IMAP in found.smtp.certificate.names
    assert len(found.smtp.certificate.sha256) == 95
    assert found.smtp.certificate.tls_version.startswith("TLSv1.")
    assert asdict(found)["imap"]["security"] == str(security)


@pytest.mark.parametrize("security", list(Security))
def test_a_wrong_password_is_said_by_both(server: MailServer, security: Security) -> None:
    error = refused(*real(server, security), server.authority)
    assert error.code == "login-refused"
    assert IMAP in error.brief
    assert SMTP in error.brief


@pytest.mark.parametrize("security", list(Security))
def test_an_authority_of_its_own_is_not_trusted(server: MailServer, security: Security) -> None:
    error = refused(*real(server, security), password=server.password(CUSTOMER))
    assert error.code == "certificate-not-trusted"
    assert "Mail authority of imap.kunde.test" in error.brief
    assert "--ca FILE" in error.resolution


def test_only_the_given_authority_counts(server: MailServer) -> None:
    error = refused(*real(server, Security.TLS), certificate("other.test")[0])
    assert error.code == "certificate-not-trusted"


@pytest.mark.parametrize("security", list(Security))
def test_a_name_that_the_certificate_lacks(server: MailServer, security: Security) -> None:
    imap, smtp = real(server, security)
    other = Endpoint("imap.andere.test", 993, security, imap.connect)
    error = refused(other, smtp, server.authority, password=server.password(CUSTOMER))
    assert error.code == "certificate-name-mismatch"
    assert "imap.andere.test" in error.brief
    assert "imap.kunde.test" in error.brief


def test_passwords_outside_ascii(server: MailServer) -> None:
    assert (
        refused(
            *real(server, Security.TLS), server.authority, password="Schl\u00fcssel-\U0001f511"
        ).code
        == "login-refused"
    )


# --- servers that misbehave


@pytest.fixture
def chain() -> tuple[str, str, str]:
    return certificate(IMAP, SMTP)


@contextlib.contextmanager
def pair(imap: Talk, smtp: Talk) -> Iterator[tuple[Endpoint, Endpoint]]:
    with listening(imap) as imap_port, listening(smtp) as smtp_port:
        yield at(IMAP, imap_port), at(SMTP, smtp_port)


def scripts(
    folder: Path,
    chain: tuple[str, str, str],
    imap: dict[str, str] | None = None,
    smtp: dict[str, str] | None = None,
) -> tuple[Script, Script]:
    return (
        Script(folder, chain, {**IMAP_TALK, **(imap or {})}),
        Script(folder, chain, {**SMTP_TALK, **(smtp or {})}),
    )


PASSWORD_FORMS = {"CAPABILITY": "* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n"}


def test_older_login_commands_are_spoken(tmp_path: Path, chain: tuple[str, str, str]) -> None:
    name, word = (base64.b64encode(text.encode()).decode() for text in (LOGIN, PASSWORD))
    ask = "334 VXNlcm5hbWU6\r\n"
    smtp_talk = {
        "EHLO": "250-here\r\n250 AUTH LOGIN\r\n",
        "AUTH": ask,
        name.upper(): ask,
        word.upper(): "235 in\r\n",
    }
    talk = scripts(tmp_path, chain, PASSWORD_FORMS, smtp_talk)
    with pair(*talk) as (imap, smtp):
        assert check(imap, smtp, LOGIN, PASSWORD, chain[0]).smtp.server == str(smtp)
    assert any(f'LOGIN "{LOGIN}" "{PASSWORD}"' in line for line in talk[0].heard)
    assert talk[1].heard[1:4] == ["AUTH LOGIN", name, word]


def test_an_expired_certificate(tmp_path: Path) -> None:
    old = certificate(IMAP, SMTP, days=-2, age_days=30)
    talk = scripts(tmp_path, old)
    with pair(*talk) as (imap, smtp):
        error = refused(imap, smtp, old[0])
    assert error.code == "certificate-expired"
    assert "expired on 20" in error.brief
    assert not [line for script in talk for line in script.heard if "AUTH" in line.upper()]


def test_a_self_signed_certificate_may_be_given_as_its_own_authority(
    tmp_path: Path, chain: tuple[str, str, str]
) -> None:
    talk = scripts(tmp_path, chain, {"CAPABILITY": "* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n"})
    with pair(*talk) as (imap, smtp):
        assert check(imap, smtp, LOGIN, PASSWORD, chain[1]).imap.server == str(imap)


def test_an_authority_that_is_no_certificate(chain: tuple[str, str, str]) -> None:
    endpoint = at(IMAP, 1)
    assert refused(endpoint, endpoint, "hello").code == "ca-invalid"
    assert refused(endpoint, endpoint, "").code == "ca-invalid"


def test_a_server_that_repeats_the_password_is_not_quoted(
    tmp_path: Path, chain: tuple[str, str, str]
) -> None:
    talk = scripts(
        tmp_path,
        chain,
        {**PASSWORD_FORMS, "LOGIN": f"TAG NO wrong: {PASSWORD}\r\n"},
        {"AUTH": f"535 no\x1b[31m {PASSWORD}\r\n"},
    )
    with pair(*talk) as (imap, smtp):
        error = refused(imap, smtp, chain[0])
    assert error.code == "login-refused"
    assert "\x1b" not in error.details


def test_the_password_is_in_no_log(
    tmp_path: Path, chain: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pair(*scripts(tmp_path, chain, {"LOGIN": "TAG NO wrong\r\n", **PASSWORD_FORMS})) as ends:
        refused(*ends, chain[0])
    assert PASSWORD not in caplog.text


def test_only_oauth(tmp_path: Path, chain: tuple[str, str, str]) -> None:
    talk = scripts(
        tmp_path,
        chain,
        {"CAPABILITY": "* CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2\r\nTAG OK done\r\n"},
        {"EHLO": "250-here\r\n250 AUTH XOAUTH2\r\n"},
    )
    with pair(*talk) as (imap, smtp):
        assert refused(imap, smtp, chain[0]).code == "oauth2-only"


def test_a_silent_server_ends_at_the_deadline() -> None:
    with pair(lambda s: time.sleep(3), lambda s: time.sleep(3)) as (imap, smtp):
        started = time.monotonic()
        error = refused(imap, smtp, timeout_s=1)
    assert error.code == "server-unreachable"
    assert "no answer within 1 s" in error.brief
    assert time.monotonic() - started < 5


def test_a_server_that_drips_ends_at_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        for _ in range(30):
            connection.sendall(b"*")
            time.sleep(0.1)

    with listening(drip) as port:
        endpoint = at(IMAP, port, Security.STARTTLS)
        assert refused(endpoint, endpoint, timeout_s=1).code == "server-unreachable"


def test_a_server_without_tls_gets_no_login() -> None:
    heard: list[bytes] = []

    def imap(connection: socket.socket) -> None:
        connection.sendall(b"* OK [CAPABILITY IMAP4rev1] plain\r\n")
        while data := connection.recv(4096):
            heard.append(data)
            tag = data.split()[0]
            connection.sendall(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n" + tag + b" OK done\r\n")

    def smtp(connection: socket.socket) -> None:
        connection.sendall(b"220 plain\r\n")
        while data := connection.recv(4096):
            heard.append(data)
            connection.sendall(b"250-here\r\n250 AUTH PLAIN\r\n")

    with listening(imap) as imap_port, listening(smtp) as smtp_port:
        for security in Security:
            ends = at(IMAP, imap_port, security), at(SMTP, smtp_port, security)
            error = refused(*ends)
            assert error.code == "no-tls"
            assert IMAP in error.brief
            assert SMTP in error.brief
    assert b"AUTH" not in b"".join(heard).upper().replace(b"AUTH=PLAIN", b"")


def test_garbage_is_no_crash() -> None:
    def garbage(connection: socket.socket) -> None:
        connection.sendall(b"\xff\x00garbage\r\n" * 50)

    with listening(garbage) as port:
        for security in Security:
            endpoint = at(IMAP, port, security)
            assert refused(endpoint, endpoint).code in ("server-unreachable", "no-tls")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = refused(at(IMAP, port), at(SMTP, port))
    assert error.code == "server-unreachable"
    assert f"127.0.0.1:{port}" in error.brief


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(address: tuple[str, int], *_: object) -> None:
        assert address[0] == "xn--bcher-kva.example"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    endpoint = Endpoint("b\u00fccher.example", 993)
    error = refused(endpoint, endpoint)
    assert error.code == "server-name-unknown"


def test_no_network_is_not_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def later(*_: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", later)
    assert refused(Endpoint(IMAP, 993), Endpoint(SMTP, 465)).code == "server-unreachable"


@pytest.mark.parametrize("word", ["two\r\nlines", "nul\0", "half \udc80 a letter"])
def test_a_password_that_cannot_be_sent_is_refused_before_anything_is(word: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        check(at(IMAP, 1), at(SMTP, 1), LOGIN, word, None)
    assert word not in error.value.details


# --- the fetch of autoconfiguration documents, against a real HTTPS server


def fetch(folder: Path, reply: bytes) -> bytes:
    chain = certificate("localhost")
    context = context_for(chain[0])
    script = Script(folder, chain, {})

    def talk(plain: socket.socket) -> None:
        with script.context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(reply)

    with listening(talk) as port:
        return autoconfig.fetch_https(f"https://localhost:{port}/", context)


def test_a_document_is_fetched(tmp_path: Path) -> None:
    assert fetch(tmp_path, b"HTTP/1.0 200 OK\r\n\r\n<clientConfig/>") == b"<clientConfig/>"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://kunde.test/\r\n\r\n", "unprotected"),
        (b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "302"),
        (b"HTTP/1.0 302 Found\r\nLocation: /again\r\n\r\n", "302"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (300 << 10), "larger than"),
        (b"nonsense\r\n\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
    ],
)
def test_other_replies_are_refused(tmp_path: Path, reply: bytes, reason: str) -> None:
    with pytest.raises(autoconfig.LookupFailedError, match=reason):
        fetch(tmp_path, reply)


def test_an_untrusted_document_is_refused(tmp_path: Path) -> None:
    script = Script(tmp_path, certificate("localhost"), {"greeting": ""})
    with (
        listening(script) as port,
        pytest.raises(autoconfig.LookupFailedError, match="not trusted"),
    ):
        autoconfig.fetch_https(f"https://localhost:{port}/")
