"""The mail account of a profile: address, servers, calendars and address books."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sandbox.model import names
from sandbox.model.dav import Collection, Password, read_collections, write_collections
from sandbox.model.endpoints import (
    Endpoint,
    Security,
    default_security,
    host_problem,
    parse_target,
    port_problem,
)
from sandbox.model.schema import Reader


@dataclass(frozen=True)
class Account:
    """The mail account: who writes, and with which login. The password rests in the keyring."""

    address: str
    display_name: str
    login: str
    imap: Endpoint
    smtp: Endpoint
    signature: str = ""
    ca: tuple[str, ...] = ()
    calendars: tuple[Collection, ...] = ()
    address_books: tuple[Collection, ...] = ()

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The calendars and the address books."""
        return (*self.calendars, *self.address_books)

    @property
    def has_dav_password(self) -> bool:
        """Whether a calendar or an address book has another password than the mail."""
        return any(each.password is Password.OWN for each in self.collections)


def opened_by_own(account: Account) -> Account:
    """The account whose calendars and address books have another password than the mail."""

    def own(collections: tuple[Collection, ...]) -> tuple[Collection, ...]:
        return tuple(replace(each, password=Password.OWN) for each in collections)

    return replace(
        account, calendars=own(account.calendars), address_books=own(account.address_books)
    )


def read_account(reader: Reader) -> Account:
    """The table `account` of a profile."""
    address = reader.checked("address", names.address_problem)
    certificates = reader.get("ca", list, [])
    if not all(isinstance(pem, str) and "BEGIN CERTIFICATE" in pem for pem in certificates):
        reader.problem("ca", "is not a list of certificates in PEM form")
    account = Account(
        address=address,
        display_name=reader.checked("display_name", names.text_problem, ""),
        login=reader.checked("login", names.text_problem, address),
        imap=_read_endpoint(reader.table("imap"), 993),
        smtp=_read_endpoint(reader.table("smtp"), 465),
        signature=reader.checked("signature", names.signature_problem, ""),
        ca=tuple(str(pem) for pem in certificates),
        calendars=read_collections(reader, "calendars"),
        address_books=read_collections(reader, "address_books"),
    )
    reader.finish()
    return account


def _read_endpoint(reader: Reader, default_port: int) -> Endpoint:
    host = reader.checked("host", host_problem)
    port = reader.get("port", int, default_port)
    problem = port_problem(port)
    if problem:
        reader.problem("port", problem)
    security = reader.parsed("security", Security, default_security(port))
    connect = reader.parsed("connect", parse_target, None) if reader.has("connect") else None
    reader.get("connect", str, "")
    reader.finish()
    return Endpoint(host, port, security, connect)


def write_account(account: Account) -> dict[str, Any]:
    """The table that `read_account` understands."""
    return {
        "address": account.address,
        "display_name": account.display_name,
        "login": account.login,
        "signature": account.signature,
        "ca": list(account.ca),
        "imap": _write_endpoint(account.imap),
        "smtp": _write_endpoint(account.smtp),
        "calendars": write_collections(account.calendars),
        "address_books": write_collections(account.address_books),
    }


def _write_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    written: dict[str, Any] = {
        "host": endpoint.host,
        "port": endpoint.port,
        "security": str(endpoint.security),
    }
    if endpoint.connect:
        written["connect"] = f"{endpoint.connect[0]}:{endpoint.connect[1]}"
    return written
