"""Finding calendars and address books: a real Radicale, and servers that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.authority import Credentials, issue
from demo.davserver import HOST, LOGIN, DavServer
from sandbox.host.davcheck import collections
from sandbox.host.mailrecords import Service
from sandbox.model.dav import Collection, Kind, Named, parse_place
from sandbox.model.errors import MailboxError

pytest.importorskip("radicale")

WORD = "Canary-Termine-0420"


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return issue([HOST, f"below.{HOST}", "elsewhere.test"])


@pytest.fixture(scope="module")
def server(credentials: Credentials) -> Iterator[DavServer]:
    with DavServer(credentials) as made:
        yield made


class NoDns:
    """Names no service anywhere."""

    def services(self, name: str) -> list[Service]:
        return []

    def exchanges(self, domain: str) -> list[str]:
        return []


class LyingDns(NoDns):
    """Names a server outside of the domain."""

    def services(self, name: str) -> list[Service]:
        return [Service(0, 0, 443, "elsewhere.test.")]


def named(place: str, port: int, kind: Kind = Kind.CALENDAR, password: str = WORD) -> Named:
    return Named(kind, Collection(parse_place(place), connect=("127.0.0.1", port)), LOGIN, password)


def refusal(wanted: Named, ca: str | None) -> MailboxError:
    with pytest.raises(MailboxError) as refused:
        collections([wanted], ca, 5, NoDns())
    error = refused.value
    assert error.brief.endswith(".") and error.resolution
    assert WORD not in f"{error.brief} {error.details} {error.resolution}"
    return error


@pytest.mark.parametrize("place", [HOST, f"https://{HOST}/{LOGIN}/", None])
def test_a_place_or_the_collection_itself_is_found(
    server: DavServer, credentials: Credentials, place: str | None
) -> None:
    wanted = [
        named(place or server.calendar, server.port, password=server.password),
        named(place or server.address_book, server.port, Kind.ADDRESS_BOOK, server.password),
    ]
    [[calendar], [book]] = collections(wanted, credentials.authority, dns=NoDns())
    assert (calendar.url, calendar.name) == (server.calendar, "Termine")
    assert (book.url, book.name) == (server.address_book, "Kontakte")
    assert calendar.connect == ("127.0.0.1", server.port)


def test_a_name_that_was_given_stays(server: DavServer, credentials: Credentials) -> None:
    wanted = named(server.calendar, server.port, password=server.password)
    mine = Named(
        wanted.kind,
        Collection(server.calendar, "Meiner", connect=wanted.collection.connect),
        LOGIN,
        server.password,
    )
    [[calendar]] = collections([mine], credentials.authority, dns=NoDns())
    assert calendar.name == "Meiner"


@pytest.mark.parametrize("path", ["/anna/kontakte/", "/anna/termine/nothing/", "/nothing/"])
def test_what_is_no_calendar_is_not_taken_for_one(
    server: DavServer, credentials: Credentials, path: str
) -> None:
    wanted = named(f"https://{HOST}{path}", server.port, password=server.password)
    assert refusal(wanted, credentials.authority).code in ("dav-not-found", "login-refused")


def test_a_wrong_password_is_refused(server: DavServer, credentials: Credentials) -> None:
    assert refusal(named(HOST, server.port), credentials.authority).code == "login-refused"


def test_an_untrusted_server_gets_no_password(server: DavServer) -> None:
    error = refusal(named(HOST, server.port), None)
    assert error.code == "certificate-not-trusted" and "SHA-256" in error.details
    assert "PROPFIND" not in server.log(1)


def test_a_server_that_is_away_is_said(credentials: Credentials) -> None:
    error = refusal(named(HOST, 1), credentials.authority)
    assert error.code == "server-unreachable" and "https" in error.resolution


def test_all_that_is_wrong_is_said_at_once(server: DavServer, credentials: Credentials) -> None:
    with pytest.raises(MailboxError) as refused:
        collections([named(HOST, server.port), named(HOST, 1)], credentials.authority, 5, NoDns())
    assert "refused the login" in refused.value.brief and "reached" in refused.value.brief


# --- servers that misbehave

Answer = tuple[int, dict[str, str], bytes]
MULTI = b"""<multistatus xmlns="DAV:"><response><href>/a/</href><propstat><prop>%s</prop>
<status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"""


@contextlib.contextmanager
def serving(
    credentials: Credentials,
    folder: Path,
    answer: Callable[[str], Answer],
    challenge: str = 'Basic realm="x"',
) -> Iterator[tuple[int, list[str]]]:
    """An HTTPS server that answers each path as it is told; yields its port and what came."""
    came: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PROPFIND(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            came.append(f"{self.headers.get('Host')}{self.path} {self.headers['Authorization']}")
            status, headers, body = answer(self.path)
            if self.headers["Authorization"] is None and status != 401:
                status, headers, body = 401, {"WWW-Authenticate": challenge}, b""
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    (folder / "pem").write_text(credentials.certificate + credentials.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        try:
            yield made.server_address[1], came
        finally:
            made.shutdown()


def test_no_other_host_is_followed(credentials: Credentials, tmp_path: Path) -> None:
    def away(_path: str) -> Answer:
        return 302, {"Location": "https://elsewhere.test/a/"}, b""

    with serving(credentials, tmp_path, away) as (port, came):
        error = refusal(named(HOST, port), credentials.authority)
    assert error.code == "dav-elsewhere" and "https://elsewhere.test/a/" in error.brief
    assert all(line.startswith(HOST) for line in came)


@pytest.mark.parametrize(
    "properties",
    [
        b"<current-user-principal><href>https://elsewhere.test/p/</href></current-user-principal>",
        b'<calendar-home-set xmlns="urn:ietf:params:xml:ns:caldav">'
        b'<href xmlns="DAV:">http://dav.kunde.test/p/</href></calendar-home-set>',
    ],
)
def test_no_other_host_or_scheme_is_asked(
    credentials: Credentials, tmp_path: Path, properties: bytes
) -> None:
    with serving(credentials, tmp_path, lambda _: (207, {}, MULTI % properties)) as (port, came):
        error = refusal(named(f"https://{HOST}/a/", port), credentials.authority)
    assert error.code in ("dav-elsewhere", "dav-not-found")
    assert all(line.startswith(f"{HOST}/a/") for line in came)


@pytest.mark.parametrize(
    "answer",
    [
        (207, {}, b"<html>"),
        (207, {}, b"<other/>"),
        (207, {}, b'<!DOCTYPE x [<!ENTITY a "b">]><multistatus xmlns="DAV:">&a;</multistatus>'),
        (207, {}, MULTI % b"<resourcetype><collection/></resourcetype>"),
        (200, {}, b"hello"),
        (500, {}, b""),
        (302, {"Location": "/again/"}, b""),
        (302, {}, b""),
    ],
)
def test_what_makes_no_sense_is_an_answer_like_none(
    credentials: Credentials, tmp_path: Path, answer: Answer
) -> None:
    with serving(credentials, tmp_path, lambda _path: answer) as (port, _):
        error = refusal(named(HOST, port), credentials.authority)
    assert error.code == "dav-not-found" and "/.well-known/caldav" in error.details


def test_a_refusal_that_repeats_the_password_is_not_shown(
    credentials: Credentials, tmp_path: Path
) -> None:
    def repeat(_path: str) -> Answer:
        return 403, {"X-Said": WORD}, WORD.encode()

    with serving(credentials, tmp_path, repeat) as (port, came):
        refusal(named(HOST, port), credentials.authority)
    assert b64encode(f"{LOGIN}:{WORD}".encode()).decode() in came[-1]


def test_a_server_outside_of_the_domain_is_only_told(credentials: Credentials) -> None:
    wanted = Named(Kind.CALENDAR, Collection(f"https://{HOST}/"), LOGIN, WORD)
    with pytest.raises(MailboxError) as refused:
        collections([wanted], credentials.authority, 5, LyingDns())
    assert refused.value.code == "dav-elsewhere"


@pytest.mark.parametrize(
    ("scheme", "code"), [("Bearer", "oauth2-only"), ("Negotiate", "login-refused")]
)
def test_a_server_without_passwords_is_said(
    credentials: Credentials, tmp_path: Path, scheme: str, code: str
) -> None:
    asked: Answer = 401, {"WWW-Authenticate": f'{scheme} realm="x"'}, b""
    with serving(credentials, tmp_path, lambda _path: asked) as (port, came):
        error = refusal(named(HOST, port), credentials.authority)
    assert error.code == code
    assert all(line.endswith(" None") for line in came)


def test_a_digest_is_answered_without_the_password(
    credentials: Credentials, tmp_path: Path
) -> None:
    kind = b'<resourcetype><calendar xmlns="urn:ietf:params:xml:ns:caldav"/></resourcetype>'
    challenge = 'Digest realm="x", nonce="abc", qop="auth", algorithm=MD5'
    found: Answer = 207, {}, MULTI % kind
    with serving(credentials, tmp_path, lambda _path: found, challenge) as (port, came):
        wanted = named(f"https://{HOST}/a/", port)
        [[calendar]] = collections([wanted], credentials.authority, 5, NoDns())
    assert calendar.name == "a"
    assert 'Digest username="anna"' in came[-1] and WORD not in "".join(came)
