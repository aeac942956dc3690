"""A Sentence Transformers folder: its own modules, no custom code, weights once.

    Transformer (the folder itself) -> Router (a Pooling for each role) -> Normalize

A Router whose routes hold only their Pooling stands behind one Transformer, so `encode_query` and
`encode_document` share the weights. Where both roles pool alike, a plain Pooling takes its place.
The files name their classes and poolings as sentence-transformers did before 6, and 6.2 reads
them. `Router`, `encode_query` and `encode_document` came with 5, which the README says. `encode`,
which says no role, is a document, as in the model card.
"""

from __future__ import annotations

import json
from pathlib import Path

from encoder.backends.fidelity import lowest_cosine
from encoder.backends.pooled_model import quiet_transformers
from encoder.encoder import Encoder
from encoder.errors import ModelLoadError, one_line
from encoder.export.fidelity import Fidelity, check_texts, require_fidelity
from encoder.export.usage import sentence_transformers_usage
from encoder.extras import import_extra
from encoder.loading import open_encoder
from encoder.model.description import ModelDescription
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role

__all__ = ["SentenceTransformersFormat"]

_MODULES = "sentence_transformers.models"
"""The classes' place before 6, which 6.2 finds too: 5 knows no other."""


class SentenceTransformersFormat:
    """A folder that `SentenceTransformer(folder)` loads."""

    name = "Sentence Transformers"
    keeps_weights = True

    def write(self, model: ModelDescription, folder: Path) -> Fidelity | None:
        """Write the module files and compare what loads with the model, as `ExportFormat` says."""
        import_extra("export", "sentence_transformers")
        _write_modules(folder, model.space, model.files.hidden_size)
        return require_fidelity("the folder", _compare(model, folder))

    def usage(self, model: ModelDescription) -> str:
        """Return how the folder is used, in Markdown."""
        return sentence_transformers_usage(model)


def _write_modules(folder: Path, space: EmbeddingSpace, hidden_size: int) -> None:
    """Write every JSON file that Sentence Transformers reads, beside the transformer's own."""
    modules = [("Transformer", "")]
    if space.query.pooling is space.document.pooling:
        modules.append(("Pooling", "1_Pooling"))
        _write_pooling(folder / "1_Pooling", space.query.pooling, hidden_size)
    else:
        modules.append(("Router", "1_Router"))
        _write_router(folder / "1_Router", space, hidden_size)
    if space.normalize:
        modules.append(("Normalize", "2_Normalize"))
        # The module has no settings; an empty folder would be lost on an object store.
        _write_json(folder / "2_Normalize/config.json", {})
    _write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"{_MODULES}.{kind}"}
            for index, (kind, path) in enumerate(modules)
        ],
    )
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": space.max_seq_length, "do_lower_case": False},
    )
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {role.value: space.role(role).prompt for role in Role},
            "default_prompt_name": Role.DOCUMENT.value if space.document.prompt else None,
            "similarity_fn_name": "cosine",
            "truncate_dim": space.truncate_dim,
        },
    )


def _write_router(folder: Path, space: EmbeddingSpace, hidden_size: int) -> None:
    modules = {role: f"{role.value}_0_Pooling" for role in Role}
    for role, module in modules.items():
        _write_pooling(folder / module, space.role(role).pooling, hidden_size)
    _write_json(
        folder / "router_config.json",
        {
            "types": dict.fromkeys(modules.values(), f"{_MODULES}.Pooling"),
            "structure": {role.value: [module] for role, module in modules.items()},
            "parameters": {"default_route": Role.DOCUMENT.value, "allow_empty_key": True},
        },
    )


def _write_pooling(folder: Path, pooling: Pooling, hidden_size: int) -> None:
    _write_json(
        folder / "config.json",
        {
            "word_embedding_dimension": hidden_size,
            "pooling_mode_cls_token": pooling is Pooling.CLS,
            "pooling_mode_mean_tokens": pooling is Pooling.MEAN,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _compare(model: ModelDescription, folder: Path) -> Fidelity:
    """Load the folder as its users do and compare both roles with our encoder in float32."""
    package = import_extra("export", "sentence_transformers")
    texts = list(check_texts(model))
    encoder = _float32_encoder(model)
    try:
        with quiet_transformers():
            loaded = package.SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                # Checkpoints in half precision would be run in it.
                model_kwargs={"dtype": "float32"},
            )
        found = {
            Role.QUERY: loaded.encode_query(texts, show_progress_bar=False),
            Role.DOCUMENT: loaded.encode_document(texts, show_progress_bar=False),
        }
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError) as error:
        raise ModelLoadError(
            f"expected a folder that sentence-transformers {package.__version__} loads, found: "
            f"{one_line(error)[:300]}; nothing was written"
        ) from error
    lowest = min(
        lowest_cosine(vectors, encoder.encode(texts, role).vectors)
        for role, vectors in found.items()
    )
    encoder.close()
    return Fidelity(lowest, f"sentence-transformers {package.__version__}", len(texts))


def _float32_encoder(model: ModelDescription) -> Encoder:
    settings = EncoderSettings(
        model=model.provenance["model"],
        backend=BackendName.TORCH,
        dtype=DtypeName.FLOAT32,
        device="cpu",
    )
    return open_encoder(model, settings)
