"""Which warm states an image should have: one for each shape that its mailboxes have."""

from __future__ import annotations

from contextlib import suppress

from sandbox.lifecycle.house import House
from sandbox.lifecycle.warm import has_failed, shape_misfit, warm_up
from sandbox.model.errors import MailboxError
from sandbox.model.machine import Image, Shape
from sandbox.model.profile import Machine, Settings
from sandbox.state import lock


def wanted(house: House, client: str) -> list[Shape]:
    """The shapes of this client's mailboxes; before the first one, what its template gives."""
    shapes = set()
    for name in house.records.names():
        with suppress(MailboxError):  # one that cannot be read hides no other
            settings = house.records.load(name).settings
            if settings.client == client:
                shapes.add(settings.machine.shape)
    return sorted(shapes) or [_template(house, client).shape]


def _template(house: House, client: str) -> Machine:
    records = house.records
    found: list[Settings] = [records.template(n) for n in ("default", *records.templates())]
    return next((each for each in found if each.client == client), found[0]).machine


def catch_up(
    house: House,
    image: Image,
    *,
    only: Shape | None = None,
    anew: bool = False,
    gently: bool = False,
) -> list[Shape]:
    """Make the warm states that are missing, one after the other, and remove those nobody needs.

    Returns the shapes that were made. Gently: after everything else on this computer, and not
    again what has failed with all as it is now.

    Raises:
        MailboxError: of the first that could not be made, after the others were.
    """
    made, errors = [], []

    def waiting(holder: str) -> None:
        house.progress.warn(f"Waiting for {holder}.")

    with lock.hold(house.paths.warming_lock, f"mailbox image warm {image.client}", waiting):
        shapes = wanted(house, image.client)
        for shape in [only] if only else shapes:
            if not anew and shape_misfit(house, image, shape) is None:
                continue
            if gently and has_failed(house, image, shape):
                continue
            try:
                warm_up(house, image, shape, gently=gently)
            except MailboxError as error:
                errors.append(error)
            else:
                made.append(shape)
        house.images.keep_warm(image, {*shapes, *([only] if only else [])})
    if errors:
        raise errors[0]
    return made


def catch_up_later(house: House, client: str, shape: Shape) -> None:
    """After an open that had to boot: have the next one not boot, where that is wished for."""
    if not house.config().warm_in_background:
        return
    image = house.images.newest(client)
    failure = house.images.warm_failure(image, shape)
    if failure is not None and has_failed(house, image, shape):
        house.progress.detail(f"No warm state is made, as that failed before: {failure.reason}")
        return
    house.host.warm_later(client)
