"""Mail servers as a profile names them: host, port, transport security."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

# sharp s, final sigma, joiners: Python's IDNA 2003 maps them, the registries' IDNA 2008 does not.
_AMBIGUOUS = frozenset("\u00df\u03c2\u200c\u200d")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
# What ends in a number is an address to getaddrinfo(3): 127.1 is 127.0.0.1 (inet_aton(3)).
_NUMBER = re.compile(r"(\d+|0x[0-9a-f]*)\Z")


class Security(StrEnum):
    """How a connection is protected; there is no unprotected choice (RFC 8314)."""

    TLS = "tls"
    STARTTLS = "starttls"


@dataclass(frozen=True)
class Endpoint:
    """A server that a machine may reach.

    `connect` is where the host really connects to (like `curl --connect-to`), for servers
    behind a tunnel; the certificate is still checked against `host`.
    """

    host: str
    port: int
    security: Security = Security.TLS
    connect: tuple[str, int] | None = None

    @property
    def target(self) -> tuple[str, int]:
        """The address and port that the host connects to."""
        return self.connect or (self.host, self.port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def host_problem(host: str) -> str | None:
    """Why `host` is no usable server name, or None. Names only: RFC 1123, IDNA as A-labels."""
    if not host:
        return "is empty"
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return f"{host!r} is an address: a certificate and an allow-list need the server's name"
    if _AMBIGUOUS.intersection(host):
        return f"{host!r} must be written in its ASCII form (xn--...): IDNA versions disagree on it"
    try:
        ascii_name = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return f"{host!r} is not a host name"
    if len(ascii_name) > 253 or not all(_LABEL.match(part) for part in ascii_name.split(".")):
        return f"{host!r} is not a host name"
    if _NUMBER.match(ascii_name.rpartition(".")[2]):
        return f"{host!r} would be taken for an address: give the server's name"
    if ascii_name == "localhost" or "." not in ascii_name:
        return f"{host!r} is not a full host name (such as imap.example.org)"
    return None


def port_problem(port: object) -> str | None:
    """Why `port` is no TCP port, or None."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        return f"{port!r} is not a port (1 to 65535)"
    return None


def default_security(port: int) -> Security:
    """The transport security that belongs to a well-known mail port (RFC 8314, RFC 6409)."""
    return Security.STARTTLS if port in (143, 587, 25) else Security.TLS


def parse_server(text: str, default_port: int) -> Endpoint:
    """`HOST[:PORT][/tls|/starttls]` as an endpoint; without a word, as belongs to the port.

    Raises:
        ValueError: with what is wrong, when host or port is malformed.
    """
    place, slash, word = text.strip().partition("/")
    if slash and word not in tuple(Security):
        raise ValueError(f"{word!r} is not tls or starttls")
    host, separator, port_text = place.rpartition(":")
    if not separator:
        host, port_text = place, str(default_port)
    problem = host_problem(host)
    if problem:
        raise ValueError(problem)
    if not port_text.isascii() or not port_text.isdigit() or port_problem(int(port_text)):
        raise ValueError(f"{port_text!r} is not a port (1 to 65535)")
    port = int(port_text)
    security = Security(word) if slash else default_security(port)
    return Endpoint(host.encode("idna").decode("ascii").lower(), port, security)


def parse_target(text: str) -> tuple[str, int]:
    """`HOST:PORT`, where the host really connects to.

    Raises:
        ValueError: when it is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or port_problem(int(port)):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def parse_connect(text: str) -> tuple[str, int, str, int]:
    """`HOST:PORT:HOST:PORT` as (named host, named port, target host, target port).

    Raises:
        ValueError: when it does not have four parts or a port is malformed.
    """
    parts = text.split(":")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts[1::2]):
        raise ValueError(f"{text!r} is not HOST:PORT:TARGET-HOST:TARGET-PORT")
    host, port, target, target_port = parts[0].lower(), int(parts[1]), parts[2], int(parts[3])
    if not host or not target or port_problem(port) or port_problem(target_port):
        raise ValueError(f"{text!r} is not HOST:PORT:TARGET-HOST:TARGET-PORT")
    return host, port, target, target_port
