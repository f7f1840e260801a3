"""The commands on guest images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sandbox.cli.app import _verb_of, cli
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import observe_all
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image
from sandbox.model.names import human_size


@cli.group()
def image() -> None:
    """Build and look after the guest systems that all mailboxes of a client share."""


def _on_images(
    *decorators: Callable[[Any], Any],
) -> Callable[[Callable[..., Any]], click.Command]:
    return _verb_of(image, decorators)


_WHICH = click.argument("image_id", metavar="IMAGE", required=False)


@_on_images(
    click.argument("client", default="thunderbird"),
    click.option("--rebuild", is_flag=True, help="Build anew, to take in updated packages."),
)
def build(printer: Printer, client: str, rebuild: bool) -> None:
    """Build the image of a mail client from its recipe (needs no root; takes minutes)."""
    from sandbox.host import images

    house = compose(printer)
    with printer.working():
        made = images.build(client, house.paths.images, printer.step, rebuild=rebuild)
    facts = _facts(made)
    summary = f"The image {made.client}-{made.id} is ready ({human_size(facts['size'])})."
    printer.result(Result("image build", made.client, summary, facts))


@_on_images()
def list_(printer: Printer) -> None:
    """List the images, the newest first, and who was opened with them last."""
    from sandbox.host import images

    house = compose(printer)
    users = _users(house)
    found = images.list_images(house.paths.images)
    if printer.as_json:
        printer.document([_facts(each) | {"used_by": users.get(each.id, [])} for each in found])
        return
    if not found:
        printer.line("There is no image yet. `mailbox image build` makes one.")
        return
    rows = [_row(each, users) for each in found]
    printer.table(("IMAGE", "BUILT (UTC)", "SIZE", "LAST USED BY"), rows)


def _row(each: Image, users: dict[str, Any]) -> tuple[str, ...]:
    built = each.built[:16].replace("T", " ")
    used_by = ", ".join(users.get(each.id, [])) or "-"
    return (f"{each.client}-{each.id}", built, human_size(_size(each)), used_by)


@_on_images(_WHICH)
def verify(printer: Printer, image_id: str | None) -> None:
    """Check every file of an image, or of all, against its manifest."""
    from sandbox.host import images

    house = compose(printer)
    for each in _chosen(house, image_id):
        with printer.working():
            printer.step(f"Verifying {each.client}-{each.id}")
            images.verify(each)
        summary = f"The image {each.client}-{each.id} is as it was built."
        printer.result(Result("image verify", each.client, summary, _facts(each)))


@_on_images(click.argument("image_id", metavar="IMAGE"))
def remove(printer: Printer, image_id: str) -> None:
    """Remove an image that no mailbox needs any more."""
    from sandbox.host import images

    house = compose(printer)
    chosen = _chosen(house, image_id)[0]
    needed = [
        seen.name
        for seen in observe_all(house)
        if seen.image == chosen.id and str(seen.machine) not in ("closed",)
    ]
    if needed:
        raise MailboxError(
            f"The image is in use by {', '.join(needed)}; it was not removed.",
            resolution="Close what uses it, then try again.",
            code="image-in-use",
            exit_code=Exit.BUSY,
        )
    images.remove(chosen)
    summary = f"The image {chosen.client}-{chosen.id} is removed."
    printer.result(Result("image remove", chosen.client, summary, {"id": chosen.id}))


def _chosen(house: House, image_id: str | None) -> Any:
    from sandbox.host import images

    found = images.list_images(house.paths.images)
    if image_id is None and found:
        return found
    chosen = [
        each
        for each in found
        if image_id and (each.id.startswith(image_id) or f"{each.client}-{each.id}" == image_id)
    ]
    if len(chosen) != 1:
        raise MailboxError(
            f"There is no image {image_id!r}." if image_id else "There is no image yet.",
            resolution="`mailbox image list` shows those there are.",
            code="image-unknown",
            exit_code=Exit.NOT_FOUND,
        )
    return chosen


def _users(house: House) -> dict[str, Any]:
    users: dict[str, Any] = {}
    for seen in observe_all(house):
        if seen.image:
            users.setdefault(seen.image, []).append(seen.name)
    return users


def _size(made: Image) -> int:
    return sum(path.stat().st_size for path in made.folder.iterdir() if path.is_file())


def _facts(made: Image) -> dict[str, Any]:
    return {
        "id": made.id,
        "client": made.client,
        "built": made.built,
        "size": _size(made),
        "folder": str(made.folder),
    }
