"""From answers to the account: servers, calendars and address books, and who vouches for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sandbox.cli.answers import Answers
from sandbox.cli.checker import Checker
from sandbox.model import names
from sandbox.model.account import Account
from sandbox.model.dav import MOST, Collection, parse_place, repeated
from sandbox.model.endpoints import Endpoint, Security, parse_connect, parse_server

# A server as it is named, and where the host really connects to.
Detour = tuple[str, int, str, int]


def account_of(checker: Checker, answers: Answers, *, to_find: bool, need_servers: bool) -> Account:
    """The account; with `to_find` calendars may be named by their server alone."""
    address = answers.address or ""
    checker.require("--address", address)
    if address:
        checker.check("--address", address, names.address_problem)
    if need_servers:
        checker.require("--imap", answers.imap)
        checker.require("--smtp", answers.smtp)
    detours = [
        checker.parse("--connect-to", each, parse_connect, None) for each in answers.connect_to
    ]
    known = [each for each in detours if each is not None]
    imap = _endpoint(checker, "--imap", answers.imap, 993, known)
    smtp = _endpoint(checker, "--smtp", answers.smtp, 465, known)
    calendars = _collections(checker, "--caldav", answers.caldav, answers, known, to_find)
    books = _collections(checker, "--carddav", answers.carddav, answers, known, to_find)
    servers = [imap, smtp, *(each.endpoint for each in (*calendars, *books))]
    for host, port, *_ in known:
        if (host, port) not in [(each.host, each.port) for each in servers]:
            checker.problems.append(f"--connect-to: {host}:{port} is none of the servers")
    authorities = checker.read("--ca", answers.ca)
    return Account(
        address=address,
        display_name=checker.check(
            "--display-name", answers.display_name or "", names.text_problem
        ),
        login=checker.check("--login", answers.login or address, names.text_problem),
        imap=imap,
        smtp=smtp,
        signature=checker.check("--signature", answers.signature or "", names.signature_problem),
        ca=certificates_in(checker, authorities),
        calendars=calendars,
        address_books=books,
    )


def _collections(
    checker: Checker,
    place: str,
    said: Sequence[str],
    answers: Answers,
    detours: Sequence[Detour],
    to_find: bool,
) -> tuple[Collection, ...]:
    login = checker.check("--dav-login", answers.dav_login or "", names.text_problem)
    urls = [checker.parse(place, each, parse_place, "") for each in said]
    found = [Collection(url, login=login) for url in urls if url]
    for url in repeated(found):
        checker.problems.append(f"{place}: {url} is there twice")
    if len(found) > MOST:
        checker.problems.append(f"{place}: more than {MOST}")
    for each in found:
        if each.is_place and not to_find:
            checker.problems.append(f"{place}: with --offline give the whole URL, not the server")
    return tuple(replace(each, connect=_detour(each.endpoint, detours)) for each in found)


def _endpoint(
    checker: Checker,
    place: str,
    text: str | None,
    port: int,
    detours: Sequence[Detour],
) -> Endpoint:
    nowhere = Endpoint("", 0, Security.TLS)
    endpoint = checker.parse(place, text, lambda said: parse_server(said, port), nowhere)
    return replace(endpoint, connect=_detour(endpoint, detours))


def _detour(endpoint: Endpoint, detours: Sequence[Detour]) -> tuple[str, int] | None:
    return next(
        (
            (target, target_port)
            for host, port, target, target_port in detours
            if (host, port) == (endpoint.host, endpoint.port)
        ),
        None,
    )


def certificates_in(
    checker: Checker, content: bytes | None, place: str = "--ca"
) -> tuple[str, ...]:
    """The certificates of a PEM file; one without any is a problem."""
    if content is None:
        return ()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = content.decode("ascii", errors="replace")
    found = [part.partition(end)[0] for part in text.split(begin)[1:]]
    if not found:
        checker.problems.append(f"{place}: the file holds no certificate in PEM form")
    return tuple(f"{begin}{part}{end}\n" for part in found)
