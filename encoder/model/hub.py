"""Models from the Hugging Face hub: one commit's files, in the hub's own cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from encoder.errors import ModelLoadError, one_line
from encoder.model.folder import MODEL_FILE_PATTERNS

__all__ = ["download_from_hub"]

_HTTP_UNAUTHORIZED = 401
_HTTP_FORBIDDEN = 403


def download_from_hub(
    name: str,
    revision: str | None,
    cache_dir: Path | None,
    patterns: Sequence[str] = MODEL_FILE_PATTERNS,
) -> Path:
    """Return the folder of the model's commit, downloaded or from the cache.

    Args:
        name: `org/name`.
        revision: Branch, tag or commit; None for the default branch.
        cache_dir: None for the cache that every Hugging Face library shares.
        patterns: Which of its files.

    Raises:
        ModelLoadError: The model is unknown, not open to this user, or out of reach and not cached.
    """
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            allow_patterns=list(patterns),
        )
    except Exception as error:
        # Everything below (validation, HTTP client, disk) has classes of its own, and the HTTP
        # client's changed between releases; all of them mean that there is no model.
        raise ModelLoadError(_explain(error, name, revision)) from error
    return Path(folder)


def _explain(error: Exception, name: str, revision: str | None) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"model {name} is gated on the Hugging Face hub: accept its terms at "
            f"https://huggingface.co/{name} and set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"model {name} is not on the Hugging Face hub, or is private: check the spelling "
            "(a local folder starts with / . or ~), or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"model {name} has no revision {revision!r} on the Hugging Face hub: give a branch, "
            "a tag or a full commit, or none for the default branch"
        )
    if isinstance(error, HFValidationError):
        return f"{name!r} is not a Hugging Face id (org/name[@revision]): {one_line(error)[:300]}"
    if _is_refusal(error):
        return (
            f"the Hugging Face hub refused {name} with these credentials: check HF_TOKEN, or unset "
            f"it for a public model ({one_line(error)[:300]})"
        )
    return _out_of_reach(error, name, revision)


def _is_refusal(error: Exception) -> bool:
    # The refusal may hide behind "not in the cache either", as its cause.
    for candidate in (error, error.__cause__):
        if isinstance(candidate, HfHubHTTPError):
            return candidate.response.status_code in (_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN)
    return False


def _out_of_reach(error: Exception, name: str, revision: str | None) -> str:
    reference = f"{name}@{revision}" if revision else name
    why = "" if isinstance(error, LocalEntryNotFoundError) else f" ({one_line(error)[:300]})"
    return (
        f"model {reference} is not complete in the local cache and the Hugging Face hub cannot be "
        f"reached{why}: run `twofold pull --model {reference} --to URI` on a connected machine and "
        "give that URI as --model, or give a local folder"
    )
