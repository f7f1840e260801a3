"""A desktop session of its own for tests of the real keyring, GnuPG and libvirt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from demo.session import Session


def need(*programs: str) -> None:
    """Skip, saying what is missing."""
    for program in programs:
        if not shutil.which(program) and not shutil.which(program, path="/usr/sbin:/sbin"):
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """D-Bus, keyring, GnuPG home and XDG folders that nobody else uses."""
    need("dbus-daemon", "dbus-send", "gnome-keyring-daemon", "gpgconf")
    with Session(tmp_path_factory.mktemp("session")) as made:
        yield made


@pytest.fixture(scope="module")
def in_session(session: Session) -> Iterator[Session]:
    """This process as a part of the session: what it asks for, it asks there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in session.env.items():
            patch.setenv(name, value)
        yield session
