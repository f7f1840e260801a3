"""Every path that `mailbox` uses, in one place (docs/files.md)."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sandbox.model.errors import Exit, MailboxError

# sun_path of a UNIX socket holds 108 bytes with its NUL (unix(7)).
SOCKET_LIMIT = 107
_LONGEST_SOCKET = len("/console.sock")


@dataclass(frozen=True)
class Paths:
    """The folders (all 0700) and, by profile name, the files in them."""

    config: Path
    data: Path
    state: Path
    runtime: Path
    home_tag: str = ""

    @property
    def profiles(self) -> Path:
        return self.config / "profiles"

    @property
    def templates(self) -> Path:
        return self.config / "templates"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def states(self) -> Path:
        return self.data / "states"

    @property
    def keys(self) -> Path:
        return self.data / "keys"

    @property
    def journals(self) -> Path:
        return self.state / "journal"

    @property
    def tombstones(self) -> Path:
        return self.state / "tombstones"

    @property
    def certificates(self) -> Path:
        return self.state / "certificates"

    @property
    def retentions(self) -> Path:
        return self.state / "retentions"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    def activity(self, name: str) -> Path:
        """What a machine did with a key on the host."""
        return self.state / "activity" / f"{name}.jsonl"

    def profile(self, name: str) -> Path:
        return self.profiles / f"{name}.toml"

    def volume(self, name: str) -> Path:
        return self.volumes / f"{name}.luks"

    def blank(self, name: str) -> Path:
        """Beside a volume that never held a file system; gone once it does."""
        return self.volumes / f"{name}.blank"

    def header_backup(self, name: str) -> Path:
        """A copy of a volume's header, made on the user's wish."""
        return self.volumes / f"{name}.luks.header"

    def saved(self, name: str) -> Path:
        """The LUKS volume that keeps the memory of a suspended machine."""
        return self.states / f"{name}.luks"

    def saved_note(self, name: str) -> Path:
        """What the suspended machine must find unchanged; there only once it is whole."""
        return self.states / f"{name}.json"

    def gnupg(self, name: str) -> Path:
        return self.keys / name

    def public_ring(self, name: str) -> Path:
        """GnuPG's file of public keys; every change of a key is one of this file."""
        return self.gnupg(name) / "pubring.kbx"

    def smime(self, name: str) -> Path:
        """The folder of a profile's S/MIME certificate."""
        return self.data / "smime" / name

    def certificate_file(self, name: str, fingerprint: str) -> Path:
        """A certificate with its key, locked (PKCS#12)."""
        return self.smime(name) / f"{fingerprint}.p12"

    def journal(self, name: str) -> Path:
        return self.journals / f"{name}.jsonl"

    def tombstone(self, name: str) -> Path:
        return self.tombstones / f"{name}.json"

    def tombstone_of(self, name: str, profile_id: str) -> Path:
        """Of one of the profiles that had the name; no name holds a `+`."""
        return self.tombstones / f"{name}+{profile_id}.json"

    def retention(self, name: str) -> Path:
        return self.retentions / f"{name}.json"

    def certificate(self, name: str, profile_id: str) -> Path:
        """Of one of the profiles that had the name, as canonical JSON."""
        return self.certificates / f"{name}+{profile_id}.json"

    @property
    def image_journal(self) -> Path:
        """What was done to the images; not among the journals of profiles."""
        return self.state / "images.jsonl"

    def lock(self, name: str) -> Path:
        return self.locks / f"{name.casefold()}.lock"

    @property
    def config_file(self) -> Path:
        """The user's settings for all mailboxes."""
        return self.config / "config.toml"

    @property
    def warming_lock(self) -> Path:
        """Held by whoever makes warm states, for they are made one after the other."""
        return self.locks / ".warming"

    @property
    def sleep_lock(self) -> Path:
        """Held by the one process that guards open mailboxes when this computer sleeps."""
        return self.locks / ".sleep"

    @property
    def sleep_log(self) -> Path:
        """What that process did last."""
        return self.state / "sleep.log"

    @property
    def keyring_lock(self) -> Path:
        """No name of a profile begins with a dot."""
        return self.locks / ".keyring"

    def machine(self, name: str) -> Path:
        """The folder of one open machine's sockets, short enough for any name."""
        folder = self.runtime / name
        if len(os.fsencode(folder)) + _LONGEST_SOCKET <= SOCKET_LIMIT:
            return folder
        return self.runtime / hashlib.sha256(name.casefold().encode()).hexdigest()[:12]

    def channel_socket(self, name: str) -> Path:
        return self.machine(name) / "channel.sock"

    def control_socket(self, name: str) -> Path:
        return self.machine(name) / "warden.sock"

    def agent_socket(self, name: str) -> Path:
        """The filter in front of a key on the host; the warden carries the guest here."""
        return self.machine(name) / "agent.sock"

    def custody_socket(self, name: str) -> Path:
        return self.machine(name) / "custody.sock"

    def custody_log(self, name: str) -> Path:
        return self.machine(name) / "custody.log"

    def display_socket(self, name: str) -> Path:
        return self.machine(name) / "display.sock"

    def volume_socket(self, name: str) -> Path:
        """Where a resumed machine finds its volume, already decrypted."""
        return self.machine(name) / "volume.sock"

    def saved_file(self, name: str) -> Path:
        """Where libvirt writes and reads a machine's memory: a window into `saved`."""
        return self.machine(name) / "saved"

    def given(self, name: str) -> Path:
        """What the open machine was given."""
        return self.machine(name) / "given.json"

    def console_log(self, name: str) -> Path:
        return self.machine(name) / "console.log"

    def warden_log(self, name: str) -> Path:
        return self.machine(name) / "warden.log"


def find_paths(environment: Mapping[str, str]) -> Paths:
    """The paths for this environment: XDG folders, or all below `MAILBOX_HOME`.

    Raises:
        MailboxError: `path-too-long` when no socket would fit below the runtime folder, and
            `runtime-folder` when there is none that is the user's own.
    """
    home = environment.get("MAILBOX_HOME")
    if home:
        root = Path(home).absolute()
        tag = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        paths = Paths(root / "config", root / "data", root / "state", root / "run", tag)
    else:
        dirs = platformdirs.PlatformDirs("mailbox", appauthor=False)
        paths = Paths(
            dirs.user_config_path,
            dirs.user_data_path,
            dirs.user_state_path,
            runtime_base() / "mailbox",
        )
    if len(os.fsencode(paths.runtime)) + 13 + _LONGEST_SOCKET > SOCKET_LIMIT:
        raise MailboxError(
            f"The folder {paths.runtime} has too long a path for sockets; nothing was done.",
            resolution="Set MAILBOX_HOME to a shorter path.",
            code="path-too-long",
            exit_code=Exit.USAGE,
        )
    return paths


def runtime_base() -> Path:
    """The user's folder for sockets, below which everybody has one of their own.

    Raises:
        MailboxError: `runtime-folder` when others could get into each that could serve.
    """
    try:
        with warnings.catch_warnings():
            # It tells of a folder that it does not use; `mailbox doctor` names the one it does.
            warnings.simplefilter("ignore")
            return platformdirs.user_runtime_path()
    except OSError as error:
        raise MailboxError(
            f"There is no safe folder for sockets: {error}; nothing was done.",
            resolution="Log in anew, or set XDG_RUNTIME_DIR to a folder that only you may enter.",
            code="runtime-folder",
            exit_code=Exit.HOST,
        ) from None
