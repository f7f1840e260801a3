"""Finds the mail servers of an address as mail clients do, and tells what was tried.

In order: the domain's own autoconfiguration document, its service records (RFC 6186, RFC 8314),
Thunderbird's database (ISPDB), and that database again for the provider that the MX names.
Each stage runs only when the one before found nothing, so no stranger learns more than needed:
the domain sees the address, the database only the domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sandbox.host.autoconfig import (
    Auth,
    LookupFailedError,
    ServerGuess,
    document_urls,
    fetch_https,
    parse_clientconfig,
)
from sandbox.host.mailrecords import (
    SERVICES,
    Dns,
    PublicDns,
    provider_domains,
    service_guesses,
    services_doubt,
)
from sandbox.host.sidebyside import NoAnswerError, side_by_side
from sandbox.model.endpoints import Endpoint, host_problem
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.names import address_problem

STAGE_DEADLINE_S = 10.0
# sharp s, final sigma and joiners: IDNA 2003 (Python) and 2008 (registries) disagree on them
_AMBIGUOUS = frozenset("\u00df\u03c2\u200c\u200d")
ISPDB = "https://autoconfig.thunderbird.net/v1.1/"


@dataclass(frozen=True)
class Discovered:
    """Servers for an address; `doubt` says why a person should compare them."""

    imap: Endpoint
    smtp: Endpoint
    login: str
    source: str
    doubt: str = ""


@dataclass(frozen=True)
class Tried:
    """A place that was asked in vain, and why it did not help."""

    source: str
    outcome: str


@dataclass(frozen=True)
class Search:
    """What a discovery found, or None, and what was tried before."""

    found: Discovered | None
    tried: tuple[Tried, ...]


Fetch = Callable[[str], bytes]


class _Outcome(Exception):  # noqa: N818 - says why a source did not help, not an error
    """Why one source did not help."""


class _OAuthOnly(_Outcome):
    """The provider offers servers, but none that takes a password."""


def discover(address: str, *, fetch: Fetch | None = None, dns: Dns | None = None) -> Discovered:
    """The first place that knows usable servers for `address`.

    Raises:
        InvalidInputError: when `address` is none.
        MailboxError: `servers-not-found` with all that was tried, or `oauth2-only` when the
            provider takes no passwords.
    """
    result = search(address, fetch=fetch, dns=dns)
    if result.found is None:
        raise _not_found(address, result.tried)
    return result.found


def search(address: str, *, fetch: Fetch | None = None, dns: Dns | None = None) -> Search:
    """Like `discover`, but nothing found is a result too."""
    tried: list[Tried] = []
    for source, answer in candidates(address, fetch or fetch_https, dns or PublicDns()):
        if isinstance(answer, Discovered):
            return Search(answer, tuple(tried))
        if isinstance(answer, _OAuthOnly):
            raise _oauth_only(address, source)
        tried.append(Tried(source, str(answer)))
    return Search(None, tuple(tried))


def candidates(
    address: str, fetch: Fetch, dns: Dns
) -> Iterator[tuple[str, Discovered | Exception]]:
    """Every source with its answer, stage by stage, in the order of preference."""
    domain = ascii_domain(address)
    yield from _from_domain(address, domain, fetch)
    yield from _from_services(address, domain, dns)
    yield from _from_database(address, [domain], fetch)
    yield from _from_exchange(address, domain, fetch, dns)


def ascii_domain(address: str) -> str:
    """The domain of an address in the form that DNS knows (A-labels).

    Raises:
        InvalidInputError: when it is no address, or its domain has two readings.
    """
    problem = address_problem(address)
    domain = address.rpartition("@")[2]
    if not problem and _AMBIGUOUS.intersection(domain):
        problem = f"{domain!r} means two different domains; write its xn-- form"
    if problem:
        raise InvalidInputError("The mail address", [problem])
    return domain.encode("idna").decode("ascii").lower()


def choose(guesses: Sequence[ServerGuess], source: str, doubt: str = "") -> Discovered:
    """The first server of each protocol that takes a password."""
    imap = _first(guesses, "imap")
    smtp = _first(guesses, "smtp")
    return Discovered(imap.endpoint, smtp.endpoint, imap.login, source, doubt)


def _first(guesses: Sequence[ServerGuess], protocol: str) -> ServerGuess:
    mine = [guess for guess in guesses if guess.protocol == protocol]
    for guess in mine:
        if guess.auth is Auth.PASSWORD:
            return guess
    if mine:
        raise _OAuthOnly(f"its {protocol.upper()} server takes no passwords, only OAuth2")
    raise _Outcome(f"it names no {protocol.upper()} server with TLS and a password")


def _read(fetch: Fetch, url: str, address: str, doubt: str = "") -> Discovered:
    return choose(parse_clientconfig(fetch(url), address), source_name(url), doubt)


def source_name(url: str) -> str:
    """A URL as it is shown: without the address in its query."""
    return url.partition("?")[0]


def _ask(
    urls: Sequence[str], address: str, fetch: Fetch, doubt: str = ""
) -> Iterator[tuple[str, Discovered | Exception]]:
    calls = [partial(_read, fetch, url, address, doubt) for url in urls]
    answers = side_by_side(calls, STAGE_DEADLINE_S)
    for url, answer in zip(urls, answers, strict=True):
        yield source_name(url), _explained(answer)


def _explained(answer: Discovered | Exception) -> Discovered | Exception:
    if isinstance(answer, NoAnswerError):
        return _Outcome(f"no answer within {STAGE_DEADLINE_S:g} s")
    if isinstance(answer, Discovered | _Outcome | LookupFailedError):
        return answer
    return _Outcome(f"it could not be read ({type(answer).__name__})")


def _from_domain(
    address: str, domain: str, fetch: Fetch
) -> Iterator[tuple[str, Discovered | Exception]]:
    return _ask(document_urls(address, domain), address, fetch)


def _from_database(
    address: str, domains: Sequence[str], fetch: Fetch, doubt: str = ""
) -> Iterator[tuple[str, Discovered | Exception]]:
    return _ask([ISPDB + domain for domain in domains], address, fetch, doubt)


def _from_services(
    address: str, domain: str, dns: Dns
) -> Iterator[tuple[str, Discovered | Exception]]:
    names = [f"{label}.{domain}" for _, label, _ in SERVICES]
    answers = side_by_side([partial(dns.services, name) for name in names], STAGE_DEADLINE_S)
    source = f"service records of {domain}"
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    guesses = [
        guess
        for (protocol, _, security), records in zip(SERVICES, answers, strict=True)
        if not isinstance(records, Exception)
        for guess in service_guesses(records, protocol, security, address)
    ]
    if failed and not guesses:
        yield source, _Outcome("no name server answered")
        return
    try:
        yield source, choose(guesses, source, services_doubt(guesses, domain))
    except _Outcome:
        yield source, _Outcome("there are none for IMAP and submission")


def _from_exchange(
    address: str, domain: str, fetch: Fetch, dns: Dns
) -> Iterator[tuple[str, Discovered | Exception]]:
    """Only the database is asked, never autoconfig.DOMAIN of the exchange's parents.

    Without a list of public suffixes that could be autoconfig.co.uk, which anyone may own.
    """
    source = f"mail exchanges of {domain}"
    [exchanges] = side_by_side([partial(dns.exchanges, domain)], STAGE_DEADLINE_S)
    if isinstance(exchanges, Exception):
        yield source, _Outcome("no name server answered")
        return
    hosts = [host for host in exchanges[:1] if not host_problem(host.rstrip("."))]
    domains = [name for host in hosts for name in provider_domains(host) if name != domain]
    if not domains:
        yield source, _Outcome("they name no other provider")
        return
    doubt = f"guessed from the mail exchange {hosts[0]}; compare with your provider's help"
    yield from _from_database(address, domains, fetch, doubt)


def _oauth_only(address: str, source: str) -> MailboxError:
    return MailboxError(
        f"The provider of {address} takes no passwords for mail, only OAuth2.",
        details=f"Said by {source}. This version logs in with a password.",
        resolution="Ask the provider for an app password; if there is one, name the servers with "
        "--imap and --smtp.",
        code="oauth2-only",
        exit_code=Exit.SERVER,
    )


def _not_found(address: str, tried: Sequence[Tried]) -> MailboxError:
    return MailboxError(
        f"No mail servers were found for {address}.",
        details="\n".join(f"{each.source}: {each.outcome}" for each in tried),
        resolution="Name them with --imap HOST[:PORT] and --smtp HOST[:PORT].",
        code="servers-not-found",
        exit_code=Exit.SERVER,
    )
