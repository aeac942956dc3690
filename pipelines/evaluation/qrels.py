"""Relevance judgements as BEIR writes them: a header, then query, document and score by tabs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from encoder.errors import InvalidInputError
from pipelines.source.listing import open_filesystem

__all__ = ["read_qrels"]

_HEADER = ("query-id", "corpus-id", "score")


def read_qrels(uri: str) -> Mapping[str, Mapping[str, int]]:
    """Return {query: {document: score}} in the order of the file.

    Args:
        uri: A normalised path or URI of a TSV file in UTF-8.

    Raises:
        InvalidInputError: The header or a line is another, a score is no whole number, a pair is
            judged twice or nothing is; names the line.
        OSError: The store did not answer.
    """
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for place, (query, document, score) in _lines(uri):
        if document in qrels[query]:
            raise InvalidInputError(
                f"{place}: query {query!r} and document {document!r} were judged before; expected "
                "each pair once"
            )
        qrels[query][document] = _score(score, place)
    if not qrels:
        raise InvalidInputError(f"{uri}: expected judgements, found none")
    return dict(qrels)


def _lines(uri: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    fs, path = open_filesystem(uri)
    with fs.open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{uri}, line {number}"
            fields = _fields(line, place)
            if number == 1:
                if fields != _HEADER:
                    raise InvalidInputError(
                        f"{place}: expected the header {' '.join(_HEADER)} with tabs between, "
                        f"found {' '.join(fields)[:100]!r}"
                    )
                continue
            if len(fields) != len(_HEADER) or not all(fields):
                raise InvalidInputError(
                    f"{place}: expected {', '.join(_HEADER)} with tabs between, found "
                    f"{len(fields)} fields"
                )
            yield place, (fields[0], fields[1], fields[2])


def _fields(line: bytes, place: str) -> tuple[str, ...]:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{place}: expected UTF-8, found another encoding") from error
    return tuple(text.rstrip("\r\n").split("\t"))


def _score(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{place}: expected a whole number as score, found {text[:50]!r}"
        ) from error
