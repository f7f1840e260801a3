"""`edit`: the profile in the user's editor, validated before it replaces the old one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from sandbox.cli.passwords import take_dav_password
from sandbox.host import process
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.password import change, no_own_password
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.profile import Profile
from sandbox.model.secrets import DAV_PASSWORD


def edit_mailbox(
    house: House, name: str, *, dav_password_stdin: bool, dav_password_fd: int | None
) -> Result:
    """Edit the profile, or only store the password that was given."""
    if dav_password_stdin or dav_password_fd is not None:
        source = partial(take_dav_password, dav_password_stdin, dav_password_fd)
        return _set_dav_password(house, name, source)
    return edit_profile(house, name)


def edit_profile(house: House, name: str) -> Result:
    """Edit; on any error the old profile stays and the edited text is kept to go on with."""
    profile = house.records.find(name) or house.records.load(name).name
    path = house.paths.profile(profile)
    with house.locked(profile, "edit"):
        old = path.read_bytes()
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{profile}.", suffix=".edit", delete=False
        ) as draft:
            draft.write(old)
        kept = Path(draft.name)
        try:
            new = _edited(kept)
            if new == old:
                kept.unlink()
                return Result("edit", profile, f"{profile} is unchanged.", {"changed": False})
            before, after = _check(house, profile, new, old)
            _give_dav_password(house, before, after)
        except MailboxError as error:
            raise _kept(error, kept) from None
        house.records.save_text(profile, new)
        kept.unlink()
        _drop_dav_password(house, before, after)
    summary = f"{profile} is changed; it takes effect at the next open."
    return Result("edit", profile, summary, {"changed": True})


def _set_dav_password(house: House, name: str, password: Callable[[], str]) -> Result:
    """As `mailbox password`, without asking the servers."""
    profile = house.records.load(name)
    if not profile.account.has_dav_password:
        raise no_own_password(profile.name)
    done = change(house, profile.name, {DAV_PASSWORD: password()}, check=False)
    return replace(done, verb="edit", facts={"changed": bool(done.facts["changed"])})


def _give_dav_password(house: House, before: Profile | None, after: Profile) -> None:
    """A calendar that newly has a password of its own needs one: it is asked for, or said."""
    had = before is not None and before.account.has_dav_password
    if not after.account.has_dav_password or had:
        return
    if house.vault.get(after.id, DAV_PASSWORD) is not None:
        return
    if sys.stdin.isatty():
        house.vault.put(after.id, DAV_PASSWORD, take_dav_password(False, None))
        return
    house.progress.warn(
        "The keyring has no password for calendars and address books yet; give it with "
        f"`mailbox password {after.name} --dav-password-stdin` before the next open."
    )


def _drop_dav_password(house: House, before: Profile | None, after: Profile) -> None:
    """A password that nothing needs any more is kept no longer."""
    if before and before.account.has_dav_password and not after.account.has_dav_password:
        house.vault.delete(after.id, DAV_PASSWORD)


def _edited(draft: Path) -> bytes:
    if process.edit(str(draft)) != 0:
        raise MailboxError("The editor failed.", code="editor-failed")
    return draft.read_bytes()


def _check(house: House, name: str, new: bytes, old: bytes) -> tuple[Profile | None, Profile]:
    """The profile as it was, if it could be read, and as it is to be."""
    after = house.records.parse(new, "The edited profile")
    try:
        before: Profile | None = house.records.parse(old, "The old profile")
    except MailboxError:
        before = None
    problems = [] if after.name == name else ["name: cannot be changed"]
    if before and after.id != before.id:
        problems.append("id: cannot be changed; it is what the keyring knows the volume by")
    if before and after.settings.volume_size != before.settings.volume_size:
        problems.append("volume.size: the volume exists and keeps its size")
    if problems:
        raise InvalidInputError("The edited profile", problems)
    return before, after


def _kept(error: MailboxError, draft: Path) -> MailboxError:
    return MailboxError(
        f"{error.brief} The old profile stays.",
        details=error.details,
        resolution=f"Your edited text is kept in {draft}.",
        code=error.code,
        exit_code=error.exit_code or Exit.FAILED,
    )
