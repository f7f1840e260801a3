"""The desired state that the host sends: its shape is checked here, once, completely."""

import ipaddress
import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
LAYOUT = re.compile(r"[a-z]{2,5}(\([a-z0-9_-]+\))?(,[a-z]{2,5}(\([a-z0-9_-]+\))?){0,3}")
LANGUAGE = re.compile(r"[a-z]{2}(-[A-Z]{2})?")
URL = re.compile(r"https://[a-z0-9.-]+(:[0-9]{1,5})?/[!-~]*")
SECURITY = ("tls", "starttls")
FINGERPRINT = re.compile(r"[0-9A-F]{40}([0-9A-F]{24})?")


class BadStateError(Exception):
    """The desired state cannot be applied; the message names every reason."""


def check(desired: object) -> dict:
    """Return the desired state if it is one, else raise BadStateError with all that is wrong."""
    if not isinstance(desired, dict):
        raise BadStateError("the desired state is not an object")
    if desired.get("version") != 1:
        raise BadStateError(
            f"version {desired.get('version')!r} of the desired state is not known here"
        )
    problems = [*_profile(desired), *_hosts(desired), *_settings(desired), *_account(desired)]
    problems += [*_collections(desired, "calendars"), *_collections(desired, "address_books")]
    if problems:
        raise BadStateError("; ".join(problems))
    return desired


def check_keys(request: object) -> dict:
    """Return a request to try keys if it is one, else raise BadStateError."""
    wish = request if isinstance(request, dict) else {}
    others = wish.get("correspondents")
    if not isinstance(others, list) or not all(isinstance(each, dict) for each in others):
        raise BadStateError("correspondents is not a list of objects")
    for name in [each.get("fingerprint") for each in others] + [wish.get("own") or "A" * 40]:
        if not isinstance(name, str) or not FINGERPRINT.fullmatch(name):
            raise BadStateError(f"{name!r} is no fingerprint")
    for address in [one for each in others for one in each.get("addresses") or []]:
        if not isinstance(address, str):
            raise BadStateError(f"{address!r} is no address")
    return wish


def _profile(desired: dict) -> list[str]:
    profile = _table(desired, "profile")
    problems = _match(profile, "profile.name", NAME) + _match(profile, "profile.colour", COLOUR)
    if not isinstance(_table(desired, "volume").get("blank"), bool):
        problems.append("volume.blank is not true or false")
    return problems


def _hosts(desired: dict) -> list[str]:
    hosts = desired.get("hosts")
    if not isinstance(hosts, dict):
        return ["hosts is not an object"]
    bad_names = [f"hosts: {name!r} is no host name" for name in hosts if not HOST.fullmatch(name)]
    bad_addresses = [
        f"hosts: {address!r} is no loopback address"
        for address in hosts.values()
        if not _is_loopback(address)
    ]
    return bad_names + bad_addresses


def _is_loopback(address: object) -> bool:
    try:
        return isinstance(address, str) and ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        return False


def _settings(desired: dict) -> list[str]:
    problems = _match(desired, "time_zone", ZONE)
    problems += _match(desired, "keyboard", LAYOUT) + _match(desired, "language", LANGUAGE)
    for name, kind in (("ca", list), ("openpgp", dict), ("policy", dict)):
        if not isinstance(desired.get(name, kind()), kind):
            problems.append(f"{name} is not of the expected form")
    if not isinstance(desired.get("smime") or {}, dict):
        problems.append("smime is not of the expected form")
    return problems


def _account(desired: dict) -> list[str]:
    account = _table(desired, "account")
    problems = [] if isinstance(account.get("address"), str) else ["account.address is not text"]
    for name in ("incoming", "outgoing"):
        server = _table(account, name)
        problems += _match(server, f"account.{name}.host", HOST)
        if server.get("security") not in SECURITY:
            problems.append(f"account.{name}.security is neither tls nor starttls")
        port = server.get("port")
        if not isinstance(port, int) or not 0 < port < 65536:
            problems.append(f"account.{name}.port is no port")
    return problems


def _collections(desired: dict, name: str) -> list[str]:
    """Calendars and address books; a state without them has none."""
    entries = desired.setdefault(name, [])
    if not isinstance(entries, list):
        return [f"{name} is not a list"]
    problems = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            problems.append(f"{name}[{number}] is not an object")
            continue
        problems += [
            f"{name}[{number}].{key} is not text"
            for key in ("name", "login", "password")
            if not isinstance(entry.get(key), str)
        ]
        url = entry.get("url")
        if not isinstance(url, str) or not URL.fullmatch(url):
            problems.append(f"{name}[{number}].url is no https URL")
    return problems


def _table(parent: dict, name: str) -> dict:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _match(table: dict, path: str, pattern: re.Pattern[str]) -> list[str]:
    value = table.get(path.rpartition(".")[2])
    if isinstance(value, str) and pattern.fullmatch(value):
        return []
    return [f"{path} is missing or not valid"]
