"""Pictures of a machine's display."""

from __future__ import annotations

import io

from PIL import Image

from sandbox.model.errors import Exit, MailboxError

_MOST_PIXELS = 64_000_000


def to_png(untrusted_picture: bytes) -> bytes:
    """A screenshot as PNG. Only the formats that QEMU writes are read, and bounded in size."""
    try:
        with Image.open(io.BytesIO(untrusted_picture), formats=("PPM", "PNG")) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError("too large")
            kept = io.BytesIO()
            picture.convert("RGB").save(kept, "PNG", optimize=True)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise MailboxError(
            "The machine's display could not be photographed; the mailbox goes on.",
            details=str(error),
            resolution="Try again once its window is shown.",
            code="no-picture",
            exit_code=Exit.MACHINE,
        ) from None
    return kept.getvalue()
