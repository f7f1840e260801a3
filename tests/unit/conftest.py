"""What unit tests share: a world without daemons, and no waiting for disks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sandbox.lifecycle import warm
from sandbox.lifecycle.house import House
from tests.unit.fakes import World, make_house

# How fast an example runs says nothing here.
settings.register_profile("unit", deadline=None, max_examples=50)
settings.load_profile("unit")


_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of small files cost no disk its time.

    It is gone after the test; `--basetemp` keeps it.
    """
    kept = request.config.getoption("basetemp")
    where = kept or (_MEMORY if os.access(_MEMORY, os.W_OK) else None)
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="unit-", dir=where))
    yield folder
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guest here needs a moment."""
    monkeypatch.setattr(warm, "_SETTLE_S", 0.0)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fresh world. Nothing here survives a power cut, so nothing waits for the disk."""
    made = World(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: made.point("fsync"))
    return made


@pytest.fixture
def house(world: World) -> House:
    return make_house(world)
