"""What a warden is told at its start: names, sockets, forwards; never a secret."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.channel.strict_json import StrictJsonError, parse_object
from sandbox.model.errors import MailboxError

MAX_CONFIG = 1024 * 1024
MAX_FORWARDS = 64
LISTEN_NETWORK = ipaddress.IPv4Network("127.0.9.0/24")

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:-]{0,252})\Z", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})\Z", re.ASCII)
_NAMES = ("profile_id", "name")
_PATHS = ("channel_socket", "control_socket", "log_file")
_OTHERS = {"hostname", "connect_deadline_s", "forwards", "agent", "up", "held"}
_KEYS = {*_NAMES, *_PATHS, *_OTHERS}
_AGENT_KEYS = {"listen", "connect"}
_FORWARD_KEYS = {"name", "listen", "port", "connect_host", "connect_port"}


@dataclass(frozen=True)
class ForwardSpec:
    """One server that a machine may reach: the guest's listener and the host's destination."""

    name: str
    listen: str
    port: int
    connect_host: str
    connect_port: int

    @property
    def local(self) -> bool:
        """Whether both ends are UNIX sockets: `listen` and `connect_host` are paths, no ports."""
        return not self.port


@dataclass(frozen=True)
class WardenConfig:
    """Everything a warden knows about its machine."""

    profile_id: str
    name: str
    channel_socket: Path
    control_socket: Path
    hostname: str
    log_file: Path
    connect_deadline_s: float
    forwards: tuple[ForwardSpec, ...]
    # The machine has booted before, so it answers soon or has missed the hello.
    up: bool = False
    # Connects when somebody first waits for the machine: until then it stands still.
    held: bool = False
    agent: ForwardSpec | None = None


class _Problems:
    """Collects every fault, so that one run names them all."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def text(self, fields: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> str:
        value = fields.get(key)
        if isinstance(value, str) and pattern.match(value):
            return value
        self.found.append(f"{key}: not a valid name")
        return ""

    def path(self, fields: Mapping[str, Any], key: str) -> Path:
        value = fields.get(key)
        if isinstance(value, str) and value.startswith("/") and value.isprintable():
            return Path(value)
        self.found.append(f"{key}: not an absolute path")
        return Path("/")

    def number(self, fields: Mapping[str, Any], key: str, low: float, high: float) -> float:
        value = fields.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        self.found.append(f"{key}: not a number from {low:g} to {high:g}")
        return low

    def port(self, fields: Mapping[str, Any], key: str) -> int:
        value = fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
            return value
        self.found.append(f"{key}: not a port")
        return 1

    def keys(self, where: str, given: set[str], known: set[str]) -> None:
        self.found += [f"{where}: unknown key {key!r}" for key in sorted(given - known)]


def parse_config(text: bytes) -> WardenConfig:
    """Parse the configuration strictly; a MailboxError names every fault at once."""
    problems = _Problems()
    try:
        fields = parse_object(text, MAX_CONFIG)
    except StrictJsonError as error:
        raise _bad_config([str(error)]) from error
    problems.keys("warden", set(fields), _KEYS)
    config = WardenConfig(
        profile_id=problems.text(fields, "profile_id", _HOST),
        name=problems.text(fields, "name", _HOST),
        channel_socket=problems.path(fields, "channel_socket"),
        control_socket=problems.path(fields, "control_socket"),
        hostname=problems.text(fields, "hostname", _LABEL),
        log_file=problems.path(fields, "log_file"),
        connect_deadline_s=problems.number(fields, "connect_deadline_s", 0.1, 24 * 3600),
        forwards=_forwards(fields.get("forwards"), problems),
        up=fields.get("up") is True,
        held=fields.get("held") is True,
        agent=_agent(fields["agent"], problems) if fields.get("agent") else None,
    )
    if problems.found:
        raise _bad_config(problems.found)
    return config


def _bad_config(faults: list[str]) -> MailboxError:
    return MailboxError(
        "The warden's configuration is not valid.", details="\n".join(faults), code="warden-config"
    )


def _forwards(value: object, problems: _Problems) -> tuple[ForwardSpec, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        problems.found.append("forwards: not a list of tables")
        return ()
    if len(value) > MAX_FORWARDS:
        problems.found.append(f"forwards: more than {MAX_FORWARDS}")
    forwards = tuple(_forward(item, problems) for item in value[:MAX_FORWARDS])
    if len({(forward.listen, forward.port) for forward in forwards}) != len(forwards):
        problems.found.append("forwards: a listener appears twice")
    return forwards


def _forward(fields: Mapping[str, Any], problems: _Problems) -> ForwardSpec:
    problems.keys("forwards", set(fields), _FORWARD_KEYS)
    return ForwardSpec(
        name=problems.text(fields, "name", _HOST),
        listen=_listen(fields.get("listen"), problems),
        port=problems.port(fields, "port"),
        connect_host=problems.text(fields, "connect_host", _HOST),
        connect_port=problems.port(fields, "connect_port"),
    )


def _agent(value: object, problems: _Problems) -> ForwardSpec | None:
    """The guest's GnuPG to the filter in front of a key on the host."""
    if not isinstance(value, dict):
        problems.found.append("agent: not a table")
        return None
    problems.keys("agent", set(value), _AGENT_KEYS)
    listen, connect = problems.path(value, "listen"), problems.path(value, "connect")
    return ForwardSpec("gpg-agent", str(listen), 0, str(connect), 0)


def _listen(value: object, problems: _Problems) -> str:
    try:
        address = ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        address = None
    inside = address is not None and address in LISTEN_NETWORK
    # The first and last addresses of the network stay unused, as people expect of a /24.
    if not inside or str(address).endswith((".0", ".255")):
        problems.found.append(f"listen: not an address of {LISTEN_NETWORK}")
    return str(address)
