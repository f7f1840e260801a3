"""No verb and no step without its accident: what can be killed is read from the code, not listed.

Whoever writes a new verb, or a new step of one, fails here until a scene of `test_crash_matrix`,
`test_crash_recovery` or this file kills it.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest

from sandbox.cli import (
    changing,
    commands,
    correspondents,
    ending,
    image_commands,
    key_commands,
    making,
    own_key_commands,
    recovery_commands,
)
from sandbox.cli.app import cli
from sandbox.lifecycle import images
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.switch import switch
from sandbox.lifecycle.warm import plan_warm
from sandbox.model.machine import Image, domain_name
from sandbox.model.profile import Machine
from sandbox.state import journal
from tests.unit import test_crash_matrix as matrix
from tests.unit import test_crash_recovery as recovery
from tests.unit.fakes import NAME, SETTINGS, World, mails, make_house, make_wish

LIFECYCLE = Path(__file__).parents[2] / "sandbox" / "lifecycle"
_ = (commands, correspondents, ending, image_commands, key_commands, making, own_key_commands)
_ = (changing, recovery_commands)
# Commands with a plan to show that are no plan of one mailbox; who kills them.
KILLED_HERE = {"switch", "image warm", "repair"}
# They have a journal of their own; tests/unit/test_images.py kills them.
ABOUT_IMAGES = set(images.VERBS)
OTHER = "clientB"
SUSPENDING = replace(SETTINGS, machine=Machine(2 * 1024**3, 2, on_close="suspend"))


def planned_commands() -> set[str]:
    """Every command that has a plan to show."""
    return {
        name
        for name, command in _commands(cli)
        if any(parameter.name == "dry_run" for parameter in command.params)
    }


def _commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{name} ")


def calls(kind: str) -> set[str]:
    """The first (id) or, of a plan, the verb of every `Step(…)` or `Plan(…)` that can be run."""
    found = set()
    for path in LIFECYCLE.glob("*.py"):
        if path.name == "preview.py":  # only shown, never run
            continue
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == kind:
                first = node.args[0]
                named = first.value if isinstance(first, ast.Constant) else None
                found.add(str(named or constants[getattr(first, "id", "")]))
    return found


def killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Verb and step of every entry at which a scene is killed."""
    told = [
        label
        for scene in matrix.BEFORE
        for moment in matrix._moments(scene, _made(folder / f"m {scene}"), monkeypatch)
        for label in moment.labels
    ] + [
        label
        for scene in recovery.SCENES
        for moment in recovery.moments(scene, _made(folder / f"r {scene}"), monkeypatch)
        for label in moment.labels
    ]
    seen = (re.fullmatch(r"after journal (.+) step (\S+)", label) for label in told)
    return {(each[1], each[2]) for each in seen if each}


def steps_of_images() -> set[str]:
    """Those of `image build` and `image remove`, and of `image warm`, which is killed below."""
    image = Image("0" * 16, "mua", "", Path("mua-0"))
    warming = plan_warm(image, SETTINGS.machine.shape)
    plans = (images.plan_build("mua", None), images.plan_remove(image), warming)
    return {step.id for plan in plans for step in plan.steps}


def test_every_verb_and_step_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = killed(tmp_path, monkeypatch)
    monkeypatch.undo()
    assert calls("Plan") - ABOUT_IMAGES - {verb for verb, _step in done} == set()
    assert calls("Step") - {step for _verb, step in done} - steps_of_images() == set()
    covered = {verb for verb, _step in done} | KILLED_HERE | ABOUT_IMAGES
    assert planned_commands() - covered == set()


def test_no_unfinished_verb_is_overlooked() -> None:
    assert calls("Plan") - ABOUT_IMAGES == set(journal._WEIGHT)


def _two(world: World) -> None:
    house = make_house(world)
    onboard(house, make_wish(settings=SUSPENDING))
    onboard(house, make_wish(OTHER, settings=SUSPENDING))
    open_mailbox(house, NAME, headless=True)


def test_a_switch_killed_anywhere_loses_neither_mailbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(house: House) -> object:
        return switch(house, OTHER, headless=True)

    world = World(tmp_path / "case")
    matrix._observe(world, monkeypatch)
    world.root.mkdir()
    _two(world)
    shutil.copytree(world.root, tmp_path / "before")
    world.labels.clear()
    for moment in matrix._rehearse(world, change):
        shutil.rmtree(world.root)
        shutil.copytree(tmp_path / "before", world.root)
        assert matrix._killed(world, change, moment.number)
        house = matrix._next(world)
        repair(house, None)
        where = f"killed {moment.labels[0]}"
        _assert_in_order(world, where)
        switch(make_house(world), OTHER, headless=True)
        assert mails(house.paths.volume(NAME)) >= 1, where
        _assert_in_order(world, where)
        assert set(world.state["machines"]) == {domain_name(OTHER)}, where


def _assert_in_order(world: World, where: str) -> None:
    house, state = make_house(world), world.state
    for name in (NAME, OTHER):
        assert house.journal(name).read().pending() is None, where
        runs = domain_name(name) in state["machines"]
        assert house.paths.machine(name).exists() == runs, where
        kept = house.paths.saved_note(name).exists()
        assert house.paths.saved(name).exists() == kept and not (kept and runs), where
    assert len(state["wardens"]) == len(state["served"]) == len(state["machines"]), where


def test_a_warming_killed_anywhere_leaves_nothing_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    world = World(tmp_path / "case")
    world.watch = lambda _label: None
    world.root.mkdir()
    total = len(_labels_of_warming(World(_made(tmp_path / "rehearsal"))))
    for number in range(1, total + 1):
        shutil.rmtree(world.root)
        world.root.mkdir()
        assert matrix._killed(world, matrix.VERBS["warm"], number)
        house = matrix._next(world)
        repair(house, None)
        where = f"moment {number}"
        assert world.state["machines"] == {} and world.state["wardens"] == {}, where
        assert not list(house.paths.runtime.glob(".*")), where
        assert house.images.leftovers() == [] and not images.killed(house), where
        matrix.VERBS["warm"](make_house(world))
        image = house.images.newest(SETTINGS.client)
        shape = SETTINGS.machine.shape
        assert house.images.warm_note(image, shape) is not None, where


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _labels_of_warming(world: World) -> list[str]:
    matrix.VERBS["warm"](make_house(world))
    return world.labels
