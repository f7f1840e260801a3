"""Recipes of guest images: what is in `images/`, read strictly, and its digest.

A client's recipe extends the base: the entries of its lists are added, its `root/` is laid over
the base's, its hooks run among the base's in the order of their names.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.schema import Reader

# The build's own folder inside the guest's tree; it is not part of the image.
WORK = ".mailbox-build"
# All times in an image: the same recipe and packages make the same image.
EPOCH = 1_735_689_600

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_MODULE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LOCALE = re.compile(r"[a-z]{2,3}_[A-Z]{2}")
_FILES = re.compile(r"(?!.*\.\.)[A-Za-z0-9_*][A-Za-z0-9._*+-]*(/[A-Za-z0-9._*+-]+)+")
_SUITE = re.compile(r"[a-z]+")
_CLIENT = re.compile(r"[a-z][a-z0-9]{0,31}")
_LISTS = {
    "packages": _PACKAGE,
    "initrd_modules": _MODULE,
    "modules": _MODULE,
    "locales": _LOCALE,
    "checked": _FILES,
}


@dataclass(frozen=True)
class SourceFile:
    """One file of a recipe; `name` is its path below `images/<layer>/`."""

    name: str
    path: Path
    executable: bool


@dataclass(frozen=True)
class Layer:
    """One folder of `images/`, as it is written."""

    suite: str
    extends: str
    packages: tuple[str, ...]
    initrd_modules: tuple[str, ...]
    modules: tuple[str, ...]
    locales: tuple[str, ...]
    checked: tuple[str, ...]
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in an image; later layers come over earlier ones."""

    client: str
    suite: str
    layers: tuple[Layer, ...]
    digest: str

    @property
    def packages(self) -> list[str]:
        """The packages asked for, each once."""
        return _unique(self.layers, lambda layer: layer.packages)

    @property
    def lists(self) -> dict[str, list[str]]:
        """What the hooks read from the build's folder, by file name."""
        return {
            "initrd_modules": _unique(self.layers, lambda layer: layer.initrd_modules),
            "modules": _unique(self.layers, lambda layer: layer.modules),
            "locales": _unique(self.layers, lambda layer: layer.locales),
            "checked": _unique(self.layers, lambda layer: layer.checked),
        }


def clients(recipes: Path) -> list[str]:
    """The clients that a recipe exists for."""
    found = (path.parent.name for path in recipes.glob("*/recipe.toml"))
    return sorted(name for name in found if name != "base")


def load(client: str, recipes: Path) -> Recipe:
    """Read a client's recipe and what it extends.

    Raises:
        MailboxError: `image-unknown`, or `invalid-input` with everything wrong at once.
    """
    if not _CLIENT.fullmatch(client) or client not in clients(recipes):
        raise MailboxError(
            f"There is no recipe for an image of {client!r}.",
            resolution=f"Known are: {', '.join(clients(recipes)) or 'none'}.",
            code="image-unknown",
            exit_code=Exit.NOT_FOUND,
        )
    problems: list[str] = []
    layer = _read_layer(recipes / client, problems)
    layers = [layer]
    if layer.extends:
        layers.insert(0, _read_layer(recipes / layer.extends, problems))
    if layers[0].extends:
        problems.append(f"{layer.extends}: extends: only one level is possible")
    suite = layer.suite or layers[0].suite
    if not suite:
        problems.append(f"{client}: suite: is missing")
    if problems:
        raise InvalidInputError(f"The recipe of the image {client!r}", problems)
    return Recipe(client, suite, tuple(layers), _digest(layers))


def overlay(recipe: Recipe) -> bytes:
    """A tar archive of all `root/` files, the hooks and the lists, owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        content: dict[str, tuple[bytes, bool]] = {
            f"{WORK}/{name}": ("".join(f"{word}\n" for word in words).encode(), False)
            for name, words in recipe.lists.items()
        }
        for layer in recipe.layers:
            for file in layer.files:
                target = _target(file.name)
                if target:
                    content[target] = (file.path.read_bytes(), file.executable)
        for folder in sorted({*_parents(content), f"{WORK}/out"}):
            archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for name, (data, executable) in sorted(content.items()):
            entry = _entry(name, tarfile.REGTYPE, 0o755 if executable else 0o644)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def hooks(recipe: Recipe) -> list[str]:
    """The hooks' paths in the guest's tree, in the order in which they run."""
    names = {file.name for layer in recipe.layers for file in layer.files}
    return [f"{WORK}/{name}" for name in sorted(names) if name.startswith("hooks/")]


def _read_layer(folder: Path, problems: list[str]) -> Layer:
    try:
        document = tomllib.loads((folder / "recipe.toml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{folder.name}/recipe.toml: {error}")
        document = {}
    found: list[str] = []
    reader = Reader(document, problems=found)
    lists = {name: _words(reader, name, pattern) for name, pattern in _LISTS.items()}
    suite = reader.checked("suite", _matches(_SUITE), "")
    extends = reader.checked("extends", _matches(_CLIENT), "")
    reader.finish()
    files = tuple(_files(folder, found))
    problems.extend(f"{folder.name}: {problem}" for problem in found)
    return Layer(suite=suite, extends=extends, files=files, **lists)


def _words(reader: Reader, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    words: list[object] = reader.get(key, list, [])
    for word in words:
        if not isinstance(word, str) or not pattern.fullmatch(word):
            reader.problem(key, f"{word!r} is not possible here")
    return tuple(str(word) for word in words)


def _matches(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda text: None if pattern.fullmatch(text) else f"{text!r} is not possible here"


def _files(folder: Path, problems: list[str]) -> Iterator[SourceFile]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_cache(name) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name}: is not a plain file")  # a wheel cannot carry it
        elif name != "recipe.toml" and not name.startswith(("root/", "hooks/")):
            problems.append(f"{name}: is neither below root/ nor below hooks/")
        else:
            yield SourceFile(name, path, bool(path.stat().st_mode & 0o100))


def _is_cache(name: str) -> bool:
    return any(part.endswith(("_cache", "__pycache__")) for part in PurePosixPath(name).parts)


def _digest(layers: list[Layer]) -> str:
    digest = hashlib.sha256()
    for number, layer in enumerate(layers):
        for file in layer.files:
            content = hashlib.sha256(file.path.read_bytes()).hexdigest()
            digest.update(f"{number} {file.name} {file.executable} {content}\n".encode())
    return digest.hexdigest()


def _target(name: str) -> str | None:
    if name.startswith("root/"):
        return name.removeprefix("root/")
    return f"{WORK}/{name}" if name.startswith("hooks/") else None


def _parents(names: dict[str, tuple[bytes, bool]]) -> set[str]:
    parents = (str(parent) for name in names for parent in PurePosixPath(name).parents)
    return {parent for parent in parents if parent != "."}


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, EPOCH
    return entry


def _unique(layers: tuple[Layer, ...], choose: Callable[[Layer], tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(word for layer in layers for word in choose(layer)))
