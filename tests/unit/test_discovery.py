"""Discovery of mail servers: documents, service records, and the order of the sources."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import dns.exception
import dns.resolver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.host import autoconfig, mailrecords
from sandbox.host.autoconfig import LookupFailedError, fill, parse_clientconfig
from sandbox.host.discovery import ISPDB, Discovered, ascii_domain, discover, search
from sandbox.host.mailrecords import Service, provider_domains, service_guesses, services_doubt
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.errors import InvalidInputError, MailboxError

ADDRESS = "anna@kunde.test"
AUTOCONFIG = "https://autoconfig.kunde.test/mail/config-v1.1.xml?emailaddress=anna%40kunde.test"
WELL_KNOWN = "https://kunde.test/.well-known/autoconfig/mail/config-v1.1.xml"


def server(
    kind: str = "imap",
    *,
    host: str = "%EMAILDOMAIN%",
    port: str = "993",
    socket: str = "SSL",
    login: str = "%EMAILADDRESS%",
    auth: tuple[str, ...] = ("password-cleartext",),
) -> str:
    element = "outgoingServer" if kind == "smtp" else "incomingServer"
    methods = "".join(f"<authentication>{each}</authentication>" for each in auth)
    return (
        f'<{element} type="{kind}"><hostname>{host}</hostname><port>{port}</port>'
        f"<socketType>{socket}</socketType>{methods}<username>{login}</username></{element}>"
    )


def document(*servers: str) -> bytes:
    body = "".join(servers)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><clientConfig version="1.1">'
        f'<emailProvider id="kunde.test"><domain>kunde.test</domain>{body}</emailProvider>'
        "</clientConfig>"
    ).encode()


GOOD = document(
    server("pop3", host="pop.kunde.test", port="995"),
    server("imap", host="imap.%EMAILDOMAIN%", login="%EMAILLOCALPART%"),
    server("smtp", host="smtp.%EMAILDOMAIN%", port="587", socket="STARTTLS"),
)


@dataclass
class Net:
    """A recorded network."""

    documents: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, list[Service]] = field(default_factory=dict)
    mx: list[str] = field(default_factory=list)
    dns_down: bool = False
    asked: list[str] = field(default_factory=list)

    def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.documents:
            raise LookupFailedError("it answers 404")
        return self.documents[url]

    def services(self, name: str) -> list[Service]:
        if self.dns_down:
            raise LookupFailedError("LifetimeTimeout")
        return self.records.get(name, [])

    def exchanges(self, domain: str) -> list[str]:
        if self.dns_down:
            raise LookupFailedError("LifetimeTimeout")
        return self.mx

    def found(self, address: str = ADDRESS) -> Discovered | None:
        return search(address, fetch=self.fetch, dns=self).found


def test_a_document_gives_its_protected_servers_in_order() -> None:
    imap, smtp = parse_clientconfig(GOOD, ADDRESS)
    assert imap.endpoint == Endpoint("imap.kunde.test", 993, Security.TLS)
    assert imap.login == "anna"
    assert smtp.endpoint == Endpoint("smtp.kunde.test", 587, Security.STARTTLS)
    assert smtp.login == ADDRESS


@pytest.mark.parametrize(
    "bad",
    [
        server(socket="plain"),
        server(port="0"),
        server(port="65536"),
        server(port="99999999999"),
        server(port="\u0661\u0662"),
        server(host="10.0.0.1"),
        server(host="localhost"),
        server(host="imap.kunde.test/../x"),
        server(host=""),
        server(login="anna\nx"),
        server(login="a" * 300),
        server(auth=("password-encrypted",)),
        server(auth=()),
    ],
)
def test_a_server_that_cannot_be_used_is_left_out(bad: str) -> None:
    good = server(host="imap.kunde.test")
    assert [g.endpoint.host for g in parse_clientconfig(document(bad, good), ADDRESS)] == [
        "imap.kunde.test"
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"<html></html>",
        b"<clientConfig>",
        b'<?xml version="1.0" encoding="nonsense"?><clientConfig/>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><clientConfig>&b;</clientConfig>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><clientConfig/>',
    ],
)
def test_what_is_no_plain_document_is_refused(hostile: bytes) -> None:
    with pytest.raises(LookupFailedError):
        parse_clientconfig(hostile, ADDRESS)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    with contextlib.suppress(LookupFailedError):
        assert parse_clientconfig(data, ADDRESS) == []


def test_placeholders_are_replaced_once() -> None:
    assert fill("%EMAILLOCALPART%+%EMAILDOMAIN%", ADDRESS) == "anna+kunde.test"
    assert fill("100%", ADDRESS) == "100%"
    assert fill("%EMAILADDRESS%", "%EMAILDOMAIN%@kunde.test") == "%EMAILDOMAIN%@kunde.test"


def test_the_domains_own_document_comes_first_and_nobody_else_is_asked() -> None:
    net = Net({AUTOCONFIG: GOOD, WELL_KNOWN: document(), ISPDB + "kunde.test": GOOD})
    found = net.found()
    assert found is not None
    assert found.source == "https://autoconfig.kunde.test/mail/config-v1.1.xml"
    assert found.imap.host == "imap.kunde.test"
    assert not found.doubt
    assert set(net.asked) == {AUTOCONFIG, WELL_KNOWN}


def test_the_well_known_place_is_second() -> None:
    found = Net({WELL_KNOWN: GOOD}).found()
    assert found is not None
    assert found.source == WELL_KNOWN


RECORDS = {
    "_imaps._tcp.kunde.test": [
        Service(10, 5, 993, "b.kunde.test."),
        Service(0, 5, 993, "a.x.test."),
    ],
    "_imap._tcp.kunde.test": [Service(0, 0, 143, "plain.kunde.test.")],
    "_submission._tcp.kunde.test": [Service(0, 0, 587, "smtp.kunde.test.")],
    "_submissions._tcp.kunde.test": [Service(0, 0, 0, ".")],
}


def test_service_records_prefer_tls_and_priority_and_raise_a_doubt() -> None:
    found = Net(records=RECORDS).found()
    assert found is not None
    assert found.imap == Endpoint("a.x.test", 993, Security.TLS)
    assert found.smtp == Endpoint("smtp.kunde.test", 587, Security.STARTTLS)
    assert found.login == ADDRESS
    assert "a.x.test" in found.doubt


def test_targets_inside_the_domain_raise_no_doubt() -> None:
    guesses = service_guesses(
        [Service(0, 0, 993, "imap.kunde.test.")], "imap", Security.TLS, ADDRESS
    )
    assert services_doubt(guesses, "kunde.test") == ""
    assert services_doubt(guesses, "unde.test") != ""


def test_the_database_is_asked_for_the_domain_only() -> None:
    net = Net({ISPDB + "kunde.test": GOOD})
    found = net.found()
    assert found is not None
    assert found.source == ISPDB + "kunde.test"
    assert all("anna" not in url for url in net.asked if url.startswith(ISPDB))


def test_the_mail_exchange_names_the_provider() -> None:
    net = Net({ISPDB + "hoster.example": GOOD}, mx=["mx1.in.hoster.example"])
    found = net.found()
    assert found is not None
    assert "mx1.in.hoster.example" in found.doubt
    assert not [url for url in net.asked if "autoconfig.hoster" in url]


@pytest.mark.parametrize(
    ("exchange", "domains"),
    [
        ("mx.hoster.example", ["hoster.example"]),
        ("a.b.hoster.co.uk", ["b.hoster.co.uk", "hoster.co.uk", "co.uk"]),
        ("a.b.c.d.e.example", ["c.d.e.example", "d.e.example", "e.example"]),
        ("hoster.example", []),
        ("", []),
    ],
)
def test_parents_of_an_exchange(exchange: str, domains: list[str]) -> None:
    assert provider_domains(exchange) == domains


def test_nothing_found_says_everything_that_was_tried() -> None:
    result = search(ADDRESS, fetch=Net().fetch, dns=Net(dns_down=True))
    assert result.found is None
    assert [tried.source for tried in result.tried] == [
        "https://autoconfig.kunde.test/mail/config-v1.1.xml",
        WELL_KNOWN,
        "service records of kunde.test",
        ISPDB + "kunde.test",
        "mail exchanges of kunde.test",
    ]
    assert "404" in result.tried[0].outcome
    assert "no name server" in result.tried[2].outcome
    with pytest.raises(MailboxError) as error:
        discover(ADDRESS, fetch=Net().fetch, dns=Net())
    assert error.value.code == "servers-not-found"
    assert WELL_KNOWN in error.value.details


def test_a_provider_without_passwords_is_said() -> None:
    oauth = document(server(auth=("OAuth2",)), server("smtp", auth=("OAuth2",), port="465"))
    with pytest.raises(MailboxError) as error:
        Net({ISPDB + "kunde.test": oauth}).found()
    assert error.value.code == "oauth2-only"


def test_passwords_are_taken_where_both_are_offered() -> None:
    both = ("OAuth2", "password-cleartext")
    net = Net({AUTOCONFIG: document(server(auth=both), server("smtp", auth=both, port="465"))})
    assert net.found() is not None


def test_a_fetch_that_breaks_hides_no_other_source() -> None:
    def fetch(url: str) -> bytes:
        if url == WELL_KNOWN:
            return GOOD
        raise RuntimeError("secret detail")

    result = search(ADDRESS, fetch=fetch, dns=Net())
    assert result.found is not None
    assert result.tried[0].outcome == "it could not be read (RuntimeError)"


def test_international_domains_are_asked_as_dns_knows_them() -> None:
    assert ascii_domain("anna@b\u00fccher.example") == "xn--bcher-kva.example"
    net = Net()
    net.found("anna@b\u00fccher.example")
    assert WELL_KNOWN.replace("kunde.test", "xn--bcher-kva.example") in net.asked


@pytest.mark.parametrize(
    "address", ["anna", "a@b", "@kunde.test", "anna@stra\u00dfe.example", "a@1.2.3.4"]
)
def test_what_is_no_address_is_refused_before_anything_is_asked(address: str) -> None:
    net = Net()
    with pytest.raises(InvalidInputError):
        net.found(address)
    assert net.asked == []


@pytest.mark.parametrize("url", ["http://kunde.test/", "file:///etc/passwd", "ftp://kunde.test/x"])
def test_only_https_is_fetched(url: str) -> None:
    with pytest.raises(LookupFailedError, match="unknown url type"):
        autoconfig.fetch_https(url)


def test_lookups_that_fail_are_told_from_empty_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise dns.exception.Timeout

    def empty(*_: object, **__: object) -> None:
        raise dns.resolver.NXDOMAIN

    monkeypatch.setattr(dns.resolver, "resolve", empty)
    assert mailrecords.PublicDns().services("_imaps._tcp.kunde.test") == []
    monkeypatch.setattr(dns.resolver, "resolve", fails)
    with pytest.raises(LookupFailedError):
        mailrecords.PublicDns().exchanges("kunde.test")
