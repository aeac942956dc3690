"""A retrieval dataset in the layout of BEIR, checked whole before anything is embedded.

    <dataset>/corpus.jsonl[.gz|.zst] | corpus.parquet | corpus/   _id (or id), title (or none), text
    <dataset>/queries.jsonl[...]     | ...                        _id (or id), text
    <dataset>/qrels/<split>.tsv                                   query-id, corpus-id, score

Rows come through the readers of `twofold embed`, so both see the same documents. Title and text are
joined by a space, as BEIR and mteb do; a document without a title is its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby

from encoder.errors import InvalidInputError
from pipelines.evaluation.beir_columns import find_columns
from pipelines.evaluation.qrels import read_qrels
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import Reject, read_documents
from pipelines.source.listing import files_of
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources, normalised
from pipelines.source.text_rules import has_no_text
from pipelines.source.units import Source
from pipelines.storage import store_errors

__all__ = ["BeirFolder", "read_beir_folder"]

_UNIT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class BeirFolder:
    """A dataset that was read and found whole.

    Attributes:
        uri: The folder, as it was given, normalised.
        split: Which judgements.
        corpus: URI of the corpus file or folder: the input of the corpus job.
        sources: The corpus' files, as they were when they were read.
        columns: The corpus' id and text columns.
        documents: Documents with a text.
        empty_documents: Documents without one: the job rejects them, so they are never found.
        queries: The judged queries' texts by id, in the order of the file.
        qrels: Judged documents of each query, with their scores.
    """

    uri: str
    split: str
    corpus: str
    sources: tuple[Source, ...]
    columns: CorpusColumns
    documents: int
    empty_documents: int
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.uri.rpartition("/")[2]

    @property
    def judgements(self) -> int:
        """Judged pairs of a query and a document."""
        return sum(map(len, self.qrels.values()))


def read_beir_folder(uri: str, split: str) -> BeirFolder:
    """Read a dataset's queries and judgements, and look at every document once.

    Args:
        uri: The folder, local or any fsspec URI.
        split: Name of the judgements' file in `qrels/`, without its ending.

    Raises:
        InvalidInputError: A file or column is missing, a row is malformed, an id stands twice, a
            judged query is empty, or a judgement names what is not there; one line that says where.
        UnreadableSourceError: A file cannot be read to its end.
        StorageError: The store did not answer.
    """
    root = normalised(uri)
    with store_errors(f"read the dataset {root}"):
        files = sorted(files_of(root))
        corpus, queries = (_part(root, files, part) for part in ("corpus", "queries"))
        judged = f"{root}/qrels/{split}.tsv"
        if judged not in files:
            found = [file for file in files if file.startswith(f"{root}/qrels/")]
            raise InvalidInputError(
                f"expected judgements in {judged}, found {_named(found, root) or 'no qrels/'}; "
                "--split says which"
            )
        qrels = read_qrels(judged)
        queries_by_id = dict(_queries(queries, qrels))
        _check_known(qrels, queries_by_id, f"{judged}: judged queries", queries)
        sources = tuple(list_sources([corpus], None))
        columns = find_columns(sources, with_title=True)
        full, empty = _document_ids(sources, columns)
    documents = dict.fromkeys(full | empty)
    for judgements in qrels.values():
        _check_known(judgements, documents, f"{judged}: judged documents", corpus)
    return BeirFolder(
        uri=root,
        split=split,
        corpus=corpus,
        sources=sources,
        columns=columns,
        documents=len(full),
        empty_documents=len(empty),
        queries={name: text for name, text in queries_by_id.items() if name in qrels},
        qrels=qrels,
    )


def _part(root: str, files: list[str], part: str) -> str:
    """Return the one file or folder that holds the corpus or the queries."""
    found = {
        f"{root}/{part}" if file.startswith(f"{root}/{part}/") else file
        for file in files
        if file.startswith((f"{root}/{part}/", f"{root}/{part}."))
    }
    if len(found) != 1:
        raise InvalidInputError(
            f"expected one {part}.jsonl, {part}.jsonl.gz, {part}.parquet or folder {part}/ in "
            f"{root}, found {_named(sorted(found), root) or 'none'}"
        )
    return found.pop()


def _named(files: list[str], root: str) -> str:
    return ", ".join(file.removeprefix(f"{root}/") for file in files[:5])


def _rows(
    sources: tuple[Source, ...], columns: CorpusColumns
) -> Iterator[tuple[str, str | None, str]]:
    """Yield (id, text or None where it is empty, place) of all rows; refuse malformed ones."""
    units = plan_units(sources, unit_bytes=_UNIT_BYTES, tolerate_unreadable=False)
    for uri, units_of_file in groupby(units, key=lambda unit: unit.source.uri):
        row = 1
        for batch in chain.from_iterable(read_documents(unit, columns) for unit in units_of_file):
            first = row - batch.row_start
            row += batch.row_stop - batch.row_start
            ids = batch.carried.column(0).to_pylist()
            for identity, text, at in zip(ids, batch.texts, batch.rows, strict=True):
                yield str(identity), text, f"{uri}, row {first + at}"
            for reject in batch.rejects:
                place = f"{uri}, row {first + (reject.row or 0)}"
                yield _id_of_empty(reject, place, columns), None, place


def _id_of_empty(reject: Reject, place: str, columns: CorpusColumns) -> str:
    """Return the id of a row without a text; any other reject is a malformed row."""
    if reject.id is None or not has_no_text(reject.reason):
        raise InvalidInputError(
            f"{place}: {reject.reason}; expected an object with {columns.id_column} and text"
        )
    return reject.id


def _queries(uri: str, judged: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of all queries; only a judged one must have a text, others are not used."""
    sources = tuple(list_sources([uri], None))
    seen: set[str] = set()
    for name, text, place in _rows(sources, find_columns(sources, with_title=False)):
        if text is None and name in judged:
            raise InvalidInputError(f"{place}: query {name!r} is empty; expected a text")
        _add(seen, name, place)
        yield name, text or ""


def _document_ids(sources: tuple[Source, ...], columns: CorpusColumns) -> tuple[set[str], set[str]]:
    """Return the ids of the documents with and without a text."""
    full: set[str] = set()
    empty: set[str] = set()
    for name, text, place in _rows(sources, columns):
        if name in full or name in empty:
            _add({name}, name, place)
        (empty if text is None else full).add(name)
    return full, empty


def _add(seen: set[str], name: str, place: str) -> None:
    if name in seen:
        raise InvalidInputError(f"{place}: id {name!r} stood before; expected each id once")
    seen.add(name)


def _check_known(
    names: Mapping[str, object], known: Mapping[str, object], what: str, where: str
) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:3]))
        raise InvalidInputError(
            f"{what} {shown}{' ...' if len(unknown) > 3 else ''} ({len(unknown)}) are not in "
            f"{where}; the files belong to different versions of the dataset"
        )
