"""What an open machine was given: its profile, keys and secrets as they were when it was set up.

A note of it lies in the runtime folder while the machine is open. What was changed since then
counts for the next machine, so a suspended one may go on only where nothing was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sandbox.lifecycle.house import House
from sandbox.model.profile import Profile
from sandbox.model.secrets import VOLUME_KEY
from sandbox.model.suspended import profile_digest, secrets_digest
from sandbox.state import files


def as_now(house: House, profile: Profile) -> dict[str, str]:
    """Profile and key ring as they are now."""
    ring = house.paths.public_ring(profile.name)
    return {"profile": profile_digest(profile), "keys": files.stamp(ring)}


def keep(house: House, profile: Profile, secrets: str) -> None:
    """Note what the machine has; `secrets` is their digest."""
    _write(house, profile.name, {**as_now(house, profile), "secrets": secrets})


def noted(house: House, name: str) -> dict[str, str]:
    """What the open machine was given; nothing where it is not known, which fits nothing."""
    try:
        read = json.loads(house.paths.given(name).read_bytes())
        return {key: str(read[key]) for key in ("profile", "keys", "secrets")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_outdated(house: House, profile: Profile) -> bool:
    """Whether profile or keys were changed since the open machine was set up."""
    before = noted(house, profile.name)
    return bool(before) and not as_now(house, profile).items() <= before.items()


def secret_changes(house: House, name: str) -> None:
    """Before one is changed: from now on an open machine has an older one."""
    before = noted(house, name)
    if before:
        _write(house, name, {**before, "secrets": ""})


def has_old_secret(house: House, name: str) -> bool:
    """Whether the open machine is still to be told of a changed secret."""
    return noted(house, name).get("secrets") == ""


def _write(house: House, name: str, noted: Mapping[str, str]) -> None:
    files.replace(house.paths.given(name), json.dumps(noted).encode() + b"\n")


def digest(secrets: Mapping[str, str]) -> str:
    """The digest of secrets by the volume's key, which is among them."""
    others = {kind: secret for kind, secret in secrets.items() if kind != VOLUME_KEY}
    return secrets_digest(secrets[VOLUME_KEY].encode(), others)
