"""Finds the calendars and address books that were named, with login and certificate checked.

What is named may be a collection itself, or a server or a place on it that knows where the user's
collections are (RFC 6764): then all of them are taken. Nothing is written to the server.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

from sandbox.host.autoconfig import LookupFailedError
from sandbox.host.davhttp import CALDAV, CARDDAV, Elsewhere, NoDav, Resource, Server
from sandbox.host.mailcheck import TIMEOUT_S, explain, together
from sandbox.host.maillogin import Login, checked
from sandbox.host.mailrecords import Dns, PublicDns
from sandbox.host.servercert import (
    CertificateFacts,
    certificate_error,
    context_for,
    context_to_look,
    one_line,
    read_certificate,
)
from sandbox.host.sidebyside import side_by_side
from sandbox.model.dav import Collection, Kind, Named, parse_url
from sandbox.model.endpoints import Endpoint, host_problem
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.names import text_problem

_TYPE = {Kind.CALENDAR: f"{CALDAV}calendar", Kind.ADDRESS_BOOK: f"{CARDDAV}addressbook"}
_HOME = {
    Kind.CALENDAR: f"{CALDAV}calendar-home-set",
    Kind.ADDRESS_BOOK: f"{CARDDAV}addressbook-home-set",
}
_SERVICE = {Kind.CALENDAR: "caldav", Kind.ADDRESS_BOOK: "carddav"}
_MOST_HOMES = 4
_ATTEMPTS = 4  # servers are asked several things, one after the other


def collections(
    wanted: Sequence[Named],
    ca_pem: str | None,
    timeout_s: float = TIMEOUT_S,
    dns: Dns | None = None,
) -> list[tuple[Collection, ...]]:
    """For each thing that was named, the collections that it stands for, at least one.

    Raises:
        MailboxError: `dav-not-found`, `dav-elsewhere`, and those of `mailcheck.check`; of several
            errors the code is the first's.
    """
    context = context_for(ca_pem)
    logins = [checked(each.login, each.password) for each in wanted]
    answers = side_by_side(
        [
            partial(_find_one, each, login, context, timeout_s, dns or PublicDns())
            for each, login in zip(wanted, logins, strict=True)
        ],
        timeout_s * _ATTEMPTS,
    )
    errors = [
        _explain(each, answer, login, timeout_s)
        for each, login, answer in zip(wanted, logins, answers, strict=True)
        if isinstance(answer, Exception)
    ]
    if errors:
        raise together(errors) from None
    return [answer for answer in answers if not isinstance(answer, Exception)]


def _find_one(
    wanted: Named, login: Login, context: ssl.SSLContext, timeout_s: float, dns: Dns
) -> tuple[Collection, ...]:
    named = wanted.collection
    server = Server(named, login, context, timeout_s)
    problems: list[str] = []
    for place in _places(wanted, dns):
        try:
            found = _at(server, wanted.kind, place)
        except NoDav as error:
            problems.append(f"{place}: {error}")
            continue
        if found:
            return _named(named, found)
        problems.append(f"{place}: it names no {wanted.kind} of {one_line(login.name)}")
    raise _not_found(wanted, problems)


def _places(wanted: Named, dns: Dns) -> Iterator[str]:
    """Where to ask, the best first."""
    named = wanted.collection
    well_known = f"/.well-known/{_SERVICE[wanted.kind]}"
    if not named.is_place:
        yield named.url
        return
    if named.connect is None and urlsplit(named.url).port is None:
        yield from (f"{origin}{well_known}" for origin in _by_records(wanted, dns))
    yield f"{_origin(named.url)}{well_known}"
    yield named.url


def _by_records(wanted: Named, dns: Dns) -> list[str]:
    """Servers that DNS names; DNS can lie, so one outside of the named domain is only told."""
    host = wanted.collection.endpoint.host
    try:
        records = dns.services(f"_{_SERVICE[wanted.kind]}s._tcp.{host}")
    except LookupFailedError:
        return []
    ordered = sorted(records, key=lambda each: (each.priority, -each.weight))
    targets = [(each.target.rstrip(".").lower(), each.port) for each in ordered]
    usable = [each for each in targets if each[0] and not host_problem(each[0])]
    inside = [each for each in usable if each[0] == host or each[0].endswith(f".{host}")]
    if usable and not inside:
        raise Elsewhere(f"https://{usable[0][0]}:{usable[0][1]}/")
    return [f"https://{target}:{port}" for target, port in inside]


def _origin(url: str) -> str:
    return f"https://{urlsplit(url).netloc}"


def _at(server: Server, kind: Kind, place: str) -> list[Resource]:
    here = server.look(place)
    if not here:
        return []
    if _is(kind, here[0]):
        return here[:1]
    if here[0].types & set(_TYPE.values()):
        raise NoDav(f"it is no {kind}")
    principal = here[0].principal
    homes = here[0].homes[_HOME[kind]]
    if not homes and principal:
        homes = tuple(home for each in server.look(principal) for home in each.homes[_HOME[kind]])
    return [
        each for home in homes[:_MOST_HOMES] for each in server.look(home, 1) if _is(kind, each)
    ]


def _is(kind: Kind, resource: Resource) -> bool:
    """A calendar for tasks alone is none."""
    holds = kind is not Kind.CALENDAR or "VEVENT" in (resource.components or {"VEVENT"})
    return _TYPE[kind] in resource.types and holds


def _named(named: Collection, found: Sequence[Resource]) -> tuple[Collection, ...]:
    """What was found, with the login that was given, and the server's names where none was."""
    result = []
    for resource in found:
        url = parse_url(resource.url)
        beside = replace(named, url=url, name=_name(named, resource, len(found)))
        same_server = beside.endpoint.host == named.endpoint.host
        same_server = same_server and beside.endpoint.port == named.endpoint.port
        result.append(beside if same_server else replace(beside, connect=None))
    return tuple(result)


def _name(named: Collection, resource: Resource, count: int) -> str:
    if named.name and count == 1:
        return named.name
    name = one_line(resource.name)
    last = one_line(unquote(urlsplit(resource.url).path.rstrip("/").rpartition("/")[2]))
    return name if name and not text_problem(name) else last


# --- what went wrong ------------------------------------------------------------------------


def _explain(wanted: Named, error: Exception, login: Login, timeout_s: float) -> MailboxError:
    explained = _explained(wanted, error, login, timeout_s)
    if explained.code not in ("server-unreachable", "no-tls"):
        return explained
    return MailboxError(
        explained.brief,
        details=explained.details,
        resolution="Check the URL and the network; only https is used.",
        code=explained.code,
        exit_code=explained.exit_code,
    )


def _explained(wanted: Named, error: Exception, login: Login, timeout_s: float) -> MailboxError:
    endpoint = wanted.collection.endpoint
    match error:
        case Elsewhere():
            return _elsewhere(wanted, str(error))
        case URLError() if isinstance(error.reason, ssl.SSLCertVerificationError):
            return certificate_error(endpoint, error.reason, _look(endpoint, timeout_s))
        case URLError() if isinstance(error.reason, Exception):
            return explain(endpoint, error.reason, login, timeout_s)
        case HTTPException():
            return explain(endpoint, OSError(type(error).__name__), login, timeout_s)
        case _:
            return explain(endpoint, error, login, timeout_s)


def _look(endpoint: Endpoint, timeout_s: float) -> CertificateFacts | None:
    """A refused certificate, to show it; nothing is sent on that connection."""
    try:
        plain = socket.create_connection(endpoint.target, timeout_s)
        with context_to_look().wrap_socket(plain, server_hostname=endpoint.host) as sock:
            return read_certificate(sock.getpeercert(binary_form=True) or b"", sock.version())
    except OSError:
        return None


def _elsewhere(wanted: Named, place: str) -> MailboxError:
    return MailboxError(
        f"The server {wanted.collection.endpoint} sends the question for the {wanted.kind} to "
        f"{one_line(place)}; the password was not sent there.",
        resolution="If your provider names that server, too, give its URL instead.",
        code="dav-elsewhere",
        exit_code=Exit.SERVER,
    )


def _not_found(wanted: Named, problems: Sequence[str]) -> MailboxError:
    return MailboxError(
        f"No {wanted.kind} was found at {wanted.collection.url}.",
        details="\n".join(problems),
        resolution="Give the URL that your provider or the server's own pages name.",
        code="dav-not-found",
        exit_code=Exit.SERVER,
    )
