"""`screenshot`: a picture of an open machine, on record so that `shred` finds it again."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

from sandbox.lifecycle.house import House, Result
from sandbox.state import files


def save_screenshot(
    house: House, name: str, file: Path, to_png: Callable[[bytes], bytes]
) -> Result:
    """Save what the machine shows; noted before it is written, so that none is forgotten."""
    known = house.records.load(name).name
    picture = to_png(house.machines.screenshot(house.domain(known)))
    where = file.absolute()
    facts = {"file": str(where), "sha256": hashlib.sha256(picture).hexdigest()}
    house.journal(known).append("screenshot", "end", secrets.token_hex(4), facts=facts)
    with files.readable_errors(file):
        # It may show decrypted mail.
        file.touch(0o600)
        file.write_bytes(picture)
    return Result("screenshot", known, f"Saved {file}.", {"file": str(file)})
