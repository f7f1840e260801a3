"""`keys publish`: a mailbox's public key as a folder to upload."""

from __future__ import annotations

from pathlib import Path

from sandbox.lifecycle.house import House, Result
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.wkd import directory
from sandbox.state import files


def publish(house: House, name: str, folder: Path) -> Result:
    """Write a Web Key Directory of the mailbox's own public key; what is there is renewed.

    Raises:
        MailboxError: `key-not-found` without a key, `key-unusable` when it lacks the address.
    """
    profile = house.records.load(name)
    fingerprint, address = profile.keys.fingerprint, profile.account.address
    if fingerprint is None:
        raise MailboxError(
            f"{profile.name} has no OpenPGP key of its own; nothing was written.",
            resolution=f"`mailbox keys list {profile.name}` shows which keys it has.",
            code="key-not-found",
            exit_code=Exit.KEYS,
        )
    key = house.profile_keyring(profile.name).published(fingerprint, address)
    written = directory(address, key)
    for place, content in written.items():
        _write(folder, folder / place, content)
    facts = {"fingerprint": fingerprint, "address": address, "files": sorted(written)}
    summary = f"The key {fingerprint} of {address} is ready to upload from {folder}."
    return Result("keys publish", profile.name, summary, facts)


def _write(folder: Path, path: Path, content: bytes) -> None:
    with files.readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content)
        # For a web server to read: there is nothing in it but what everybody may know.
        path.chmod(0o644)
        for each in path.parents[: len(path.relative_to(folder).parts) - 1]:
            each.chmod(0o755)
