"""Profiles, templates and tombstones as files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import tomli_w

from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.names import name_problem, same_name
from sandbox.model.profile import Profile, Settings, read_profile, read_template, write_profile
from sandbox.state import files
from sandbox.state.paths import Paths
from sandbox.state.retentions import Retentions
from sandbox.state.tombstones import Tombstone, Tombstones


class Records:
    """The profile records of one user."""

    def __init__(self, paths: Paths, shipped_templates: Path) -> None:
        self._paths = paths
        self._shipped = shipped_templates
        self.tombstones = Tombstones(paths)
        self.retentions = Retentions(paths)

    def names(self) -> list[str]:
        """The names of all profiles, broken ones too."""
        found = self._paths.profiles.glob("*.toml")
        return sorted((p.stem for p in found if not p.name.startswith(".")), key=str.casefold)

    def find(self, name: str) -> str | None:
        """The name as it is written of a profile, told apart case-insensitively."""
        if name_problem(name):
            return None
        if self._paths.profile(name).exists():
            return name
        return next((known for known in self.names() if same_name(known, name)), None)

    def load(self, name: str, *, shredded: bool = False) -> Profile:
        """The profile; with `shredded`, also one whose files were copied back after its shredding.

        Raises:
            MailboxError: `profile-unknown`, `profile-shredded`.
            InvalidInputError: when its file was edited into nonsense.
        """
        known = self.find(name)
        if known is None:
            raise self._unknown(name)
        path = self._paths.profile(known)
        with files.readable_errors(path):
            content = path.read_bytes()
        profile = self.parse(content, f"The profile {known}")
        if profile.name != known:
            raise InvalidInputError(f"The profile {known}", [f"name: is {profile.name!r}"])
        stone = None if shredded else self.tombstones.of(str(profile.id))
        if stone:
            raise _came_back(known, stone)
        return profile

    def parse(self, content: bytes, what: str) -> Profile:
        """A profile from the text of its file; raises InvalidInputError with every problem."""
        document = parse_toml(content, what)
        template = document.get("template", "default")
        return read_profile(document, self.template(template if isinstance(template, str) else ""))

    def save(self, profile: Profile) -> None:
        """Write the profile, durably."""
        document = tomli_w.dumps(write_profile(profile), multiline_strings=True)
        self.save_text(profile.name, document.encode())

    def save_text(self, name: str, content: bytes) -> None:
        """Write the text of a profile's file that `parse` has accepted."""
        files.remove_unfinished(self._paths.profile(name))
        files.replace(self._paths.profile(name), content)

    def remove(self, name: str) -> None:
        """Remove the profile's file, and what an editor was left with."""
        for path in self.files_of(name):
            files.remove(path)
        files.remove(self._paths.profile(name))

    def files_of(self, name: str) -> list[Path]:
        """The profile's file, and what an editor was left with."""
        draft = re.compile(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}\.edit")
        drafts = self._paths.profiles.glob(".*.edit")
        return [self._paths.profile(name), *(p for p in drafts if draft.fullmatch(p.name))]

    def templates(self) -> list[str]:
        """The names of the templates: those that ship and the user's own."""
        folders = (self._shipped, self._paths.templates)
        return sorted({path.stem for folder in folders for path in folder.glob("*.toml")})

    def template(self, name: str) -> Settings:
        """A template; the user's own of the same name goes before one that ships.

        Raises:
            MailboxError: `template-unknown`.
        """
        for folder in (self._paths.templates, self._shipped):
            path = folder / f"{name}.toml"
            if not name_problem(name) and path.is_file():
                with files.readable_errors(path):
                    content = path.read_bytes()
                return _template(content, name)
        raise MailboxError(
            f"There is no template {name!r}.",
            resolution=f"Known templates: {', '.join(self.templates())}.",
            code="template-unknown",
            exit_code=Exit.NOT_FOUND,
        )

    def bury(
        self, name: str, profile_id: str, because: str = "", case: Mapping[str, Any] | None = None
    ) -> None:
        """Leave the tombstone of a profile; one that stands already stays as it is."""
        self.tombstones.bury(name, profile_id, because, case or {})

    def tombstone(self, name: str) -> Tombstone | None:
        """The newest tombstone of a name, if a profile of that name was shredded."""
        return next(reversed(self.tombstones.all(name)), None)

    def _unknown(self, name: str) -> MailboxError:
        stone = None if name_problem(name) else self.tombstone(name)
        if stone:
            return MailboxError(
                f"The mailbox {stone.name} was shredded on {stone.when_and_why}; nothing is left.",
                resolution="A new one of that name needs `mailbox onboard --reuse-name`.",
                code="profile-shredded",
                exit_code=Exit.NOT_FOUND,
            )
        return MailboxError(
            f"There is no mailbox named {name!r}.",
            resolution="`mailbox list` shows those there are; `mailbox onboard` makes a new one.",
            code="profile-unknown",
            exit_code=Exit.NOT_FOUND,
        )


def _came_back(name: str, stone: Tombstone) -> MailboxError:
    return MailboxError(
        f"The mailbox {stone.name} was shredded on {stone.when_and_why}; it stays closed.",
        details="Files of it are here again, such as from a backup. Its keys are destroyed.",
        resolution=f"`mailbox shred {name}` removes the files; a new mailbox of that name needs "
        "`mailbox onboard --reuse-name`.",
        code="profile-shredded",
        exit_code=Exit.NOT_FOUND,
    )


@lru_cache(maxsize=16)
def _template(content: bytes, name: str) -> Settings:
    # Every profile is read over its template, and all of `list` have the same few.
    return read_template(parse_toml(content, f"The template {name}"), name)


def parse_toml(content: bytes, what: str) -> dict[str, Any]:
    """A TOML document; raises InvalidInputError with the line where it is none."""
    try:
        return tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(what, [str(error)]) from None
