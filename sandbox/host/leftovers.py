"""What a machine leaves outside of mailbox's own folders: libvirt's files, the viewer's, pictures.

Places: libvirt's src/qemu/qemu_conf.c (virQEMUDriverConfigNew); virt-viewer(1) for its settings;
the desktop-bookmark specification for recently-used.xbel.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sandbox.model.errors import MailboxError
from sandbox.model.remains import Found, Needle, Searched, Sought, blot
from sandbox.state import files, paths

_SESSION = "/session"
_CHUNK = 1 << 20
# Larger files are disks and the like; how many were left out is reported.
_LARGEST = 64 << 20
_MOST_FOUND = 50
# Ciphertext of other mailboxes, and images that hold no customer's data.
_NOT_SEARCHED = (".luks", ".erofs")


@dataclass(frozen=True)
class Folders:
    """The user's base folders (XDG base directory specification)."""

    config: Path
    data: Path
    cache: Path
    runtime: Path


def base_folders() -> Folders:
    """The base folders of this environment."""
    return Folders(
        platformdirs.user_config_path(),
        platformdirs.user_data_path(),
        platformdirs.user_cache_path(),
        paths.runtime_base(),
    )


class Leftovers:
    """Removes and searches for what is left; `uri` is libvirt's."""

    def __init__(self, uri: str, folders: Folders) -> None:
        self._session = uri.endswith(_SESSION)
        self._folders = folders

    def clear(self, domain: str, identity: str, pictures: Mapping[Path, str]) -> dict[str, int]:
        """Remove what libvirt and the viewer noted, and pictures that are still as they were made.

        `pictures`: SHA-256 by path. Returns how many of each were removed, and what stays.
        """
        removed = sum(_remove(path) for path in self._libvirt_files(domain))
        gone = sum(_remove(path) for path, mark in pictures.items() if _digest(path) == mark)
        left = sum(path.exists() for path in pictures)
        noted = self._forget_settings(identity) + self._forget_recent(domain, pictures)
        return {
            "libvirt_files": removed,
            "pictures": gone,
            "pictures_changed": left,
            "viewer_entries": noted,
        }

    def places(self) -> tuple[Path, ...]:
        """Where libvirt and the viewer could have noted something."""
        viewer = (self._folders.config / "virt-viewer", self._recent)
        return (*self._libvirt_folders(), self._folders.cache / "mailbox", *viewer)

    def search(self, sought: Sought) -> Searched:
        """Every file below the folders whose name or content has an identifier."""
        looked = _Search(sought)
        for folder in dict.fromkeys(sought.folders):
            looked.below(folder)
        return looked.result()

    @property
    def _recent(self) -> Path:
        return self._folders.data / "recently-used.xbel"

    def _libvirt_folders(self) -> tuple[Path, ...]:
        if self._session:
            mine = (self._folders.config, self._folders.cache, self._folders.runtime)
            return tuple(folder / "libvirt" for folder in mine)
        bases = ("/etc", "/var/lib", "/var/cache", "/var/log", "/run")
        return tuple(Path(base, "libvirt") for base in bases)

    def _libvirt_files(self, domain: str) -> Iterator[Path]:
        """The files that are named after the machine; running it has others, that end with it."""
        named = re.compile(rf"{re.escape(domain)}(\.log(\.\d+)?|\.xml|\.save|\.pid|_VARS\.fd|\.fd)")
        for folder in self._libvirt_folders():
            for path in _walk(folder):
                if named.fullmatch(path.name):
                    yield path

    def _forget_settings(self, identity: str) -> int:
        """virt-viewer keeps a section for each machine's uuid in its settings (GKeyFile)."""
        path = self._folders.config / "virt-viewer" / "settings"
        text = _text(path)
        kept = re.sub(
            rf"^\[{re.escape(identity)}\]\n(?:(?!\[).*\n?)*", "", text, flags=re.MULTILINE
        )
        return _rewrite(path, text, kept)

    def _forget_recent(self, domain: str, pictures: Iterable[Path]) -> int:
        """Bookmarks whose address names the machine or a picture."""
        marks = (domain, *(path.as_uri() for path in pictures if path.is_absolute()))
        text = _text(self._recent)

        def keep(match: re.Match[str]) -> str:
            return "" if any(mark in match[1] for mark in marks) else match[0]

        pattern = r'[ \t]*<bookmark\s[^>]*?href="([^"]*)"[^>]*?(?:/>|>.*?</bookmark>)\n?'
        return _rewrite(self._recent, text, re.sub(pattern, keep, text, flags=re.DOTALL))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _rewrite(path: Path, old: str, new: str) -> int:
    if new == old:
        return 0
    files.replace(path, new.encode(errors="surrogateescape"))
    return 1


def _remove(path: Path) -> bool:
    if not (path.is_file() or path.is_symlink()):
        return False
    files.remove(path)
    return True


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, or the file itself; links are not followed."""
    if folder.is_file():
        yield folder
    for base, names, found in os.walk(folder):
        names.sort()
        # `images` may be large, and holds no customer's data.
        names[:] = [name for name in names if not (base == str(folder) and name == "images")]
        for name in sorted(found):
            yield Path(base, name)


def _pattern(needle: Needle) -> re.Pattern[bytes]:
    """The text in lower case; `mailbox-a` is not found in `mailbox-a2`."""
    return re.compile(re.escape(needle.text.casefold().encode()) + rb"(?![a-z0-9_+-])")


class _Search:
    """One search over several folders; a file that lies below two is looked at once."""

    def __init__(self, sought: Sought) -> None:
        self._sought = sought
        self._needles = [(_pattern(needle), needle.kind) for needle in sought.needles]
        self._blot = {
            needle.text.casefold(): needle.kind
            for needle in sought.needles
            if needle.kind not in sought.allowed
        }
        self._seen: set[Path] = set()
        self._skipped = set(sought.skipped)
        self._found: list[Found] = []
        self._unread = 0
        self._longest = max((len(needle.text.encode()) for needle in sought.needles), default=1) + 1

    def below(self, folder: Path) -> None:
        for path in _walk(folder):
            if path.name.endswith(_NOT_SEARCHED) or path in self._skipped:
                continue
            if path not in self._seen:
                self._seen.add(path)
                self._look(path)

    def result(self) -> Searched:
        return Searched(
            tuple(dict.fromkeys(map(str, self._sought.folders))),
            len(self._seen),
            self._unread,
            tuple(self._found[:_MOST_FOUND]),
        )

    def _look(self, path: Path) -> None:
        kinds = self._in(os.fsencode(path.name).lower())
        if path.is_file() and not path.is_symlink():
            kinds |= self._content(path)
        if path in self._sought.kept:
            kinds -= set(self._sought.allowed)
        shown = blot(str(path), self._blot)
        self._found += [Found(shown, kind) for kind in sorted(kinds)]

    def _in(self, content: bytes) -> set[str]:
        return {kind for pattern, kind in self._needles if pattern.search(content)}

    def _content(self, path: Path) -> set[str]:
        kinds: set[str] = set()
        try:
            if path.stat().st_size > _LARGEST:
                self._unread += 1
                return kinds
            with path.open("rb") as source:
                tail = b""
                while chunk := source.read(_CHUNK):
                    kinds |= self._in((tail + chunk).lower())
                    tail = chunk[-self._longest :]
        except (OSError, MailboxError):
            self._unread += 1
        return kinds
