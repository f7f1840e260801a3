"""`image build` and `image remove`: plans on the images that all mailboxes of a client share.

What `image warm` needs, too, is here: being alone with the images, and their journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import observe_all
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image, MachineState
from sandbox.ports import ImageFolder
from sandbox.state.journal import Journal

_LEFTOVERS = Step("leftovers", "Removing what a killed command left", "it takes room for nothing")
_MAKE = Step("make", "Making the guest system", "from the recipe's packages, in a new folder")
_PLACE = Step("place", "Putting the image in its place", "whole or not at all; older ones stay")
_REMOVE = Step("remove", "Removing the image's folder", "no mailbox that is open needs it")
VERBS = ("image build", "image remove", "image warm")


def plan_build(client: str, known: Image | None) -> Plan:
    """The steps to an image of the client's recipe; none when it was made already."""
    return Plan("image build", client, () if known else (_LEFTOVERS, _MAKE, _PLACE))


def plan_remove(image: ImageFolder) -> Plan:
    """The steps to being without the image."""
    return Plan("image remove", image.folder.name, (_REMOVE,))


def build_image(house: House, client: str, *, rebuild: bool = False) -> Image:
    """The image of the client's recipe: the one that is there, or a new one.

    Raises:
        MailboxError: as `Images.make`; nothing is left of what was begun.
    """
    with alone(house, f"mailbox image build {client}"):
        known = None if rebuild else house.images.built(client)
        if known is not None:
            return known
        work = _Building(house, client)
        run(
            plan_build(client, None),
            {"leftovers": work.clear, "make": work.make, "place": work.place},
            journal(house),
            house.progress,
            undo=work.clear,
        )
    return work.image


class _Building:
    def __init__(self, house: House, client: str) -> None:
        self.image: Image
        self._house = house
        self._client = client
        self._made: Path

    def clear(self) -> None:
        self._house.images.clear(self._house.progress.step)

    def make(self) -> None:
        self._made = self._house.images.make(self._client, self._house.progress.step)

    def place(self) -> dict[str, Any]:
        self.image = self._house.images.place(self._made)
        self.clear()
        return {"image": self.image.id}


def remove_image(house: House, image: ImageFolder) -> None:
    """Remove an image, usable or not.

    Raises:
        MailboxError: `image-in-use`.
    """
    refuse_in_use(house, image)
    with alone(house, f"mailbox image remove {image.folder.name}"):
        effects = {"remove": lambda: house.images.remove(image)}
        run(plan_remove(image), effects, journal(house), house.progress)


def refuse_in_use(house: House, image: ImageFolder) -> None:
    """Raises `image-in-use` while the machine of a mailbox runs from it."""
    needed = [
        seen.name
        for seen in observe_all(house)
        if seen.image == image.id and seen.machine is not MachineState.CLOSED
    ]
    if needed:
        raise MailboxError(
            f"The image is in use by {', '.join(needed)}; it was not removed.",
            resolution="Close what uses it, then try again.",
            code="image-in-use",
            exit_code=Exit.BUSY,
        )


def killed(house: House) -> bool:
    """Whether a killed command left something among the images; not while one of them runs."""
    if house.images.is_changing():
        return False
    return bool(journal(house).read().pending(*VERBS) or house.images.leftovers())


def settle_images(house: House) -> bool:
    """Remove what killed commands left among the images; whether there was something."""
    if not killed(house):
        return False
    with alone(house, "mailbox repair"):
        house.images.clear(house.progress.step)
    return True


@contextmanager
def alone(house: House, purpose: str) -> Iterator[None]:
    """Hold the images; an unfinished verb is brought to its end first."""

    def waiting(holder: str) -> None:
        house.progress.warn(f"Waiting for {holder} to finish with the images.")

    with house.images.alone(purpose, waiting):
        pending = journal(house).read().pending(*VERBS)
        if pending is not None:
            house.progress.warn(f"An earlier `mailbox {pending.verb}` did not finish.")
            house.images.clear(house.progress.step)
            settled = {"outcome": "settled"}
            journal(house).append(pending.verb, "end", pending.run, facts=settled)
        yield


def journal(house: House) -> Journal:
    return Journal(house.paths.image_journal)
