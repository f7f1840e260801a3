"""A profile: all that is written down about one customer's mailbox. No secrets in it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.model import names
from sandbox.model.account import Account, read_account, write_account
from sandbox.model.contract import Contract, read_contract, write_contract
from sandbox.model.custody import Custody, HeldBy, Where, parse_rule
from sandbox.model.errors import InvalidInputError
from sandbox.model.machine import Shape
from sandbox.model.openpgp import Keys, read_keys, write_keys
from sandbox.model.schema import Reader
from sandbox.model.smime import Smime, read_smime, write_smime

_KEYBOARD = re.compile(r"(host|[a-z]{2,5})\Z")
_LANGUAGE = re.compile(r"[a-z]{2}\Z")
_CLIENT = re.compile(r"[a-z][a-z0-9]{0,31}\Z")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}\Z")

# What `close` does to a machine.
SHUTDOWN, SUSPEND = "shutdown", "suspend"


@dataclass(frozen=True)
class Machine:
    """The virtual machine: memory in bytes, number of virtual CPUs, what a close does to it."""

    memory: int
    cpus: int
    on_close: str = SHUTDOWN
    # A suspended machine that is older is discarded at open.
    keep_days: int = 7

    @property
    def shape(self) -> Shape:
        return Shape(self.memory, self.cpus)


@dataclass(frozen=True)
class Display:
    """What the machine shows and how it is typed into; `host` means as on this computer."""

    keyboard: str = "host"
    language: str = "en"
    time_zone: str = "host"


@dataclass(frozen=True)
class Policy:
    """What the machine permits beyond the account itself."""

    remote_content: bool = False
    marionette: bool = False


@dataclass(frozen=True)
class Settings:
    """What a template may say and a profile may overrule."""

    client: str
    machine: Machine
    volume_size: int
    policy: Policy
    display: Display
    custody: Custody = field(default_factory=Custody)


@dataclass(frozen=True)
class Profile:
    """One customer's mailbox, as intended."""

    id: uuid.UUID
    name: str
    template: str
    colour: str
    created: str
    account: Account
    settings: Settings
    keys: Keys = field(default_factory=Keys)
    contract: Contract = field(default_factory=Contract)
    smime: Smime | None = None


def client_problem(client: str) -> str | None:
    """Why `client` cannot name an image, or None."""
    return None if _CLIENT.match(client) else f"{client!r} is not the name of an image"


def read_template(document: Mapping[str, Any], name: str) -> Settings:
    """The settings of a template document.

    Raises:
        InvalidInputError: with every problem and its place.
    """
    reader = Reader(document)
    reader.get("description", str, "")
    settings = _read_settings(reader, None)
    reader.finish()
    _raise(f"The template {name}", reader)
    return settings


def read_profile(document: Mapping[str, Any], template: Settings) -> Profile:
    """A profile from its TOML document over the defaults of its template.

    Raises:
        InvalidInputError: with every problem and its place.
    """
    reader = Reader(document)
    if reader.get("version", int, 1) != 1:
        reader.problem("version", "is not 1, the one that is known here")
    profile = Profile(
        id=reader.parsed("id", uuid.UUID, uuid.UUID(int=0)),
        name=reader.checked("name", names.name_problem),
        template=reader.get("template", str, "default"),
        colour=reader.parsed("colour", names.parse_colour, names.COLOURS["blue"]),
        created=reader.get("created", str, ""),
        account=read_account(reader.table("account")),
        settings=_read_settings(reader, template),
        keys=read_keys(reader.table("openpgp")),
        contract=read_contract(reader.table("contract")),
        smime=read_smime(reader.table("smime")),
    )
    if not profile.id.int:
        reader.problem("id", "is missing")
    reader.finish()
    _raise(f"The profile {profile.name or '(without name)'}", reader)
    return profile


def write_profile(profile: Profile) -> dict[str, Any]:
    """The profile as a document that `read_profile` understands."""
    settings = profile.settings
    contract = write_contract(profile.contract)
    return {
        "version": 1,
        "id": str(profile.id),
        "name": profile.name,
        "template": profile.template,
        "colour": profile.colour,
        "created": profile.created,
        "client": settings.client,
        "account": write_account(profile.account),
        "openpgp": write_keys(profile.keys),
        "machine": {
            "memory": _write_size(settings.machine.memory),
            "cpus": settings.machine.cpus,
            "on_close": settings.machine.on_close,
            "keep_days": settings.machine.keep_days,
        },
        "volume": {"size": _write_size(settings.volume_size)},
        "policy": {
            "remote_content": settings.policy.remote_content,
            "marionette": settings.policy.marionette,
        },
        "display": {
            "keyboard": settings.display.keyboard,
            "language": settings.display.language,
            "time_zone": settings.display.time_zone,
        },
        **({"contract": contract} if contract else {}),
        **write_smime(profile.smime),
        "keys": {
            "custody": str(settings.custody.where),
            "decrypt": str(settings.custody.decrypt),
            "sign": str(settings.custody.sign),
            "holder": str(settings.custody.holder),
        },
    }


def _raise(what: str, reader: Reader) -> None:
    if reader.problems:
        raise InvalidInputError(what, reader.problems)


def _read_settings(reader: Reader, base: Settings | None) -> Settings:
    machine, volume = reader.table("machine"), reader.table("volume")
    policy, display = reader.table("policy"), reader.table("display")
    keys = reader.table("keys")
    default = base or Settings("", Machine(2 * 1024**3, 2), 20 * 1024**3, Policy(), Display())
    client = reader.get("client", str, default.client)
    problem = client_problem(client)
    if problem:
        reader.problem("client", problem)
    settings = Settings(
        client=client,
        machine=Machine(
            memory=machine.parsed("memory", names.parse_memory, default.machine.memory),
            cpus=machine.get("cpus", int, default.machine.cpus),
            on_close=machine.get("on_close", str, default.machine.on_close),
            keep_days=machine.get("keep_days", int, default.machine.keep_days),
        ),
        volume_size=volume.parsed("size", names.parse_size, default.volume_size),
        policy=Policy(
            remote_content=policy.get("remote_content", bool, default.policy.remote_content),
            marionette=policy.get("marionette", bool, default.policy.marionette),
        ),
        display=Display(
            keyboard=_matching(display, "keyboard", _KEYBOARD, default.display.keyboard),
            language=_matching(display, "language", _LANGUAGE, default.display.language),
            time_zone=_matching(display, "time_zone", _ZONE, default.display.time_zone),
        ),
        custody=Custody(
            where=keys.parsed("custody", Where, default.custody.where),
            decrypt=keys.parsed("decrypt", parse_rule, default.custody.decrypt),
            sign=keys.parsed("sign", parse_rule, default.custody.sign),
            holder=keys.parsed("holder", HeldBy, default.custody.holder),
        ),
    )
    if not 1 <= settings.machine.cpus <= 64:
        machine.problem("cpus", f"{settings.machine.cpus} is not between 1 and 64")
    if settings.machine.on_close not in (SHUTDOWN, SUSPEND):
        machine.problem("on_close", f"{settings.machine.on_close!r} is not shutdown or suspend")
    if not 0 <= settings.machine.keep_days <= 365:
        machine.problem("keep_days", f"{settings.machine.keep_days} is not between 0 and 365")
    problem = settings.custody.problem()
    if problem:
        keys.problem("holder", problem)
    for table in (machine, volume, policy, display, keys):
        table.finish()
    return settings


def _matching(reader: Reader, key: str, pattern: re.Pattern[str], default: str) -> str:
    value = reader.get(key, str, default)
    if not pattern.match(value):
        reader.problem(key, f"{value!r} is not usable here")
    return value


def _write_size(size: int) -> str:
    for unit, factor in (("T", 1024**4), ("G", 1024**3), ("M", 1024**2)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size // 1024}K"
