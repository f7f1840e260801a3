"""Evolution's keys in a real GnuPG: many at once, and only what is new."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from demo.correspondent import Person
from demo.desired import own_key
from tests.host.conftest import need

MODULE = Path(__file__).parents[2] / "images/evolution/root/usr/lib/mailbox/evolution_keys.py"
Json = dict[str, Any]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evolution_keys_under_test", MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Guest:
    """A guest's home, and how often GnuPG was told to do something there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        self.module = load()
        self.keys = self.module.Keys(home, self.env)
        self.commands: list[str] = []
        run = self.keys._gpg

        def counted(*arguments: str, **options: Any) -> Any:
            self.commands.append(" ".join(arguments))
            return run(*arguments, **options)

        self.keys._gpg = counted

    def apply(self, key: Json, *correspondents: Json) -> list[Any]:
        self.commands.clear()
        found: list[Any] = self.keys.apply({"key": key, "correspondents": list(correspondents)})
        return found

    def count(self, word: str) -> int:
        return sum(word in command for command in self.commands)

    def valid(self) -> set[str]:
        """The user ids that Evolution would encrypt to."""
        done = subprocess.run(
            ["gpg", "--with-colons", "--list-keys"],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        rows = (line.split(":") for line in done.stdout.splitlines())
        return {row[9] for row in rows if row[0] == "uid" and row[1] == "f"}


@pytest.fixture
def guest() -> Iterator[Guest]:
    need("gpg", "gpgconf", "gpg-agent")
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    made = Guest(home)
    yield made
    subprocess.run(["gpgconf", "--kill", "all"], env=made.env, check=False)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def people() -> Iterator[list[Person]]:
    names = ("anna@kunde.test", "bert@p.test", "carla@p.test", "dora@p.test")
    made = [Person(address.partition("@")[0], address) for address in names]
    yield made
    for person in made:
        person.__exit__(None, None, None)


def wish(person: Person, *addresses: str) -> Json:
    return {
        "fingerprint": person.fingerprint,
        "addresses": list(addresses or (person.address,)),
        "public": person.public_key(),
    }


def test_only_what_is_new_is_imported_and_certified(guest: Guest, people: list[Person]) -> None:
    anna, bert, carla, dora = people
    assert guest.apply(own_key(anna), wish(bert), wish(carla)) == []
    assert guest.valid() == {"bert <bert@p.test>", "carla <carla@p.test>"}
    assert guest.count("--quick-lsign-key") == 2 and guest.count("--check-trustdb") == 1
    guest.apply(own_key(anna), wish(bert), wish(carla))
    assert guest.count("--quick-lsign-key") == guest.count("--delete-keys") == 0
    guest.apply(own_key(anna), wish(bert), wish(carla), wish(dora))
    assert guest.count("--quick-lsign-key") == 1 and len(guest.valid()) == 3


def test_keys_off_the_list_go_in_one_command(guest: Guest, people: list[Person]) -> None:
    anna, bert, carla, dora = people
    guest.apply(own_key(anna), wish(bert), wish(carla), wish(dora))
    guest.apply(own_key(anna), wish(dora))
    assert guest.count("--delete-keys") == 1 and guest.valid() == {"dora <dora@p.test>"}


def test_a_key_that_ends_while_it_is_open_reads_on_and_signs_nothing(guest: Guest) -> None:
    with Person("Anna", "anna@kunde.test") as anna:
        sealed = anna.gpg.encrypt(b"noch in der Zeit", [anna.fingerprint], always_trust=True).data
        ends = time.time() + 15
        anna.gpg_command("--quick-set-expire", anna.fingerprint, "seconds=15")
        anna.gpg_command("--quick-set-expire", anna.fingerprint, "seconds=15", "*")
        assert guest.apply(own_key(anna)) == []
        tried = {"own": anna.fingerprint, "correspondents": []}
        assert dict(guest.keys.check(tried)) == {anna.fingerprint: ""}
        time.sleep(max(0, ends + 2 - time.time()))
        ((_, problem),) = guest.keys.check(tried)
        assert "a mail could not be signed and encrypted" in problem
        command = ["gpg", "--batch", "--decrypt"]
        read = subprocess.run(
            command, input=sealed, env=guest.env, check=False, capture_output=True
        )
        assert read.stdout == b"noch in der Zeit"


def test_a_key_that_was_destroyed_on_the_host_leaves_nothing(guest: Guest) -> None:
    with Person("Anna", "anna@kunde.test") as old, Person("Anna", "anna@kunde.test") as new:
        had = [own_key(old)]
        guest.keys.apply({"key": own_key(new), "retired": had, "correspondents": []})
        files = set(guest.home.glob(".gnupg/private-keys-v1.d/*.key"))
        gone = {"key": own_key(new), "retired": [], "correspondents": []}
        gone["forgotten"] = [old.fingerprint.lower()]
        for _ in range(2):  # it may be said again and again
            assert guest.keys.apply(gone) == []
        left = set(guest.home.glob(".gnupg/private-keys-v1.d/*.key"))
        assert left < files and len(left) == len(files) / 2
        assert old.fingerprint not in guest.keys._known()


def test_another_address_is_vouched_for_and_the_old_one_no_more(
    guest: Guest, people: list[Person]
) -> None:
    anna, bert = people[:2]
    with Person("Eva", "eva@p.test") as eva:
        command = ["gpg", "--homedir", str(eva.home), "--batch", "--pinentry-mode", "loopback"]
        adding = ["--passphrase", "", "--quick-add-uid", eva.fingerprint, "Eva <eva@work.test>"]
        subprocess.run([*command, *adding], check=True, capture_output=True)
        guest.apply(own_key(anna), wish(bert), wish(eva, "eva@p.test"))
        assert guest.valid() == {"bert <bert@p.test>", "Eva <eva@p.test>"}
        guest.apply(own_key(anna), wish(bert), wish(eva, "eva@work.test"))
        assert guest.valid() == {"bert <bert@p.test>", "Eva <eva@work.test>"}
        assert guest.count("--quick-lsign-key") == 1
