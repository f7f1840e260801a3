"""Service records and mail exchanges: what DNS says about a domain's mail (RFC 6186, RFC 8314)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import dns.exception
import dns.resolver

from sandbox.host.autoconfig import Auth, LookupFailedError, ServerGuess
from sandbox.model.endpoints import Endpoint, Security, host_problem, port_problem

LOOKUP_TIMEOUT_S = 5.0

SERVICES = (
    ("imap", "_imaps._tcp", Security.TLS),
    ("imap", "_imap._tcp", Security.STARTTLS),
    ("smtp", "_submissions._tcp", Security.TLS),
    ("smtp", "_submission._tcp", Security.STARTTLS),
)


@dataclass(frozen=True)
class Service:
    """A service record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


class Dns(Protocol):
    """Name lookups; an empty answer is no error.

    Raises:
        LookupFailedError: when no name server answers.
    """

    def services(self, name: str) -> list[Service]: ...
    def exchanges(self, domain: str) -> list[str]: ...


def service_guesses(
    records: Sequence[Service], protocol: str, security: Security, address: str
) -> list[ServerGuess]:
    """Usable targets, the best first; the target "." says that there is no such service."""
    ordered = sorted(records, key=lambda record: (record.priority, -record.weight))
    return [
        ServerGuess(protocol, Endpoint(host, record.port, security), address, Auth.PASSWORD)
        for record in ordered
        if (host := record.target.rstrip(".").lower())
        and not host_problem(host)
        and not port_problem(record.port)
    ]


def services_doubt(guesses: Sequence[ServerGuess], domain: str) -> str:
    """RFC 6186 section 6: a target outside the domain must be confirmed by the user."""
    foreign = sorted(
        {
            guess.endpoint.host
            for guess in guesses
            if guess.endpoint.host != domain and not guess.endpoint.host.endswith(f".{domain}")
        }
    )
    if not foreign:
        return ""
    return (
        f"{', '.join(foreign)}: named by DNS, outside {domain}; compare with your provider's help"
    )


def provider_domains(exchange: str) -> list[str]:
    """Domains of a mail exchange that the database may know, the longest first."""
    labels = exchange.rstrip(".").lower().split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels) - 1)][-3:]


class PublicDns:
    """The resolver of this computer (dnspython)."""

    def services(self, name: str) -> list[Service]:
        """The service records of a name."""
        return [
            Service(record.priority, record.weight, record.port, record.target.to_text())
            for record in self._records(name, "SRV")
        ]

    def exchanges(self, domain: str) -> list[str]:
        """The mail exchanges of a domain, the preferred first."""
        records = sorted(self._records(domain, "MX"), key=lambda record: record.preference)
        return [record.exchange.to_text().rstrip(".") for record in records]

    @staticmethod
    def _records(name: str, kind: str) -> list[_Record]:
        try:
            return list(dns.resolver.resolve(name, kind, lifetime=LOOKUP_TIMEOUT_S))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailedError(type(error).__name__) from None


class _Name(Protocol):
    def to_text(self) -> str: ...


class _Record(Protocol):
    """The fields of SRV and MX records; each has its own half of them."""

    priority: int
    weight: int
    port: int
    target: _Name
    preference: int
    exchange: _Name
