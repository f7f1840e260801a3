"""Everything a verb works with: the ports, the records, the paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.lifecycle.beside import Work, in_thread
from sandbox.model.config import Config
from sandbox.model.machine import domain_name
from sandbox.state import lock
from sandbox.state.config import load_config
from sandbox.state.journal import Journal
from sandbox.state.paths import Paths
from sandbox.state.records import Records

if TYPE_CHECKING:
    from sandbox import ports
    from sandbox.lifecycle.engine import Progress


@dataclass(frozen=True)
class House:
    """The composition of one run of `mailbox`; made in cli/app.py, or of fakes in tests."""

    paths: Paths
    records: Records
    vault: ports.Vault
    volumes: ports.Volumes
    keyslots: ports.Keyslots
    headers: ports.Headers
    remains: ports.Remains
    machines: ports.Machines
    wardens: ports.Wardens
    storage: ports.Storage
    custodians: ports.Custodians
    images: ports.Images
    servers: ports.Servers
    host: ports.Host
    user_keyring: ports.UserKeyring
    certificates: ports.Certificates
    key_reader: ports.KeyReader
    key_sources: ports.KeySources
    profile_keyring: Callable[[str], ports.ProfileKeyring]
    own_keyring: Callable[[str], ports.OwnKeyring]
    progress: Progress
    beside: Callable[[Work], Work] = in_thread

    def domain(self, name: str) -> str:
        """The libvirt domain name of a profile's machine."""
        return domain_name(name, self.paths.home_tag)

    def journal(self, name: str) -> Journal:
        """The journal of a profile."""
        return Journal(self.paths.journal(name))

    def config(self) -> Config:
        """The user's settings for all mailboxes; raises InvalidInputError."""
        return load_config(self.paths)

    @contextmanager
    def locked(self, name: str, verb: str) -> Iterator[None]:
        """Hold the profile for one verb; says for whom it waits."""

        def waiting(holder: str) -> None:
            self.progress.warn(f"Waiting for {holder} to finish with {name}.")

        with lock.hold(self.paths.lock(name), f"mailbox {verb} {name}", waiting):
            yield


@dataclass(frozen=True)
class Result:
    """What a verb did, for `--json` and for the one module that prints."""

    verb: str
    name: str
    summary: str
    facts: Mapping[str, Any]
