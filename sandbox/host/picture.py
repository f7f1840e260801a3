"""Pictures of a machine's display."""

from __future__ import annotations

import io

from PIL import Image


def to_png(untrusted_picture: bytes) -> bytes:
    """A screenshot as PNG. Only the formats that QEMU writes are read, and bounded in size."""
    with Image.open(io.BytesIO(untrusted_picture), formats=("PPM", "PNG")) as picture:
        if picture.width * picture.height > 64_000_000:
            raise ValueError("the picture is too large")
        kept = io.BytesIO()
        picture.convert("RGB").save(kept, "PNG", optimize=True)
    return kept.getvalue()
