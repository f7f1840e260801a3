"""The effects of a shredding. Each can be repeated, and says in its facts what it saw."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.lifecycle import kept, rings, smime
from sandbox.lifecycle.case import header_backup, make_case, pictures_of
from sandbox.lifecycle.certify import write_certificate
from sandbox.lifecycle.close import close_locked, is_closed
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import observe
from sandbox.model.errors import MailboxError
from sandbox.model.names import same_name
from sandbox.model.profile import Profile
from sandbox.model.remains import Sought, needles
from sandbox.model.secrets import KINDS, VOLUME_KEY
from sandbox.state import files


@dataclass(frozen=True)
class Order:
    """Why a mailbox is shredded and by whose order, as the user states it.

    `confirmed`: ids of copies that the user says are gone. `override`: why before its time.
    """

    because: str = ""
    ordered_by: str = ""
    confirmed: tuple[str, ...] = ()
    override: str = ""

    def facts(self) -> dict[str, Any]:
        """For the journal; a resumed shredding reads them from there."""
        return {**asdict(self), "confirmed": list(self.confirmed)}

    @staticmethod
    def read(facts: Mapping[str, Any]) -> Order:
        """The order as the journal has it."""
        confirmed = facts.get("confirmed")
        return Order(
            because=str(facts.get("because", "")),
            ordered_by=str(facts.get("ordered_by", "")),
            confirmed=tuple(map(str, confirmed)) if isinstance(confirmed, list) else (),
            override=str(facts.get("override", "")),
        )


class Shredding:
    """One run of the steps; `left` is what the search found."""

    def __init__(self, house: House, name: str, profile_id: uuid.UUID, order: Order) -> None:
        self.left: list[Mapping[str, Any]] = []
        self._house = house
        self._name = name
        self._id = profile_id
        self._order = order
        self._volume = house.paths.volume(name)
        self._key = b""

    def effects(self) -> dict[str, Any]:
        return {
            "close": self._close,
            "tombstone": self._bury,
            "keyring": self._forget_secrets,
            "header": self._erase,
            "keys": self._destroy_keys,
            "volume": self._remove_volume,
            "leftovers": self._clear,
            "look": self._look,
            "profile": self._remove_records,
            "certificate": lambda: write_certificate(self._house, self._name, self._id),
        }

    def _close(self) -> None:
        seen = observe(self._house, self._name)
        if not is_closed(self._house, seen):
            close_locked(self._house, seen)

    def _bury(self) -> None:
        order = self._order.facts()
        case = make_case(self._house, self._name, self._order.confirmed, order)
        self._house.records.bury(self._name, str(self._id), self._order.because, case)

    def _forget_secrets(self) -> dict[str, Any]:
        vault, remains = self._house.vault, self._house.remains
        # Kept in memory for one step, to try it on the volume once more: that it opened before
        # makes its refusal afterwards mean something.
        self._key = (vault.get(self._id, VOLUME_KEY) or "").encode()
        opened = remains.opens(self._volume, self._key) if self._key else None
        deleted = {kind: vault.delete(self._id, kind) for kind in KINDS}
        return {**deleted, "opened_before": opened}

    def _erase(self) -> dict[str, Any]:
        remains = self._house.remains
        slots = remains.describe(self._volume).get("keyslots")
        erased = self._house.volumes.erase_header(self._volume)
        opened = remains.opens(self._volume, self._key) if self._key else None
        self._key = b""
        left = bool(remains.describe(self._volume))
        backup = header_backup(self._volume)
        copied = self._house.volumes.erase_header(backup)
        files.remove(backup)
        if opened or left:
            raise MailboxError(
                f"The keyslots of {self._name} were overwritten, yet its volume can be read.",
                resolution="Check the disk (dmesg), then run `mailbox shred` again.",
                code="erase-failed",
            )
        return {
            "erased": erased,
            "keyslots": slots,
            "opened_after": opened,
            "header_readable": left,
            "backup_erased": copied,
        }

    def _destroy_keys(self) -> dict[str, Any]:
        there = self._house.paths.gnupg(self._name).exists()
        smime.destroy(self._house, self._name)
        rings.destroy_drafts(self._house, self._name)
        self._house.profile_keyring(self._name).destroy()
        return {"there": there}

    def _remove_volume(self) -> dict[str, Any]:
        there = self._volume.exists()
        discarded = self._house.remains.discard(self._volume)
        self._house.volumes.remove(self._volume)
        kept.discard(self._house, self._name, self._id)
        files.remove(self._house.paths.blank(self._name))
        return {"there": there, "discarded": discarded}

    def _clear(self) -> dict[str, Any]:
        shutil.rmtree(self._house.paths.machine(self._name), ignore_errors=True)
        files.remove(self._house.paths.activity(self._name))
        pictures = pictures_of(self._house.journal(self._name).read())
        domain = self._house.domain(self._name)
        return dict(self._house.remains.clear(domain, str(self._id), pictures))

    def _look(self) -> dict[str, Any]:
        house = self._house
        sought = self._sought()
        searched = house.remains.search(sought)
        self.left = [asdict(each) for each in searched.found]
        return {
            "identifiers": [needle.kind for needle in sought.needles],
            "folders": list(searched.folders),
            "files": searched.files,
            "unread": searched.unread,
            "found": self.left,
            "keyring_left": [kind for kind in KINDS if house.vault.get(self._id, kind) is not None],
            "volume_left": self._volume.exists(),
            "saved_left": _or_unknown(lambda: kept.is_anything_kept(house, self._name)),
            "key_ring_left": house.paths.gnupg(self._name).exists(),
            "smime_left": house.paths.smime(self._name).exists(),
            "machine": str(house.machines.state(house.domain(self._name))),
            "volume_served": house.storage.serves(house.paths.volume_socket(self._name)),
        }

    def _remove_records(self) -> None:
        self._house.records.retentions.remove(self._name)
        self._house.records.remove(self._name)

    def _sought(self) -> Sought:
        paths, name = self._house.paths, self._name
        stone = self._house.records.tombstones.of(str(self._id))
        volume = (stone.case.get("volume") or {}) if stone else {}
        records = [paths.journal(name), paths.lock(name)]
        for folder in (paths.tombstones, paths.certificates):
            records += [p for p in folder.glob("*+*") if same_name(p.name.partition("+")[0], name)]
        return Sought(
            needles(
                str(self._id),
                self._house.domain(name),
                str(volume.get("volume_id", "")),
                self._profile(),
            ),
            (paths.config, paths.data, paths.state, paths.runtime, *self._house.remains.places()),
            kept=tuple(records),
            # Removed by the next step; until then it is what names the customer.
            skipped=(*self._house.records.files_of(name), paths.retention(name)),
        )

    def _profile(self) -> Profile | None:
        try:
            return self._house.records.load(self._name, shredded=True)
        except MailboxError:
            return None


def _or_unknown(look: Callable[[], bool]) -> bool | None:
    """What cannot be seen is on record as not known, and stops nothing that destroys."""
    try:
        return look()
    except MailboxError:
        return None
