"""The volume key's keyslot made anew with the recovery code, whose own keyslot is never touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sandbox import ports
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.recovery import KEY_SLOT


def rekey(slots: ports.Keyslots, path: Path, code: str, key: bytes) -> dict[str, Any]:
    """Let `key` open the first keyslot instead of what opened it before; returns what to note."""
    mine = slots.find(path, code.encode())
    if mine is None:
        raise wrong_code(str(path))
    target = KEY_SLOT if mine != KEY_SLOT else KEY_SLOT + 1
    slots.kill(path, target, code.encode())
    slots.add(path, target, code.encode(), key, slow=False)
    return {"keyslot": target, "header": slots.fingerprints(path)}


def wrong_code(which: str) -> MailboxError:
    """The error of a code without a typing error that opens no keyslot."""
    return MailboxError(
        f"This recovery code does not open the volume of {which}; nothing was changed.",
        details="It was typed without an error, so it is another mailbox's, it was replaced by a "
        "newer one, or its keyslot is damaged.",
        resolution="Try the newest code of this mailbox; `mailbox repair` puts a header backup "
        "back.",
        code="recovery-code-wrong",
        exit_code=Exit.DAMAGED,
    )
