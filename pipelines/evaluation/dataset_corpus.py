"""A dataset's corpus as vectors: made by the corpus job, in a folder that it can go on in.

The folder's name tells the settings that decide the vectors to the last digit, so that runs with
others never meet: `<output>/<fingerprint>-<backend>-<dtype>`, of int8 with its graph. What `auto`
was, on the machines that embedded, the shards tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from encoder.errors import InvalidInputError
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from pipelines.corpus.blocks import Block, live_shards, stream_blocks
from pipelines.corpus.index import read_index
from pipelines.corpus.pin import Pin, require_pin
from pipelines.embed_corpus import embed_corpus
from pipelines.evaluation.beir_folder import BeirFolder
from pipelines.evaluation.measurement import ran_as
from pipelines.settings import EmbedCorpusSettings, JobSettings
from pipelines.storage import Storage

__all__ = ["DatasetCorpus", "embed_dataset"]


@dataclass(frozen=True)
class DatasetCorpus:
    """The vectors of a dataset's documents.

    Attributes:
        storage: The output folder of the corpus job.
        pin: Its space and layout.
        documents: Documents that have a vector.
        truncated: Documents that were longer than the model reads.
        ran_as: Backend and precision of the vectors; several where `auto` was not always the same.
    """

    storage: Storage
    pin: Pin
    documents: int
    truncated: int
    ran_as: tuple[str, ...]

    def blocks(self) -> Iterator[Block]:
        """Yield all vectors, a few megabytes at a time.

        Raises:
            CorpusError: A shard cannot be read.
        """
        return stream_blocks(self.storage, self.pin, live_shards(self.storage))


def embed_dataset(
    dataset: BeirFolder, output: str, encoder: EncoderSettings, job: JobSettings
) -> DatasetCorpus:
    """Embed a dataset's documents, or what is left of them to embed.

    Args:
        dataset: Its corpus is the job's input.
        output: Folder of all evaluations of this dataset; a folder of its own is made below it.
        encoder: The model and how to run it.
        job: What is stored, and on which workers.

    Raises:
        InvalidInputError: The folder holds the vectors of another corpus.
        TwofoldError: See `embed_corpus`.
    """
    model = describe_model(encoder)
    names = [model.space.fingerprint, encoder.backend.value, encoder.dtype.value]
    if graph := model.provenance.get("int8_graph"):
        names.append(graph[:16])
    folder = "-".join(names)
    storage = Storage(f"{output.rstrip('/')}/{folder}")
    _check_sources(storage, dataset)
    embed_corpus(
        EmbedCorpusSettings(
            **dict(job),
            input=(dataset.corpus,),
            output=storage.uri,
            encoder=encoder,
            id_column=dataset.columns.id_column,
            text_column=dataset.columns.text_columns,
        )
    )
    _check_sources(storage, dataset)
    index = read_index(storage)
    totals = {} if index is None else index.totals()
    footers = [] if index is None else [shard.footer for shard in index.shards]
    return DatasetCorpus(
        storage,
        require_pin(storage),
        totals.get("documents", 0),
        totals.get("truncated", 0),
        tuple(sorted({ran_as(footer.provenance) for footer in footers if footer.rows})),
    )


def _check_sources(storage: Storage, dataset: BeirFolder) -> None:
    """Refuse vectors of other files: they would be found, and nobody has judged them."""
    index = read_index(storage)
    if index is None:
        return
    expected = {source.uri for source in dataset.sources}
    others = sorted({source["uri"] for source in index.sources()} - expected)
    if others:
        raise InvalidInputError(
            f"--output: expected vectors of {dataset.corpus} alone in {storage.uri}, found those "
            f"of {others[0]}; give another folder"
        )
