"""The commands on guest images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox.cli.app import Commands, _verb_of, cli
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.lifecycle.engine import Plan, Step
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import observe_all
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image
from sandbox.model.names import human_size

if TYPE_CHECKING:
    from sandbox.host.images import Damaged


_WARMING = (
    Step("boot", "Starting a machine of the image", "one without volume, name and servers"),
    Step("fill", "Reading the mail client's files", "so that they are in its memory"),
    Step("save", "Saving it as it waits for a customer", "the next open begins there"),
)


@cli.group(cls=Commands)
def image() -> None:
    """Build and look after the guest systems that all mailboxes of a client share."""


def _on_images(
    *decorators: Callable[[Any], Any],
) -> Callable[[Callable[..., Any]], click.Command]:
    return _verb_of(image, decorators)


def _image_names(_context: object, _parameter: object, incomplete: str) -> list[str]:
    try:
        folder = compose(Printer()).paths.images
    except MailboxError:
        return []
    names = [f"{each.client}-{each.id}" for each in _all_images(folder)]
    return [name for name in names if name.startswith(incomplete)]


_WHICH = click.argument("image_id", metavar="[IMAGE]", required=False, shell_complete=_image_names)


@_on_images(
    click.argument("client", metavar="[CLIENT]", default="thunderbird"),
    click.option("--rebuild", is_flag=True, help="Build anew, to take in updated packages."),
    click.option(
        "--no-warm", is_flag=True, help="Save no warm state: machines boot at every open."
    ),
    DRY_RUN,
)
def build(printer: Printer, client: str, rebuild: bool, no_warm: bool, dry_run: bool) -> None:
    """Build the image of a mail client from its recipe (needs no root; takes minutes)."""
    from sandbox.lifecycle import images

    house = compose(printer)
    if dry_run:
        known = None if rebuild else house.images.built(client)
        show_plan(printer, images.plan_build(client, known))
        return
    with printer.working():
        made = images.build_image(house, client, rebuild=rebuild)
        problem = None if no_warm else _try_warm(house, made)
    if problem:
        printer.warn(f"The image has no warm state; machines boot. {problem.brief}")
    facts = _facts(made)
    summary = f"The image {made.client}-{made.id} is ready ({human_size(facts['size'])})."
    printer.result(Result("image build", made.client, summary, facts))


def _try_warm(house: House, made: Image) -> MailboxError | None:
    from sandbox.lifecycle import warm

    memory, cpus = warm.size_for(house, made.client)
    try:
        warm.warm_up(house, made, memory=memory, cpus=cpus)
    except MailboxError as error:
        # The image is whole without it.
        return error
    return None


@_on_images(
    click.argument("client", metavar="[CLIENT]", default="thunderbird"),
    click.option("--for", "name", metavar="NAME", help="As much memory as this mailbox has."),
    click.option("--anew", is_flag=True, help="Make it anew even if there is one that fits."),
    DRY_RUN,
)
def warm(printer: Printer, client: str, name: str | None, anew: bool, dry_run: bool) -> None:
    """Save a machine that waits for a customer, so that `open` need not boot one."""
    from sandbox.lifecycle import warm as warming

    house = compose(printer)
    if name is not None:
        settings = house.records.load(name).settings
        client, size = settings.client, (settings.machine.memory, settings.machine.cpus)
    else:
        size = warming.size_for(house, client)
    made = house.images.newest(client)
    if dry_run:
        show_plan(printer, Plan("image warm", client, _WARMING))
        return
    with printer.working():
        new = warming.warm_up(house, made, memory=size[0], cpus=size[1], anew=anew)
    state = "is saved" if new else "is there and fits"
    summary = f"The warm state of {made.client}-{made.id} {state}."
    printer.result(Result("image warm", client, summary, _facts(made) | {"new": new}))


@_on_images()
def list_(printer: Printer) -> None:
    """List the images, the newest first, and who was opened with them last."""
    house = compose(printer)
    users, found = _users(house), _all_images(house.paths.images)
    if printer.as_json:
        printer.document([_facts(each) | {"used_by": users.get(each.id, [])} for each in found])
        return
    if not found:
        printer.line("There is no image yet. `mailbox image build` makes one.")
        return
    printer.table(("IMAGE", "BUILT (UTC)", "SIZE", "LAST USED BY"), [_row(e, users) for e in found])
    for each in found:
        if not isinstance(each, Image):
            printer.warn(f"{each.error.brief} {each.error.details}")


def _row(each: Image | Damaged, users: dict[str, Any]) -> tuple[str, ...]:
    built = each.built[:16].replace("T", " ") if isinstance(each, Image) else "damaged"
    used_by = ", ".join(users.get(each.id, [])) or "-"
    return (f"{each.client}-{each.id}", built, human_size(_size(each)), used_by)


@_on_images(_WHICH)
def verify(printer: Printer, image_id: str | None) -> int:
    """Check every file of an image, or of all, against its manifest."""
    house = compose(printer)
    with printer.results("image verify", "There is no image yet.") as results:
        for each in _chosen(house, image_id):
            name = f"{each.client}-{each.id}"
            try:
                _verify(printer, each)
            except MailboxError as error:
                results.failed(name, error)
            else:
                summary = f"The image {name} is as it was built."
                results.add(Result("image verify", name, summary, _facts(each)))
    return results.exit_code


def _verify(printer: Printer, each: Image | Damaged) -> None:
    from sandbox.host import images

    if not isinstance(each, Image):
        raise each.error
    with printer.working():
        printer.step(f"Verifying {each.client}-{each.id}")
        images.verify(each)


@_on_images(click.argument("image_id", metavar="IMAGE", shell_complete=_image_names), DRY_RUN)
def remove(printer: Printer, image_id: str, dry_run: bool) -> None:
    """Remove an image that no mailbox needs any more."""
    from sandbox.lifecycle import images

    house = compose(printer)
    chosen = _chosen(house, image_id)[0]
    if dry_run:
        images.refuse_in_use(house, chosen)
        show_plan(printer, images.plan_remove(chosen))
        return
    images.remove_image(house, chosen)
    summary = f"The image {chosen.client}-{chosen.id} is removed."
    printer.result(Result("image remove", chosen.client, summary, {"id": chosen.id}))


def _all_images(folder: Path) -> list[Image | Damaged]:
    from sandbox.host import images

    return [*images.list_images(folder), *images.list_damaged(folder)]


def _chosen(house: House, image_id: str | None) -> list[Image | Damaged]:
    found = _all_images(house.paths.images)
    if image_id is None:
        return found
    chosen = [
        each
        for each in found
        if each.id.startswith(image_id) or f"{each.client}-{each.id}" == image_id
    ]
    if len(chosen) != 1:
        raise MailboxError(
            f"{len(chosen)} images have an id that begins with {image_id!r}."
            if chosen
            else f"There is no image {image_id!r}.",
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


def _size(made: Image | Damaged) -> int:
    return sum(path.stat().st_size for path in made.folder.iterdir() if path.is_file())


def _facts(made: Image | Damaged) -> dict[str, Any]:
    damage = "" if isinstance(made, Image) else f"{made.error.brief} {made.error.details}"
    return {
        "id": made.id,
        "client": made.client,
        "built": made.built if isinstance(made, Image) else None,
        "size": _size(made),
        "folder": str(made.folder),
        "warm": isinstance(made, Image) and made.warm_note.exists(),
        "damaged": damage or None,
    }
