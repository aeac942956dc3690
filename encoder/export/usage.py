"""The README of an exported folder: which space it spans, how it is used, what was checked."""

from __future__ import annotations

from encoder.export.fidelity import Fidelity
from encoder.model.description import ModelDescription
from encoder.model.reference import ModelReference
from encoder.space import EmbeddingSpace, Role

__all__ = ["graph_usage", "render_readme", "sentence_transformers_usage"]


def render_readme(
    model: ModelDescription, *, name: str, usage: str, fidelity: Fidelity | None
) -> str:
    """Return the README of an exported folder, in Markdown.

    Args:
        model: What was exported.
        name: The format.
        usage: How the format's files are used.
        fidelity: What the check found; None where nothing could run the files.
    """
    revision = model.provenance.get("revision")
    source = ModelReference.parse(model.provenance["model"]).public
    source += f", revision {revision}" if revision else ""
    lines = [
        f"# {source}: {name}",
        "",
        f"Exported by `twofold export`. Embedding space `{model.space.fingerprint}`, in full in",
        "`embedding_space.json`: vectors may be compared with those of another tool only where",
        "every field of it is equal.",
        "",
        *_roles(model.space),
        "",
        *_vectors(model.space),
        "",
        usage.strip(),
        "",
        _checked(fidelity),
        "",
    ]
    return "\n".join(lines)


def sentence_transformers_usage(model: ModelDescription) -> str:
    """Return how a Sentence Transformers folder is used, in Markdown."""
    space = model.space
    has_router = space.query.pooling is not space.document.pooling
    needs = "sentence-transformers 5 or later" + (
        ", whose `Router` pools each role its own way; older versions cannot load it."
        if has_router
        else ", for `encode_query` and `encode_document`."
    )
    lines = [
        f"Needs {needs}",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer(".")',
        'queries = model.encode_query(["how do I read a csv file"])',
        'documents = model.encode_document(["The csv module reads and writes tabular data."])',
        "```",
        "",
        "`encode` without a role gives a document's vector. No code of this folder runs.",
    ]
    if space.truncate_dim and space.normalize:
        lines += [
            "",
            "Sentence Transformers cuts vectors after it normalized them: compare by cosine, or",
            "give `normalize_embeddings=True`, which twofold's own vectors equal.",
        ]
    return "\n".join(lines)


def graph_usage(
    model: ModelDescription, *, file: str, imports: str, opening: str, running: str
) -> str:
    """Return how a graph of both poolings is used, in Markdown.

    Args:
        model: What was exported.
        file: The graph's file.
        imports: Line that imports the runtime.
        opening: Line that opens the graph.
        running: Line that sets `vectors` from `inputs`, `space` and `role`.
    """
    space = model.space
    pad_token_id = model.files.config.get("pad_token_id") or 0
    return f"""
`{file}` takes `input_ids` and `attention_mask`, int64 (rows, length): any number
of rows, any length up to {space.max_seq_length}; padding is id {pad_token_id} with mask 0. Its
outputs `cls` and `mean`, float32 (rows, {space.dimension}), are finished vectors: take the one that
is the role's pooling. Prompts and truncation are the caller's; the limits in
`tokenizer.json` are not the model's:

```python
import json
from pathlib import Path

import numpy as np
{imports}
from tokenizers import Tokenizer

space = json.loads(Path("embedding_space.json").read_text())["space"]
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(space["max_seq_length"])
tokenizer.enable_padding(pad_id={pad_token_id})
{opening}


def embed(texts, role):  # role: "query" or "document"
    encodings = tokenizer.encode_batch([space[role]["prompt"] + text for text in texts])
    inputs = {{
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
    }}
    {running}
    return vectors
```
"""


def _roles(space: EmbeddingSpace) -> list[str]:
    rows = [
        f"| {role.value} | {space.role(role).pooling.value} | {_prompt(space.role(role).prompt)} |"
        for role in Role
    ]
    return ["| role | pooling | prompt |", "|---|---|---|", *rows]


def _prompt(prompt: str) -> str:
    return f"`{prompt!r}`" if prompt else "none"


def _vectors(space: EmbeddingSpace) -> list[str]:
    cut = (
        f"the first {space.truncate_dim} of the model's dimensions, " if space.truncate_dim else ""
    )
    length = "unit length" if space.normalize else "not normalized"
    return [
        f"{space.dimension} dimensions, {cut}{length}; texts are cut at {space.max_seq_length} "
        "tokens."
    ]


def _checked(fidelity: Fidelity | None) -> str:
    if fidelity is None:
        return "Not checked: no runtime for it was installed where it was written."
    return (
        f"Checked when it was written: min cosine {fidelity.min_cosine:.7f} to the model in "
        f"float32 over {fidelity.n_texts} texts, in {fidelity.runtime}."
    )
