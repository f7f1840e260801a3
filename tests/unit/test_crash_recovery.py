"""What keeps a mailbox from being locked out, killed at every moment: some key always opens it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.lifecycle.close import close
from sandbox.lifecycle.codes import renew_code
from sandbox.lifecycle.header import back_up
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import Adoption, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.recover import Means, recover
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.shred import shred
from sandbox.model.errors import MailboxError
from sandbox.model.secrets import ITEMS, VOLUME_KEY
from tests.unit import test_crash_matrix as matrix
from tests.unit.fakes import NAME, PASSWORD, World, mails, make_house, make_wish, opens

Verb = Callable[[House], object]


def root(house: House) -> Path:
    return house.paths.config.parent


def writer(house: House) -> Callable[[str], None]:
    """A sheet of paper that every code is written on, the newest last."""

    def write(code: str) -> None:
        with (root(house) / "paper").open("a") as paper:
            paper.write(f"{code}\n")

    return write


def codes(house: House) -> list[str]:
    return (root(house) / "paper").read_text().split()


def code_that_opens(house: House, path: Path) -> str:
    """What a person finds out who tries the newest code first."""
    tried = reversed(codes(house)) if path.exists() else ()
    return next((code for code in tried if opens(path, code.encode())), codes(house)[-1])


def recover_here(house: House) -> object:
    code = code_that_opens(house, house.paths.volume(NAME))
    return recover(house, NAME, Means(code, lambda: PASSWORD))


def adopt(house: House) -> object:
    stick = root(house) / "stick.luks"
    return onboard(house, make_wish(adopt=Adoption(stick, codes(house)[0]), hand_over=None))


def lose_keyring(house: House) -> None:
    identity = house.records.load(NAME).id
    for kind in ITEMS:
        house.vault.delete(identity, kind)


def move_to_another_computer(house: House) -> None:
    shutil.copy(house.paths.volume(NAME), root(house) / "stick.luks")
    lose_keyring(house)
    for folder in ("config", "data", "state", "run"):
        shutil.rmtree(root(house) / folder, ignore_errors=True)


def damage_header(house: House) -> None:
    with house.paths.volume(NAME).open("r+b") as volume:
        volume.write(bytes(256))


VERBS: dict[str, Verb] = {
    "onboard": lambda house: onboard(house, make_wish(hand_over=writer(house))),
    "open": lambda house: open_mailbox(house, NAME, headless=True),
    "close": lambda house: close(house, NAME),
    "shred": lambda house: shred(house, NAME),
    "repair": lambda house: repair(house, None),
    "recovery-code": lambda house: renew_code(house, NAME, writer(house), replace=True),
    "recover": recover_here,
    "adopt": adopt,
    "header-backup": lambda house: back_up(house, NAME, remove=False),
    "remove": lambda house: back_up(house, NAME, remove=True),
    "damage": damage_header,
    "lose keyring": lose_keyring,
    "move": move_to_another_computer,
}
USED = ("onboard", "open", "close")
SCENES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a new code": ("recovery-code", USED),
    "a lost keyring": ("recover", (*USED, "lose keyring")),
    "another computer": ("adopt", (*USED, "move")),
    "a header backup": ("header-backup", USED),
    "a header backup again": ("header-backup", (*USED, "header-backup")),
    "no header backup": ("remove", (*USED, "header-backup")),
    "a damaged header": ("repair", (*USED, "header-backup", "damage")),
    "a new code with a backup": ("recovery-code", (*USED, "header-backup")),
}
FOLLOWING = ("open", "close", "shred", "repair", "recovery-code", "recover", "adopt")
NOT_THERE = {"profile-unknown", "profile-shredded"}
LOCKED = {"keyring-item-missing", "keyring-item-wrong", "key-locked"}
EXPECTED = {
    # A new code that may not have been seen does not count, and is said not to.
    "a new code": {"profile-exists", "recovery-code-wrong"},
    "a lost keyring": LOCKED | {"profile-exists"},
    "another computer": NOT_THERE | {"profile-exists", "volume-missing"},
    "a header backup": {"profile-exists"},
    "a header backup again": {"profile-exists"},
    "no header backup": {"profile-exists"},
    "a damaged header": {"profile-exists", "volume-header-damaged"},
    "a new code with a backup": {"profile-exists", "recovery-code-wrong"},
}
# Headers do not care whether a mailbox is closed or adopted next.
CASES = [
    (scene, following)
    for scene in SCENES
    for following in FOLLOWING
    if not ("header" in scene or "backup" in scene) or following not in ("close", "adopt")
]
_REHEARSED: dict[str, list[matrix.Moment]] = {}


@pytest.mark.parametrize(("scene", "following"), CASES)
def test_killed_anywhere_it_is_never_locked_out(
    scene: str, following: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = FOLLOWING.index(following)
    for moment in moments(scene, tmp_path, monkeypatch):
        # Around a step every next command is tried; in between they take turns.
        if not moment.decisive and moment.number % len(FOLLOWING) != turn:
            continue
        where = f"{scene} killed {moment.labels[0]} (moment {moment.number}), then {following}"
        world = stand(scene, tmp_path / "case", monkeypatch)
        assert matrix._killed(world, VERBS[SCENES[scene][0]], moment.number), where
        house = make_house(world)
        assert_some_key_opens(house, scene, where)
        try:
            VERBS[following](matrix._next(world))
        except MailboxError as error:
            assert error.code in EXPECTED[scene], f"{where}: {error.code}: {error.brief}"
        assert_settled(world, where)
        if following == "shred":
            assert house.records.find(NAME) is None, where
        else:
            assert_some_key_opens(house, scene, where)
            go_on(world, scene, where)


@pytest.mark.parametrize("scene", SCENES)
def test_every_step_is_among_the_moments(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [label for each in moments(scene, tmp_path, monkeypatch) for label in each.labels]
    steps = [label for label in labels if label.startswith("after journal") and " step " in label]
    assert len(steps) >= (1 if "header" in scene else 3)


def go_on(world: World, scene: str, where: str) -> None:
    """The user does what the messages say, and has the mail."""
    house = make_house(world)
    if scene == "a lost keyring":
        if make_house(world).machines.states():
            close(make_house(world), NAME)
        recover_here(make_house(world))
    elif scene == "a damaged header":
        repair(make_house(world), NAME)
    elif house.records.find(NAME) is None:
        adopt(make_house(world))
    open_mailbox(make_house(world), NAME, headless=True)
    assert mails(house.paths.volume(NAME)) >= 2, where
    close(make_house(world), NAME)
    matrix._assert_tidy(world, where)
    slots = house.keyslots.active(house.paths.volume(NAME))
    assert len(slots) == 2 and slots[0] == 0, where
    last = code_that_opens(house, house.paths.volume(NAME))
    assert opens(house.paths.volume(NAME), last.encode()), where


def assert_some_key_opens(house: House, scene: str, where: str) -> None:
    volume = house.paths.volume(NAME)
    if scene == "another computer":
        volume = root(house) / "stick.luks"
    if scene == "a damaged header" and house.paths.header_backup(NAME).exists():
        volume = house.paths.header_backup(NAME)
    keys = [key for item, key in vault(house).items() if item.endswith(VOLUME_KEY)]
    assert any(opens(volume, each.encode()) for each in (*codes(house), *keys)), where


def vault(house: House) -> dict[str, str]:
    found: dict[str, str] = World(root(house)).state["vault"]
    return found


def assert_settled(world: World, where: str) -> None:
    history = make_house(world).journal(NAME).read()
    assert history.pending() is None and history.broken_at is None, where
    left = [path for path in world.root.rglob(".*") if path.name.endswith((".tmp", ".new", ".old"))]
    assert left == [], where


def stand(scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = folder.with_name(f"{folder.name} before")
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder)
    matrix._observe(world, monkeypatch)
    if made.exists():
        shutil.copytree(made, folder)
    else:
        folder.mkdir()
        for verb in SCENES[scene][1]:
            VERBS[verb](make_house(world))
        shutil.copytree(folder, made)
    world.labels.clear()
    return world


def moments(scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[matrix.Moment]:
    if scene not in _REHEARSED:
        world = stand(scene, folder / "rehearsal", monkeypatch)
        _REHEARSED[scene] = matrix._rehearse(world, VERBS[SCENES[scene][0]])
    return _REHEARSED[scene]
