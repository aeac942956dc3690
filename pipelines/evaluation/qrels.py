"""Relevance judgements as BEIR writes them: a header, then query, document and score by tabs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from encoder.errors import InvalidInputError
from pipelines.source.listing import open_filesystem
from pipelines.store_client import client_errors

__all__ = ["read_qrels"]

_HEADER = ("query-id", "corpus-id", "score")
_GRADE = re.compile(r"(-?[0-9]{1,9})(\.0+)?")
"""A whole number; "1.0" is what pandas writes of one in a column that once had a gap."""
_MOST = 1000
"""trec_eval counts up to the highest grade for every query: of 3e9 it does not come back."""


def read_qrels(uri: str) -> Mapping[str, Mapping[str, int]]:
    """Return {query: {document: score}} in the order of the file; blank lines are passed over.

    Args:
        uri: A normalised path or URI of a TSV file in UTF-8.

    Raises:
        InvalidInputError: The header or a line is another, a score is no whole number or beyond
            1,000, a pair is judged twice or nothing is; names the line.
        StorageError: The store did not answer.
        FileNotFoundError: There is no such file.
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
    with client_errors("read", uri), fs.open(path, "rb") as file:
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
            if not line.strip():
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
    match = _GRADE.fullmatch(text.strip())
    if match is None or abs(int(match[1])) > _MOST:
        raise InvalidInputError(
            f"{place}: expected a whole number from -{_MOST} to {_MOST} as score, found "
            f"{text[:50]!r}"
        )
    return int(match[1])
