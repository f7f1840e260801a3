"""`edit`: the profile in the user's editor, validated before it replaces the old one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sandbox.host import process
from sandbox.lifecycle.house import House, Result
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.profile import Profile


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
            _check(house, profile, new, old)
        except MailboxError as error:
            raise _kept(error, kept) from None
        house.records.save_text(profile, new)
        kept.unlink()
    summary = f"{profile} is changed; it takes effect at the next open."
    return Result("edit", profile, summary, {"changed": True})


def _edited(draft: Path) -> bytes:
    if process.edit(str(draft)) != 0:
        raise MailboxError("The editor failed.", code="editor-failed")
    return draft.read_bytes()


def _check(house: House, name: str, new: bytes, old: bytes) -> None:
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


def _kept(error: MailboxError, draft: Path) -> MailboxError:
    return MailboxError(
        f"{error.brief} The old profile stays.",
        details=error.details,
        resolution=f"Your edited text is kept in {draft}.",
        code=error.code,
        exit_code=error.exit_code or Exit.FAILED,
    )
