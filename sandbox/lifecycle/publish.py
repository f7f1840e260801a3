"""`keys publish`: a mailbox's public key as a folder to upload."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.key_details import with_certificate
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile
from sandbox.model.wkd import directory
from sandbox.state import files


def publish(house: House, name: str, folder: Path) -> Result:
    """Write a Web Key Directory of the mailbox's own public key; what is there is renewed.

    Raises:
        MailboxError: `key-not-found` without a key, `key-unusable` when it lacks the address.
    """
    profile = house.records.load(name)
    fingerprint, address = profile.keys.fingerprint, profile.account.address
    revoked = _revoked(house, profile, address)
    if fingerprint is None and not revoked:
        raise MailboxError(
            f"{profile.name} has no OpenPGP key of its own; nothing was written.",
            resolution=f"`mailbox keys list {profile.name}` shows which keys it has.",
            code="key-not-found",
            exit_code=Exit.KEYS,
        )
    ring = house.profile_keyring(profile.name)
    # Revoked keys beside the new one are what the directory is for, too (draft, section 3.1).
    key = ring.published(fingerprint, address) if fingerprint else b""
    written = directory(address, key + b"".join(revoked.values()))
    for place, content in written.items():
        _write(folder, folder / place, content)
    facts = {
        "fingerprint": fingerprint,
        "revoked": list(revoked),
        "address": address,
        "files": sorted(written),
    }
    which = fingerprint or f"{', '.join(revoked)} (revoked)"
    summary = f"The key {which} of {address} is ready to upload from {folder}."
    return Result("keys publish", profile.name, summary, facts)


def _revoked(house: House, profile: Profile, address: str) -> dict[str, bytes]:
    """The revoked keys of the address, by fingerprint: everybody should see that they are dead."""
    ring = house.profile_keyring(profile.name)
    had = dict.fromkeys((*profile.keys.retired, *with_certificate(house.paths, profile.name)))
    found: dict[str, bytes] = {}
    for key in ring.look(list(had)) if had else ():
        if key.validity == "r":
            with suppress(MailboxError):  # it never had the address
                found[key.fingerprint] = ring.published(key.fingerprint, address)
    return found


def _write(folder: Path, path: Path, content: bytes) -> None:
    with files.readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content)
        # For a web server to read: there is nothing in it but what everybody may know.
        path.chmod(0o644)
        for each in path.parents[: len(path.relative_to(folder).parts) - 1]:
            each.chmod(0o755)
