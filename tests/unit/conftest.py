"""What unit tests share: a world without daemons, and no waiting for disks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from sandbox.lifecycle.house import House
from tests.unit.fakes import World, make_house

# How fast an example runs says nothing here.
settings.register_profile("unit", deadline=None, max_examples=50)
settings.load_profile("unit")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fresh world. Nothing here survives a power cut, so nothing waits for the disk."""
    made = World(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: made.point("fsync"))
    return made


@pytest.fixture
def house(world: World) -> House:
    return make_house(world)
