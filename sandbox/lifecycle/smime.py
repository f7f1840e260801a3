"""`keys smime`: the mailbox's S/MIME certificate with its key, or none any more.

Its file is locked with a random passphrase that rests in the keyring, and has the fingerprint in
its name: the profile says which one counts, and all others go.
"""

from __future__ import annotations

import base64
import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.keys import WRITE, changed
from sandbox.lifecycle.settle import settle
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile
from sandbox.model.secrets import SMIME_PASSPHRASE
from sandbox.model.smime import CertificateFacts, Smime, certificate_lacks, certificate_problem
from sandbox.ports import Ask
from sandbox.state import files

VERB = "keys smime"
_SECRET = Step("secret", "Storing the passphrase in the keyring", "it locks the copy that is kept")
_KEEP = Step("certificate", "Keeping the certificate", "each open brings it to the mail client")
_TIDY = Step("tidy", "Destroying what counts no more", "the profile names the one that does")


@dataclass(frozen=True)
class NewCertificate:
    """A file of the user's, and who is trusted to vouch for such certificates."""

    content: bytes = field(repr=False)
    ask: Ask = field(repr=False)
    ca: tuple[str, ...] = ()


def plan_smime(profile: Profile, *, remove: bool) -> Plan:
    """The steps of `keys smime`; none when there is nothing to remove."""
    if not remove:
        return Plan(VERB, profile.name, (_SECRET, _KEEP, WRITE, _TIDY))
    return Plan(VERB, profile.name, (WRITE, _TIDY) if profile.smime else ())


def take(house: House, name: str, new: NewCertificate) -> Result:
    """Take a certificate in place of the one that there is, if any."""
    known = house.records.load(name).name
    with house.locked(known, VERB):
        settle(house, known)
        profile = house.records.load(known)
        house.vault.check()
        work = _Taking(house, profile, new)
        _run(house, plan_smime(profile, remove=False), work.effects())
    facts = work.facts
    lacks = certificate_lacks(facts)
    if lacks:
        house.progress.warn(lacks)
    summary = f"{facts.subject} is the certificate of {known} until {facts.ends.date()}."
    told = {"fingerprint": facts.fingerprint, "subject": facts.subject, "issuer": facts.issuer}
    uses = {"signs": facts.signs, "encrypts": facts.encrypts, "expires": str(facts.ends.date())}
    return changed(house, VERB, known, summary, {**told, **uses})


def remove(house: House, name: str) -> Result:
    """Have no certificate any more."""
    known = house.records.load(name).name
    with house.locked(known, VERB):
        settle(house, known)
        profile = house.records.load(known)
        plan = plan_smime(profile, remove=True)
        if not plan.steps:
            return Result(VERB, known, f"{known} has no S/MIME certificate.", {"removed": False})
        effects = {
            "profile": lambda: house.records.save(replace(profile, smime=None)),
            "tidy": lambda: tidy(house, known),
        }
        _run(house, plan, effects)
    return changed(house, VERB, known, "The S/MIME certificate is destroyed.", {"removed": True})


def look(house: House, profile: Profile, new: NewCertificate) -> CertificateFacts:
    """What a file holds; refused as `take` would.

    Raises:
        MailboxError: `smime-unusable`, `smime-passphrase-wrong`.
    """
    return _judged(profile, house.certificates.take(new.content, new.ask, "unused")[0])


def _run(house: House, plan: Plan, effects: dict[str, Any]) -> None:
    run(
        plan,
        effects,
        house.journal(plan.name),
        house.progress,
        undo=lambda: tidy(house, plan.name),
    )


class _Taking:
    """The effects; the secrets live in this object's memory, the keyring and the locked file."""

    def __init__(self, house: House, profile: Profile, new: NewCertificate) -> None:
        self._house = house
        self._profile = profile
        self._ca = new.ca
        old = house.vault.get(profile.id, SMIME_PASSPHRASE)
        self._passphrase = old or house.vault.new_key().decode()
        facts, self._locked = house.certificates.take(new.content, new.ask, self._passphrase)
        self.facts = _judged(profile, facts)

    def effects(self) -> dict[str, Any]:
        return {
            "secret": self._store,
            "certificate": self._keep,
            "profile": self._write,
            "tidy": lambda: tidy(self._house, self._profile.name),
        }

    def _store(self) -> None:
        self._house.vault.put(self._profile.id, SMIME_PASSPHRASE, self._passphrase)

    def _keep(self) -> None:
        name = self._profile.name
        files.private_folder(self._house.paths.smime(name))
        files.replace(
            self._house.paths.certificate_file(name, self.facts.fingerprint), self._locked
        )

    def _write(self) -> None:
        day = self.facts.ends.date().isoformat()
        smime = Smime(self.facts.fingerprint, day, self._ca)
        self._house.records.save(replace(self._profile, smime=smime))


def tidy(house: House, name: str) -> None:
    """Leave what the profile names, and nothing else."""
    profile = house.records.load(name)
    folder = house.paths.smime(name)
    if profile.smime is None:
        house.vault.delete(profile.id, SMIME_PASSPHRASE)
        destroy(house, name)
        return
    kept = house.paths.certificate_file(name, profile.smime.fingerprint)
    for path in folder.glob("*") if folder.exists() else ():
        if path != kept:
            files.remove(path)
    for draft in folder.glob(".*"):
        files.remove(draft)


def destroy(house: House, name: str) -> bool:
    """Remove every file of certificates; returns whether there was any."""
    folder = house.paths.smime(name)
    if not folder.exists():
        return False
    with files.readable_errors(folder):
        shutil.rmtree(folder)
        files.sync_folder(folder.parent)
    return True


def certificate_for(house: House, profile: Profile, passphrase: str) -> dict[str, Any]:
    """What the machine is sent; the file stays locked with the passphrase.

    Raises:
        MailboxError: `smime-missing`, `smime-passphrase-wrong`.
    """
    if profile.smime is None:
        raise RuntimeError("there is no certificate")
    path = house.paths.certificate_file(profile.name, profile.smime.fingerprint)
    try:
        content = path.read_bytes()
    except OSError:
        raise _missing(profile.name) from None
    facts = house.certificates.read(content, passphrase)
    return {
        "fingerprint": facts.fingerprint,
        "certificate": facts.pem,
        "pkcs12": base64.b64encode(content).decode(),
        "passphrase": passphrase,
        "signs": facts.signs,
        "encrypts": facts.encrypts,
        "ca": list(profile.smime.ca),
    }


def _judged(profile: Profile, facts: CertificateFacts) -> CertificateFacts:
    problem = certificate_problem(facts, profile.account.address, datetime.now(UTC))
    if problem:
        raise MailboxError(
            f"The certificate {facts.subject} {problem}; nothing was changed.",
            details=f"issuer {facts.issuer}\nSHA-256 {facts.fingerprint}",
            resolution="Give the certificate of this mailbox's address.",
            code="smime-unusable",
            exit_code=Exit.KEYS,
        )
    return facts


def _missing(name: str) -> MailboxError:
    return MailboxError(
        f"The S/MIME certificate of {name} is not on this computer; the mail is untouched.",
        resolution=f"`mailbox keys smime {name} FILE` takes it again, `--remove` goes on without.",
        code="smime-missing",
        exit_code=Exit.KEYS,
    )
