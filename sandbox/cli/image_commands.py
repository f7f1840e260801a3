"""The commands on guest images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox.cli.app import Commands, _verb_of, cli
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan, show_plans
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import observe_all
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image
from sandbox.model.names import human_size
from sandbox.state import lock

if TYPE_CHECKING:
    from sandbox.host.images import Damaged


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
    click.argument("client", metavar="[CLIENT]", default=""),
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
    client = client or _usual_client(house)
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


def _usual_client(house: House) -> str:
    """The client of mailboxes that name no template."""
    return house.records.template("default").client


def _try_warm(house: House, made: Image) -> MailboxError | None:
    from sandbox.lifecycle.warming import catch_up

    try:
        catch_up(house, made)
    except MailboxError as error:
        # The image is whole without it.
        return error
    return None


@_on_images(
    click.argument("client", metavar="[CLIENT]", default=""),
    click.option("--for", "name", metavar="NAME", help="Only for machines like this mailbox's."),
    click.option("--anew", is_flag=True, help="Make anew even those that are there and fit."),
    DRY_RUN,
)
def warm(printer: Printer, client: str, name: str | None, anew: bool, dry_run: bool) -> None:
    """Save machines that wait for a customer, so that `open` need not boot one.

    One for each size of machine that mailboxes of the client have; those that nobody has are
    removed.
    """
    from sandbox.lifecycle.warm import plan_warm, shape_misfit
    from sandbox.lifecycle.warming import catch_up, wanted

    house = compose(printer)
    client = client or _usual_client(house)
    settings = house.records.load(name).settings if name else None
    only = settings.machine.shape if settings else None
    made = house.images.newest(settings.client if settings else client)
    if dry_run:
        shapes = [only] if only else wanted(house, made.client)
        missing = [each for each in shapes if anew or shape_misfit(house, made, each)]
        show_plans(printer, [plan_warm(made, each) for each in missing], "They are there and fit.")
        return
    with printer.working():
        new = catch_up(house, made, only=only, anew=anew)
    told = f"New: {'; '.join(map(str, new))}." if new else "They are there and fit."
    summary = f"The warm states of {made.client}-{made.id}: {told}"
    printer.result(Result("image warm", made.client, summary, _facts(made) | {"new": bool(new)}))


@_on_images()
def list_(printer: Printer) -> None:
    """List the images, the newest first, and who was opened with them last."""
    from sandbox.host import images

    house = compose(printer)
    users, found = _users(house), _all_images(house.paths.images)
    if printer.as_json:
        printer.document([_facts(each) | {"used_by": users.get(each.id, [])} for each in found])
        return
    if not found:
        printer.line("There is no image yet. `mailbox image build` makes one.")
        return
    headings = ("IMAGE", "BUILT (UTC)", "SIZE", "WARM", "LAST USED BY")
    printer.table(headings, [_row(e, users) for e in found])
    making = lock.holder(house.paths.warming_lock)
    if making:
        printer.note(f"Warm states are being made by {making}.")
    for failure in images.warm_failures(house.paths.images):
        printer.warn(f"No warm state for {failure} `mailbox image warm` tries again.")
    for each in found:
        if not isinstance(each, Image):
            printer.warn(f"{each.error.brief} {each.error.details}")


def _row(each: Image | Damaged, users: dict[str, Any]) -> tuple[str, ...]:
    built = each.built[:16].replace("T", " ") if isinstance(each, Image) else "damaged"
    used_by = ", ".join(users.get(each.id, [])) or "-"
    warm = ", ".join(state["shape"] for state in _warm_states(each) if not state["failure"])
    return (f"{each.client}-{each.id}", built, human_size(_size(each)), warm or "-", used_by)


def _warm_states(each: Image | Damaged) -> list[dict[str, Any]]:
    """Of each shape: whether it is there, else why it could not be made."""
    from sandbox.host import images

    if not isinstance(each, Image):
        return []
    store = images.ImageStore(each.folder.parent)
    found = []
    for shape in images.warm_shapes(each):
        failure = None if store.warm_note(each, shape) else store.warm_failure(each, shape)
        told = {"memory": shape.memory, "cpus": shape.cpus, "shape": str(shape)}
        found.append(told | {"failure": failure.reason if failure else None})
    return found


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
        "warm": [
            {key: state[key] for key in ("memory", "cpus", "failure")}
            for state in _warm_states(made)
        ],
        "damaged": damage or None,
    }
