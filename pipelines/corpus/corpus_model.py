"""The model that belongs to a corpus: found from its pin, refused when it spans another space.

What decides the vectors beside the weights (pooling, prompts, normalization, lengths) is pinned
with the corpus and needs not be given again; what is given all the same must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from encoder.differences import shown_differences
from encoder.errors import ModelLoadError, SpaceMismatchError
from encoder.model.declared_space import load_space
from encoder.model.files import ModelFiles, read_model_files
from encoder.model.reference import ModelReference, resolve
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace
from pipelines.corpus.pin import Pin

__all__ = ["CorpusModel", "check_space", "encoder_settings_of", "find_corpus_model"]


@dataclass(frozen=True)
class CorpusModel:
    """A model that spans a corpus' space.

    Attributes:
        folder: Its local folder.
        settings: What loads it as this space.
    """

    folder: Path
    settings: EncoderSettings


def encoder_settings_of(pin: Pin, given: EncoderSettings) -> EncoderSettings:
    """Return settings under which the corpus' model spans the corpus' space.

    Args:
        pin: The corpus.
        given: What the caller says; every field that was set wins.
    """
    space = pin.space
    pinned = {
        "model": _reference(pin),
        "query_pooling": space.query.pooling,
        "document_pooling": space.document.pooling,
        "query_prompt": space.query.prompt,
        "document_prompt": space.document.prompt,
        "normalize": space.normalize,
        "max_seq_length": space.max_seq_length,
        # All of them, said as a number, overrides a model folder that says less.
        "truncate_dim": space.dimension,
    }
    unset = {name: value for name, value in pinned.items() if name not in given.model_fields_set}
    return given.model_copy(update=unset)


def find_corpus_model(pin: Pin, given: EncoderSettings) -> CorpusModel:
    """Find the corpus' model, or the one given in its place, without loading it.

    Args:
        pin: The corpus.
        given: What the caller says of the model; see `encoder_settings_of`.

    Raises:
        ModelLoadError: The model is not where it was, or its files are not a model's.
        SpaceMismatchError: The model is another one than the corpus was embedded with.
    """
    settings = encoder_settings_of(pin, given)
    reference = ModelReference.parse(settings.model)
    try:
        resolved = resolve(reference)
        files = read_model_files(resolved.folder)
    except ModelLoadError as error:
        if "model" in given.model_fields_set:
            raise
        raise ModelLoadError(
            f"{error}. The corpus was embedded with it: give --model where it is now"
        ) from error
    try:
        space = load_space(files, settings, reference)
    except ModelLoadError:
        # Lengths and dimensions that fit the corpus' model need not fit another one.
        _check_content(pin, files, settings.model)
        raise
    check_space(pin, space, settings.model)
    return CorpusModel(resolved.folder, settings)


def check_space(pin: Pin, space: EmbeddingSpace, what: str) -> None:
    """Check that vectors of a space may be compared with those of the corpus.

    Args:
        pin: The corpus.
        space: The other space.
        what: What has it, for the error.

    Raises:
        SpaceMismatchError: They may not; the fields that differ are named with both values.
    """
    _refuse(what, pin.space.differences(space))


def _check_content(pin: Pin, files: ModelFiles, what: str) -> None:
    found = {"weights_sha256": files.weights_sha256(), "tokenizer_sha256": files.tokenizer_sha256()}
    theirs = pin.space.to_dict()
    _refuse(what, {n: (theirs[n], ours) for n, ours in found.items() if theirs[n] != ours})


def _refuse(what: str, differences: dict[str, tuple[object, object]]) -> None:
    if differences:
        raise SpaceMismatchError(
            f"{what} is of another embedding space than the corpus: "
            f"{shown_differences(differences)}. Use the model and settings that the corpus was "
            "embedded with"
        )


def _reference(pin: Pin) -> str:
    """The model as the corpus' first run named it, at the revision that the hub gave it then."""
    model, revision = pin.provenance["model"], pin.provenance.get("revision")
    return f"{model.partition('@')[0]}@{revision}" if revision else model
