"""Every verb killed at every moment; whatever command comes next brings the mailbox to order."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from sandbox.lifecycle import correspondents, forget_key, given, keys, own_keys, password, smime
from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.keycheck import check_keys
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.retain import retain
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.shred import shred
from sandbox.lifecycle.suspend import suspend
from sandbox.lifecycle.warming import catch_up
from sandbox.model.custody import Custody, Where
from sandbox.model.errors import MailboxError
from sandbox.model.keydetails import NewKey
from sandbox.model.machine import domain_name
from sandbox.model.secrets import ITEMS, MAIL_PASSWORD, SMIME_PASSPHRASE, STATE_KEY, VOLUME_KEY
from sandbox.state import files
from tests.unit.fakes import (
    BERT,
    EXIT_KILLED,
    NAME,
    OWN,
    PASSWORD,
    SETTINGS,
    World,
    mails,
    make_house,
    make_wish,
    offer,
    opens,
)

Verb = Callable[[House], object]


def _warm(house: House) -> None:
    catch_up(house, house.images.newest(SETTINGS.client))


HOST = replace(SETTINGS, custody=Custody(Where.HOST))
NEW_WORD = "the-next-s3cret"
NEW_KEY = offer("C" * 40, "c@p.test")


CERTIFICATE = smime.NewCertificate(f"p12 {'1' * 64} anna@kunde.test".encode(), lambda _: "")
OLD_CERTIFICATE = smime.NewCertificate(f"p12 {'2' * 64} anna@kunde.test".encode(), lambda _: "")


def _age(house: House) -> None:
    """Another change of the volume: no suspended machine fits it any more."""
    os.utime(house.paths.volume(NAME), (1, 1))


def _update(house: House) -> None:
    """Another image of the same mail client."""
    house.paths.data.parent.joinpath("image-id").write_text("fedcba9876543210")


VERBS: dict[str, Verb] = {
    "onboard": lambda house: onboard(house, make_wish()),
    "open": lambda house: open_mailbox(house, NAME, headless=True),
    "close": lambda house: close(house, NAME),
    "shred": lambda house: shred(house, NAME),
    "suspend": lambda house: suspend(house, NAME),
    "repair": lambda house: repair(house, None),
    "password": lambda house: password.change(house, NAME, {MAIL_PASSWORD: NEW_WORD}, check=False),
    "keys add": lambda house: correspondents.add(house, NAME, [NEW_KEY]),
    "keys remove": lambda house: keys.remove(house, NAME, BERT),
    "keys smime": lambda house: smime.take(house, NAME, CERTIFICATE),
    "no keys smime": lambda house: smime.remove(house, NAME),
    "old keys smime": lambda house: smime.take(house, NAME, OLD_CERTIFICATE),
    "keys check": lambda house: check_keys(house, NAME),
    "keys generate": lambda house: own_keys.generate(house, NAME, NewKey()),
    "keys rotate": lambda house: own_keys.rotate(house, NAME, own_keys.Rotation()),
    "keys extend": lambda house: own_keys.extend(house, NAME, own_keys.Extension()),
    "keys revoke": lambda house: own_keys.revoke(house, NAME, own_keys.Revocation()),
    "keys forget": lambda house: forget_key.forget(house, NAME, OWN),
    # Not killed here, but what stands before a verb that is.
    "onboard without key": lambda house: onboard(house, make_wish(key=KeyChoice())),
    "onboard host": lambda house: onboard(house, make_wish(settings=HOST)),
    "age": _age,
    "update": _update,
    "warm": lambda house: _warm(house),
    "retain": lambda house: retain(house, NAME, date(2999, 1, 1), "tax law"),
}
# What follows a killed verb; what follows the other verbs is told by these.
FOLLOWING = ("close", "onboard", "open", "repair", "shred", "suspend")
# What stands before the verb that is killed.
BEFORE: dict[str, tuple[str, ...]] = {
    "onboard": (),
    "open": ("onboard", "open", "close"),
    "first open": ("onboard",),
    "warm open": ("warm", "onboard"),
    "close": ("onboard", "open"),
    "suspend": ("onboard", "open"),
    "open of a suspended one": ("onboard", "open", "suspend"),
    "shred": ("onboard", "open"),
    "shred of a suspended one": ("onboard", "open", "suspend"),
    "shred of a closed one": ("onboard",),
    "retain": ("onboard", "open"),
    "open with the key on the host": ("onboard host",),
    "close with the key on the host": ("onboard host", "open"),
    "open of one whose memory fits no more": ("onboard", "open", "suspend", "age"),
    "password": ("onboard",),
    "password of an open one": ("onboard", "open"),
    "password of a suspended one": ("onboard", "open", "suspend"),
    "keys add": ("onboard",),
    "keys add of an open one": ("onboard", "open"),
    "keys remove of an open one": ("onboard", "open"),
    "keys smime": ("onboard",),
    "keys smime of one that has one": ("onboard", "old keys smime"),
    "no keys smime": ("onboard", "old keys smime"),
    "shred of one with a certificate": ("onboard", "old keys smime"),
    "keys check": ("onboard", "open"),
    "open with another image": ("onboard", "open", "close", "update"),
    "keys generate": ("onboard without key",),
    "keys rotate": ("onboard",),
    "keys rotate of an open one": ("onboard host", "open"),
    "keys extend": ("onboard",),
    "keys revoke": ("onboard", "keys rotate"),
    "keys forget of an open one": ("onboard", "keys rotate", "open"),
}
ABOUT_KEYS = tuple(verb for verb in VERBS if verb.startswith("keys"))
# The longer name first: each is looked for in the name of a scene.
KILLED = (
    "onboard",
    "open",
    "close",
    "suspend",
    "shred",
    "retain",
    "password",
    "no keys smime",
    *ABOUT_KEYS,
)


@dataclass(frozen=True)
class Moment:
    """A moment (counted from 1) and those after it that find the same on the disk."""

    number: int
    labels: list[str]

    @property
    def decisive(self) -> bool:
        """Whether it is right before or right after the effect of a step."""
        return any(
            (label.startswith("after journal") and " step " in label)
            or (label.startswith("before journal") and " done " in label)
            for label in self.labels
        )


_REHEARSED: dict[str, list[Moment]] = {}
# Errors that the next command may rightly end with.
EXPECTED = {
    "onboard": {"profile-exists", "name-shredded"},
    "open": {"profile-unknown", "profile-shredded"},
    "close": {"profile-unknown", "profile-shredded"},
    "suspend": {"profile-unknown", "profile-shredded", "not-open"},
    "shred": {"profile-unknown", "profile-shredded"},
    "repair": set[str](),
}


@pytest.mark.parametrize("following", FOLLOWING)
@pytest.mark.parametrize("scene", sorted(BEFORE))
def test_killed_anywhere_it_converges(
    scene: str, following: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = FOLLOWING.index(following)
    for moment in _moments(scene, tmp_path, monkeypatch):
        # Around a step every next command is tried; in between they take turns.
        if moment.decisive or moment.number % len(FOLLOWING) == turn:
            _kill_and_go_on(scene, following, moment, tmp_path, monkeypatch)


@pytest.mark.parametrize("scene", sorted(BEFORE))
def test_every_step_is_among_the_moments(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [label for each in _moments(scene, tmp_path, monkeypatch) for label in each.labels]
    verb = _verb(scene).removeprefix("no ")
    steps = [label for label in labels if label.startswith(f"after journal {verb} step")]
    results = [label for label in labels if label.startswith(f"before journal {verb} done")]
    assert (
        len(steps)
        == len(results)
        >= (1 if verb in ("password", "keys remove", "keys check") else 2)
    )


def test_a_repair_killed_anywhere_converges_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = "before journal open done provision"
    moments = _moments("first open", tmp_path, monkeypatch)
    number = next(each.number for each in moments if label in each.labels)
    world = _scene("first open", tmp_path / "twice", monkeypatch)
    assert _killed(world, VERBS["open"], number)
    left = tmp_path / "left"
    shutil.copytree(world.root, left)
    for moment in _rehearse(world, VERBS["repair"]):
        shutil.rmtree(world.root)
        shutil.copytree(left, world.root)
        assert _killed(world, VERBS["repair"], moment.number)
        repair(_next(world), None)
        _assert_tidy(world, f"repair killed {moment.labels[0]}")
        assert not world.state["machines"]


def _kill_and_go_on(
    scene: str,
    following: str,
    moment: Moment,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = f"{scene} killed {moment.labels[0]} (moment {moment.number}), then {following}"
    world = _scene(scene, folder / "case", monkeypatch)
    volume = make_house(world).paths.volume(NAME)
    had = mails(volume) if volume.exists() else 0
    ran = list(world.state["machines"])
    assert _killed(world, VERBS[_verb(scene)], moment.number), where
    try:
        VERBS[following](_next(world))
    except MailboxError as error:
        expected = EXPECTED[following] | ({"retained"} if scene == "retain" else set())
        assert error.code in expected, f"{where}: {error.code}: {error.brief}"
    _assert_tidy(world, where)
    house = make_house(world)
    exists = house.records.find(NAME) is not None
    if scene == "retain" and house.paths.retention(NAME).exists():
        assert observe(house, NAME).state == "retained" and mails(volume) >= had, where
        return
    if following == "repair" and scene.startswith(("keys", "password")):
        assert list(world.state["machines"]) == ran, where
    if following == "shred":
        assert not exists, where
    if _verb(scene) != "shred" and following != "shred" and scene != "onboard":
        assert exists and mails(volume) >= had, where
    if following == "onboard" and scene == "onboard":
        assert exists, where
    if following in ("close", "shred", "suspend"):
        assert not world.state["machines"], where
    if following == "open" and exists:
        assert open_mailbox(make_house(world), NAME, headless=True).facts["already"], where
        assert not given.has_old_secret(house, NAME), where


def _verb(scene: str) -> str:
    return next(verb for verb in KILLED if verb in scene.split(" of")[0])


def _scene(scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world as it stands before the verb; made once, then copied to the same place."""
    made = folder.with_name(f"{folder.name} before")
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder)
    _observe(world, monkeypatch)
    if made.exists():
        shutil.copytree(made, folder)
    else:
        folder.mkdir()
        files.replace(folder / "home/cache/libvirt/qemu/log" / f"{domain_name(NAME)}.log", b"x")
        for verb in BEFORE[scene]:
            VERBS[verb](make_house(world))
        shutil.copytree(folder, made)
    world.labels.clear()
    return world


def _observe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every durable moment and every journal entry is one where the process may end."""
    from sandbox.state.journal import Journal

    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda _descriptor: world.point("fsync"))
    append = Journal.append

    def watched(self: Journal, verb: str, event: str, run: str, step: str = "", facts=None) -> None:  # type: ignore[no-untyped-def]
        world.point(f"before journal {verb} {event} {step}".rstrip())
        append(self, verb, event, run, step, facts)
        world.point(f"after journal {verb} {event} {step}".rstrip())

    monkeypatch.setattr(Journal, "append", watched)


def _moments(scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Moment]:
    """The moments that differ in what is on the disk, from a rehearsal that is not killed."""
    if scene not in _REHEARSED:
        world = _scene(scene, folder / "rehearsal", monkeypatch)
        _REHEARSED[scene] = _rehearse(world, VERBS[_verb(scene)])
    return _REHEARSED[scene]


def _rehearse(world: World, verb: Verb) -> list[Moment]:
    seen: list[tuple[str, bytes]] = []
    world.watch = lambda label: seen.append((label, _snapshot(world.root)))
    verb(make_house(world))
    world.watch = lambda _label: None
    found: list[Moment] = []
    for number, (label, _) in enumerate(seen, start=1):
        if number > 1 and seen[number - 1][1] == seen[number - 2][1]:
            found[-1].labels.append(label)
        else:
            found.append(Moment(number, [label]))
    return found


def _snapshot(root: Path) -> bytes:
    seen = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        seen.update(bytes(path) + (path.read_bytes() if path.is_file() else b""))
    return seen.digest()


def _killed(world: World, verb: Verb, number: int) -> bool:
    """Run the verb in a process that ends at a moment without another word, as by SIGKILL."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # the child then shares more of our memory
    child = os.fork()
    if child == 0:
        try:
            gc.disable()
            world.labels.clear()
            world.kill_at = number
            verb(make_house(world))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, EXIT_KILLED)
    return status == EXIT_KILLED


def _next(world: World) -> House:
    """The next command: it knows nothing but what is on the disk."""
    world.labels.clear()
    world.kill_at = None
    return make_house(world)


def _assert_tidy(world: World, where: str) -> None:
    """Nothing is left over, and what exists is whole."""
    house, state = make_house(world), world.state
    running = domain_name(NAME) in state["machines"]
    assert running or state["served"] == state["custodians"] == {}, where
    history = house.journal(NAME).read()
    assert history.pending() is None and history.broken_at is None, where
    left = [path for path in world.root.rglob(".*") if path.name.endswith((".tmp", ".new"))]
    assert left == [], where
    running = domain_name(NAME) in state["machines"]
    assert bool(state["wardens"]) == running, where
    assert house.paths.machine(NAME).exists() == running, where
    if house.records.find(NAME):
        _assert_whole(house, state, where)
    else:
        assert not running and state["vault"] == {}, where
        assert [p.name for p in house.paths.data.rglob("*") if not p.is_dir()] == [], where
        assert not house.paths.gnupg(NAME).exists(), where
        stones = house.records.tombstones.all(NAME)
        ended = history.last("shred", outcome="done")
        assert len(stones) == (1 if ended else 0), where
        noted = list((world.root / "home").rglob(f"{domain_name(NAME)}*"))
        assert not (ended and noted), where


def _assert_whole(house: House, state: dict[str, dict[str, str]], where: str) -> None:
    profile = house.records.load(NAME)
    kept = house.paths.saved_note(NAME).exists()
    assert house.paths.saved(NAME).exists() == kept, where
    assert not (kept and state["machines"]), where
    kinds = (*ITEMS, *((STATE_KEY,) if kept else ()))
    if profile.smime:
        kinds = (*kinds, SMIME_PASSPHRASE)
        file = house.paths.certificate_file(NAME, profile.smime.fingerprint)
        assert list(house.paths.smime(NAME).iterdir()) == [file], where
        locked = state["vault"][f"{profile.id}/{SMIME_PASSPHRASE}"]
        assert house.certificates.read(file.read_bytes(), locked), where
    else:
        assert not house.paths.smime(NAME).exists(), where
    assert set(state["vault"]) == {f"{profile.id}/{kind}" for kind in kinds}, where
    word = state["vault"][f"{profile.id}/{MAIL_PASSWORD}"]
    assert word in (PASSWORD, NEW_WORD), where
    told = {machine.get("password") for machine in state["machines"].values()}
    assert told <= {word} or given.has_old_secret(house, NAME), where
    assert opens(house.paths.volume(NAME), state["vault"][f"{profile.id}/{VOLUME_KEY}"].encode())
    has_mail = mails(house.paths.volume(NAME)) > 0
    assert has_mail or house.paths.blank(NAME).exists(), where
    assert house.paths.gnupg(NAME).exists(), where
    _assert_keys(house, where)


def _assert_keys(house: House, where: str) -> None:
    """Ring and profile say the same, and every secret key is one that the profile names."""
    keys, ring = house.records.load(NAME).keys, house.paths.gnupg(NAME)
    secret = {path.stem for path in ring.glob("*.secret")}
    assert secret == set(keys.private), where
    assert not keys.fingerprint or not (ring / f"{keys.fingerprint}.revoked").exists(), where
    ends = ring / f"{keys.fingerprint}.ends"
    assert keys.expires == ("2040-01-01" if ends.exists() else ""), where
    passphrases = {path.read_text() for path in ring.glob("*.secret")}
    assert len(passphrases) <= 1, where
