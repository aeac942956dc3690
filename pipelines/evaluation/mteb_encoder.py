"""Our encoder behind mteb's: its queries are queries, everything else is a document.

That is the model card's rule ("sentence" in the card means document): only retrieval and reranking
have queries; pairs, clusters and texts to classify are documents on both sides. Needs the extra
`evaluate`; import it when a task is to be run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from encoder.encoder import Encoder
from encoder.space import Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput, EncodeKwargs
    from torch.utils.data import DataLoader
    from typing_extensions import Unpack

__all__ = ["MtebEncoder"]

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@.+)?")


class MtebEncoder(AbsEncoder):
    """What mteb calls. Similarity is the cosine, also of vectors that are not of unit length.

    mteb files results under the name and revision of `mteb_model_meta`. The revision here is the
    embedding space and the precision; that nothing else changed the vectors, `mteb_run` checks.

    Attributes:
        encoder: What encodes.
        texts: Number of texts encoded so far.
        truncated: How many of them were longer than `max_seq_length`.
    """

    mteb_model_meta: ModelMeta

    def __init__(self, encoder: Encoder) -> None:
        """Wrap a loaded encoder."""
        self.encoder = encoder
        self.texts = 0
        self.truncated = 0
        # Of int8 also the graph: two calibrations give different vectors.
        precision = [encoder.provenance["dtype"], encoder.provenance.get("int8_graph", "")[:16]]
        revision = "-".join(filter(None, [encoder.space.fingerprint, *precision]))
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": _name(encoder.provenance["model"]),
                "revision": revision,
                "similarity_fn_name": ScoringFunction.COSINE,
                "max_tokens": encoder.space.max_seq_length,
                "embed_dim": encoder.space.dimension,
            }
        )

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Unpack[EncodeKwargs],
    ) -> npt.NDArray[np.float32]:
        """Encode texts.

        Args:
            inputs: Batches whose "text" is a list of texts. They are encoded together: our batches
                are made of texts of similar length.
            task_metadata: Passed over, as are the split, the subset and mteb's own options: the
                embedding space says which prompt each role has.
            hf_split: Passed over.
            hf_subset: Passed over.
            prompt_type: `query` or not.
            **kwargs: Passed over.

        Returns:
            Vectors, float32 (N, D).
        """
        texts = [text for batch in inputs for text in batch["text"]]
        role = Role.QUERY if prompt_type == PromptType.query else Role.DOCUMENT
        encoded = self.encoder.encode(texts, role)
        self.texts += len(texts)
        self.truncated += int(encoded.truncated.sum())
        return encoded.vectors


def _name(reference: str) -> str:
    """Return mteb's "organization/name" for a model reference of any kind."""
    hub_id = _HUB_ID.fullmatch(reference)
    if hub_id is not None:
        return hub_id["id"]
    return "local/" + re.split(r"[/:]", reference.rstrip("/"))[-1]
