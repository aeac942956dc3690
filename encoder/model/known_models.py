"""Models whose files do not say all that is known of them: NoInstruct's poolings, E5's prompts.

They are known by name, and people load them with what the files say: the mistakes that this project
exists to prevent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from encoder.errors import ModelLoadError
from encoder.model.declarations import NO_INSTRUCT, NO_INSTRUCT_ID, SpaceDeclaration
from encoder.model.files import ModelFiles
from encoder.model.folder import CONFIG_FILE, README_FILE, readme_metadata
from encoder.model.reference import ModelReference

__all__ = ["built_in", "is_no_instruct"]

_ROLE_FIELDS = ("query_pooling", "document_pooling", "query_prompt", "document_prompt")
_E5 = re.compile(r"(^|[-_/])e5[-_](small|base|large|mistral)", re.IGNORECASE)
_BASE_MODEL = "base_model"
_TRAINED_FURTHER = "generated_from_trainer"
"""A tag of READMEs that Sentence Transformers writes after a training."""


def is_no_instruct(name: object) -> bool:
    """Return whether a name is the hub's of NoInstruct."""
    return isinstance(name, str) and name.lower() == NO_INSTRUCT_ID.lower()


def built_in(
    files: ModelFiles,
    reference: ModelReference,
    explicit: SpaceDeclaration,
    declared: SpaceDeclaration,
    *,
    is_settled: bool,
) -> list[SpaceDeclaration]:
    """Return what is built in for the model that a folder's files name.

    Args:
        files: The model's.
        reference: How the user named it.
        explicit: What the user set.
        declared: What the files say of the space.
        is_settled: Whether that is a mirror's record, which somebody has looked at.

    Raises:
        ModelLoadError: The files contradict it, or do not say its prompts, and the user has not
            settled it.
    """
    saved_as = () if is_settled else _saved_as(files)
    if not is_settled:
        _refuse_missing_prompts(
            reference, explicit, declared, [*_names(files, reference), *saved_as]
        )
    name = files.config.get("_name_or_path")
    if is_no_instruct(name):
        _refuse_contradiction(files, f"{CONFIG_FILE}, _name_or_path", explicit, declared)
        return [NO_INSTRUCT]
    # transformers 5 no longer saves the name; Sentence Transformers writes the model that it loaded
    # into the README. What was made of it may be another model, so nothing is filled in.
    if any(map(is_no_instruct, saved_as)):
        _refuse_contradiction(files, f"{README_FILE}, {_BASE_MODEL}", explicit, declared)
    return []


def _saved_as(files: ModelFiles) -> Sequence[object]:
    """Return the one model that was saved as it was loaded; nothing of a merge or a training."""
    said = readme_metadata(files.folder, _BASE_MODEL)
    models, tags = said.get(_BASE_MODEL), said.get("tags")
    if isinstance(tags, list) and _TRAINED_FURTHER in tags:
        return ()
    found = models if isinstance(models, list) else [models]
    return found if len(found) == 1 else ()


def _refuse_contradiction(
    files: ModelFiles, where: str, explicit: SpaceDeclaration, declared: SpaceDeclaration
) -> None:
    contradicted = [
        field
        for field in _ROLE_FIELDS
        if getattr(explicit, field) is None
        and getattr(declared, field) not in (None, getattr(NO_INSTRUCT, field))
    ]
    unusable = declared.pooling_problem and None in (
        explicit.query_pooling,
        explicit.document_pooling,
    )
    if contradicted or unusable:
        flags = contradicted or _ROLE_FIELDS[:2]
        raise ModelLoadError(
            f"{files.folder} names {NO_INSTRUCT_ID} ({where}), but its files "
            f"contradict it. {declared.reading()}. {NO_INSTRUCT.reading()}. Settle it with "
            f"{' and '.join('--' + field.replace('_', '-') for field in flags)}"
        )


def _refuse_missing_prompts(
    reference: ModelReference,
    explicit: SpaceDeclaration,
    declared: SpaceDeclaration,
    names: Iterable[object],
) -> None:
    """Refuse E5 without its prompts: it was trained with them, and its files do not say so."""
    if None not in (explicit.query_prompt, explicit.document_prompt):
        return  # an empty prompt is a word of the user's, too
    if declared.query_prompt or declared.document_prompt:
        return  # an empty one is what files have where nobody gave any
    if any(isinstance(name, str) and _E5.search(name) for name in names):
        raise ModelLoadError(
            f"{reference}: models of the E5 family are trained with a prompt in front of each "
            "text, which these files do not say; give --query-prompt and --document-prompt as the "
            "model card says ('query: ' and 'passage: ', but of instruct models the instruction "
            "for queries and '' for documents)"
        )


def _names(files: ModelFiles, reference: ModelReference) -> Iterator[object]:
    yield files.config.get("_name_or_path")
    *_, above, parent, name = ("", "", "", *PurePosixPath(reference.name).parts)
    yield name
    if parent == "snapshots":  # of the hub's cache: models--ORG--NAME/snapshots/COMMIT
        yield above
