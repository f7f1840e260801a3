"""A desktop session of its own for tests of the real keyring, GnuPG and libvirt."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from demo.session import Session


def absent(what: str) -> NoReturn:
    """Skip, saying what is missing; a CI has everything, and what is skipped there is not seen."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(*programs: str) -> None:
    """Skip, saying what is missing."""
    for program in programs:
        if not shutil.which(program) and not shutil.which(program, path="/usr/sbin:/sbin"):
            absent(f"{program} is not installed")


def need_libvirt() -> None:
    """Skip where a user's own libvirt cannot be; one that is installed has to answer."""
    need("qemu-system-x86_64", "qemu-img", "libvirtd")
    if os.geteuid() == 0:
        absent("root has no libvirt session: run as an ordinary user")


@pytest.fixture(scope="session")
def runtime() -> Iterator[Path]:
    """The one XDG_RUNTIME_DIR of this process.

    libvirt asks GLib for it, which remembers the first answer for as long as the process lives
    (g_get_user_runtime_dir): a session with another one would look for libvirt where none is.
    """
    made = Path(tempfile.mkdtemp(prefix="mbx-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def session(runtime: Path) -> Iterator[Session]:
    """D-Bus, keyring, GnuPG home and XDG folders that nobody else uses."""
    need("dbus-daemon", "dbus-send", "gnome-keyring-daemon", "gpgconf")
    # Where no logind is, GnuPG's sockets are in the key rings; pytest's folders are too deep.
    root = Path(tempfile.mkdtemp(prefix="mbx-"))
    with Session(root, runtime=runtime) as made:
        yield made
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def in_session(session: Session) -> Iterator[Session]:
    """This process as a part of the session: what it asks for, it asks there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in session.env.items():
            patch.setenv(name, value)
        yield session
