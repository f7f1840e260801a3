"""What changes a mailbox's own keys in its key ring; callers work on a copy of the ring."""

from __future__ import annotations

from pathlib import Path

from sandbox.host import agents, process
from sandbox.host.keylisting import LISTING, read_listing
from sandbox.host.listing import SIGNED_ONLY
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keydetails import HERE, Details, Reason, to_extend
from sandbox.model.revocation import armed, disarmed
from sandbox.state import files

# What gpg asks for the reason of a revocation (RFC 9580, 5.2.3.31; g10/revoke.c).
_REASONS = {
    Reason.UNSPECIFIED: "0",
    Reason.COMPROMISED: "1",
    Reason.SUPERSEDED: "2",
    Reason.UNUSED: "3",
}


class OwnKeyring:
    """The own keys in one GnuPG home. No agent outlives a call."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def describe(self, fingerprint: str) -> Details | None:
        """A key that is in the ring, with its secret parts where there are any."""
        secret = self._gpg(*LISTING, "--list-secret-keys", fingerprint).stdout
        public = secret or self._gpg(*LISTING, "--list-keys", fingerprint).stdout
        return read_listing(public).get(fingerprint)

    def extend(self, fingerprint: str, lasts: str, passphrase: str) -> Details:
        """Move the end of the primary key and of the subkeys that serve with it.

        Raises:
            MailboxError: `key-offline`, `key-unusable`, `gnupg-failed`.
        """
        before = self._described(fingerprint)
        if before.primary.state == "revoked":
            raise unusable(fingerprint, "is revoked, and no date brings it back")
        if before.primary.secret != HERE:
            raise _offline(fingerprint)
        command = ("--quick-set-expire", fingerprint, lasts)
        self._with_passphrase(passphrase, "extend the key", *command)
        if subkeys := to_extend(before.parts):
            self._with_passphrase(passphrase, "extend its subkeys", *command, *subkeys)
        after = self._described(fingerprint)
        if not (after.serves("encrypt") and after.serves("sign")):
            raise _failed("extend the key", b"")
        return after

    def update(self, fingerprint: str, armored: bytes) -> Details:
        """Take a newer public part of a key that is here: other dates, user ids, subkeys."""
        found = read_listing(self._gpg(*LISTING, "--show-keys", input=armored).stdout)
        if list(found) != [fingerprint]:
            raise unusable("The file", f"does not hold exactly the key {fingerprint}")
        if b"PRIVATE KEY" in armored:
            raise unusable("The file", "holds a secret key; export the public one")
        self._gpg("--import", input=armored)
        return self._described(fingerprint)

    def certificate(self, fingerprint: str) -> bytes | None:
        """The revocation certificate that is kept for a key, ready to be applied."""
        path = self._note(fingerprint)
        with files.readable_errors(path):
            return armed(path.read_bytes()) if path.exists() else None

    def make_certificate(
        self, fingerprint: str, passphrase: str, reason: Reason, words: str = ""
    ) -> bytes | None:
        """A new revocation certificate; None when the part that certifies is not here."""
        details = self.describe(fingerprint)
        if details is None or details.primary.secret != HERE:
            return None
        # Asked in this order; the text ends with an empty line (gpg(1), --command-fd).
        lines = [line for line in words.splitlines() if line.strip()]
        answers = ["y", _REASONS[reason], *lines, "", "y", passphrase]
        options = ("--command-fd", "0", "--status-fd", "2", "--armor")
        done = self._gpg(*options, "--gen-revoke", fingerprint, input=_lines(*answers), batch=False)
        if b"BEGIN PGP" not in done.stdout:
            raise _failed("make a revocation certificate", done.stderr)
        return done.stdout

    def keep_certificate(self, fingerprint: str, passphrase: str) -> bool:
        """Make and keep a revocation certificate where there is none; whether there is one."""
        path = self._note(fingerprint)
        if not path.exists():
            made = self.make_certificate(fingerprint, passphrase, Reason.UNSPECIFIED)
            if made is None:
                return False
            files.private_folder(path.parent)
            files.replace(path, disarmed(made))
        return True

    def revoke(self, fingerprint: str, certificate: bytes) -> None:
        """Apply a revocation certificate; raises `key-unusable` when it is not this key's."""
        self._gpg("--import", input=armed(certificate))
        if self._described(fingerprint).primary.state != "revoked":
            raise unusable("The certificate", f"does not revoke the key {fingerprint}")

    def destroy_secret(self, fingerprint: str) -> None:
        """Remove every secret part of a key; its public part and revocation certificate stay.

        Raises:
            MailboxError: `gnupg-failed`.
        """
        if not self._gpg(*LISTING, "--list-secret-keys", fingerprint).stdout:
            return
        done = self._gpg("--delete-secret-keys", fingerprint)
        if done.returncode != 0:
            raise _failed("destroy the key", done.stderr)

    def sign(self, text: str, fingerprints: tuple[str, ...], passphrase: str) -> str:
        """The text with a signature of each key in it."""
        users = [option for each in fingerprints for option in ("--local-user", each)]
        options = (*users, "--clearsign")
        done = self._with_passphrase(passphrase, "sign the text", *options, data=text.encode())
        return done.stdout.decode()

    def _described(self, fingerprint: str) -> Details:
        details = self.describe(fingerprint)
        if details is None:
            raise MailboxError(
                f"The key {fingerprint} is not in the mailbox's key ring; nothing was changed.",
                resolution="`mailbox keys list` shows those that are.",
                code="key-not-found",
                exit_code=Exit.KEYS,
            )
        return details

    def _note(self, fingerprint: str) -> Path:
        """Where GnuPG itself puts the certificates of the keys that it makes (gpg(1), FILES)."""
        return self._home / "openpgp-revocs.d" / f"{fingerprint}.rev"

    def _with_passphrase(
        self, passphrase: str, what: str, *arguments: str, data: bytes = b""
    ) -> process.Completed:
        # The passphrase is the first line of the standard input, what follows is the data.
        done = self._gpg("--passphrase-fd", "0", *arguments, input=_lines(passphrase) + data)
        if done.returncode != 0:
            raise _failed(what, done.stderr)
        return done

    def _gpg(self, *arguments: str, input: bytes = b"", batch: bool = True) -> process.Completed:
        command = ["gpg", "--homedir", str(self._home), *(("--batch", "--yes") if batch else ())]
        command += ["--no-tty", "--pinentry-mode", "loopback", "--trust-model", "always"]
        command += ["--display-charset", "utf-8", SIGNED_ONLY]
        try:
            return process.run([*command, *arguments], input=input, check=False, timeout=120)
        finally:
            agents.end(self._home)
            for path in self._home.glob("pubring*"):
                path.chmod(0o600)


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def unusable(which: str, reason: str) -> MailboxError:
    """The error of a key or certificate that cannot be taken."""
    return MailboxError(
        f"{which} {reason}; nothing was changed.",
        resolution="`mailbox keys show` shows what the mailbox has.",
        code="key-unusable",
        exit_code=Exit.KEYS,
    )


def _offline(fingerprint: str) -> MailboxError:
    return MailboxError(
        f"The part of {fingerprint} that certifies is not on this computer; nothing was changed.",
        resolution="Extend the key where it is, export its public part, and give that with "
        "--key-file.",
        code="key-offline",
        exit_code=Exit.KEYS,
    )


def _failed(what: str, stderr: bytes) -> MailboxError:
    text = stderr.decode(errors="replace").strip().splitlines()
    return MailboxError(
        f"GnuPG could not {what}; nothing was changed.",
        details="\n".join(line for line in text[-4:] if not line.startswith("[GNUPG:]")),
        resolution="`mailbox doctor` checks GnuPG.",
        code="gnupg-failed",
        exit_code=Exit.KEYS,
    )
