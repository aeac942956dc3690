"""Requests of every dialect, drawn by a seed, each with what it has to be answered.

The vectors that are expected were computed before, one text at a time, by an encoder of the same
settings. Of two entries of other tokens or roles they are far enough apart that the one never
passes for the other.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from encoder.encoder import Encoder
from encoder.space import Role
from serving.roles import ROLE_SUFFIXES, ROLE_WORDS

__all__ = ["Entries", "Expected", "MixedRequests", "Request"]

MIN_COSINE = 0.9999
_MAX_ALIKE = 0.9998
"""Between vectors of other texts, roles or cuts."""
_SURE_BIT = 0.02
"""The sign of a smaller component may be another one in another batch."""
_ODD = [
    "",
    " ",
    "\u0000",
    "\u200b",
    "é",
    "e\u0301",
    "Ünïcödé naïve façade; 東京 に 行く; שלום; 🙂",
    "[CLS] [SEP] [MASK] [PAD]",
    '"\\/\b\f\n\r\t',
    "x" * 3000,
    "東" * 500,
    "a\u0300" * 300,
]
_WORDS = [
    *("how", "what", "when", "the", "of", "a", "reset", "password", "refund", "working", "days"),
    *("corpus", "query", "vector", "shard", "river", "mountain", "seven", "copper", "glass"),
    *("winter", "letters", "engine", "museum", "carpet", "lemon", "violet", "anchor"),
]

Vector = npt.NDArray[np.float32]
Entry = str | tuple[int, ...]
"""A text, or the token ids of one."""


@dataclass(frozen=True)
class Expected:
    """What one input has to be answered.

    Attributes:
        vector: Of all dimensions, float32 (D,).
        input_ids: That are encoded.
        truncated: Whether the input is cut.
    """

    vector: Vector
    input_ids: tuple[int, ...]
    truncated: bool

    @property
    def n_tokens(self) -> int:
        return len(self.input_ids)


class Entries:
    """Inputs that requests draw from, and what each has to be answered in either role.

    Texts of 1 to 3,000 words, odd ones, and some that are alike but for their ends.
    """

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self.space = encoder.space
        self._encoder = encoder
        self._known: dict[tuple[Entry, Role, bool], Expected] = {}
        self.short: list[Entry] = []
        self.long: list[Entry] = []
        for entry in self._drawn(random.Random(seed)):
            expected = self.expected(entry, Role.QUERY, keep_end=False)
            (self.long if expected.truncated else self.short).append(entry)
        self._check_far_apart()

    def expected(self, entry: Entry, role: Role, *, keep_end: bool) -> Expected:
        """Return what is expected of an input; computed alone, once."""
        key = (entry, role, keep_end)
        if key not in self._known:
            encoder = self._encoder
            if isinstance(entry, str):
                tokenized = encoder.tokenize([entry], role, keep_end=keep_end)
            else:
                tokenized = encoder.tokenize_ids([entry], role, keep_end=keep_end)
            [vector] = encoder.encode_tokenized(tokenized, role).vectors
            ids = tuple(tokenized.input_ids[0].tolist())
            self._known[key] = Expected(vector, ids, bool(tokenized.truncated[0]))
        return self._known[key]

    def _drawn(self, rng: random.Random) -> Iterator[Entry]:
        yield from _ODD
        lengths = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 100, *(rng.randint(1, 90) for _ in range(20))]
        lengths += [200, 255, 300, 700, 1500, 3000]
        for length in lengths:
            yield " ".join(rng.choices(_WORDS, k=length))
        for length in (4, 40, 400):
            shared = " ".join(rng.choices(_WORDS, k=length))
            for _ in range(4):
                other = " ".join(rng.choices(_WORDS, k=1 + length // 4))
                yield from (f"{shared} {other}", f"{other} {shared}")
        for length in (1, 7, 60, 600):
            yield tuple(rng.randrange(1000, 30_000) for _ in range(length))
        # With the special tokens, as a client's tokenizer gives them.
        given = self._encoder.tokenize([" ".join(rng.choices(_WORDS, k=9))], Role.QUERY)
        yield tuple(given.input_ids[0].tolist())

    def _check_far_apart(self) -> None:
        """Make sure that a vector of another text, role or cut is noticed."""
        known: dict[tuple[Role, tuple[int, ...]], Vector] = {}
        for entry, role, keep_end in product([*self.short, *self.long], Role, (False, True)):
            expected = self.expected(entry, role, keep_end=keep_end)
            known[role, expected.input_ids] = expected.vector
        vectors = np.array(list(known.values()))  # (N, D)
        cosines = vectors @ vectors.T - 2 * np.eye(len(vectors))  # (N, N)
        assert cosines.max() < _MAX_ALIKE, "two vectors could be mixed up unnoticed"


@dataclass(frozen=True)
class Request:
    """One request, and what it may be answered.

    Attributes:
        method: HTTP's.
        path: On the endpoint.
        body: As it is sent.
        statuses: That it deserves.
        kind: What is asked for, by name.
        check: Asserts of the headers and the body of a 200 that they are right.
    """

    method: str
    path: str
    body: bytes
    statuses: frozenset[int]
    kind: str
    check: Callable[[dict[str, str], bytes], None] = field(
        default=lambda *_: None, compare=False, repr=False
    )
    headers: tuple[tuple[str, str], ...] = ()

    def on_the_wire(self, host: str, request_id: str) -> bytes:
        """Return it as HTTP/1.1."""
        headers = {
            "host": host,
            "x-request-id": request_id,
            "content-type": "application/json",
            "content-length": str(len(self.body)),
            **dict(self.headers),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + self.body


EMBEDS = frozenset({200, 429})
"""Whoever asks for vectors may have come when there was no room."""


class MixedRequests:
    """Draws requests.

    Args:
        entries: Their inputs.
        model: The served name.
        max_body_bytes: Of the endpoint.
        seed: Equal seeds give equal requests.
    """

    def __init__(self, entries: Entries, model: str, max_body_bytes: int, seed: int) -> None:
        self._entries = entries
        self._model = model
        self._max_body_bytes = max_body_bytes
        self._rng = random.Random(seed)

    def draw(self) -> Request:
        """Return the next request."""
        rng = self._rng
        dialects = [self._openai, self._cohere, self._tei]
        if rng.random() < 0.12:
            return rng.choice([self._refused, self._bodiless])()
        return rng.choice(dialects)()

    def embedding(self) -> Request:
        """Return the next request for vectors."""
        return self._rng.choice([self._openai, self._cohere, self._tei])()

    def large(self) -> Request:
        """Return a request whose answer is some 100 kB, or more."""
        return self._openai(count=128)

    # --- inputs -----------------------------------------------------------------------------------

    def _count(self) -> int:
        return self._rng.choice([1] * 8 + [2, 3, 5, 17, 40, 128])

    def _inputs(self, count: int, *, ids: bool = False) -> list[Entry]:
        rng, entries = self._rng, self._entries
        share_long = rng.choice([0.0, 0.1, 0.5])
        short = [e for e in entries.short if isinstance(e, tuple) is ids]
        long = [e for e in entries.long if isinstance(e, tuple) is ids]
        drawn = [
            rng.choice(long) if rng.random() < share_long else rng.choice(short)
            for _ in range(count)
        ]
        if rng.random() < 0.1:
            drawn = [drawn[0]] * count
        return drawn

    def _expected(self, inputs: Sequence[Entry], role: Role, keep_end: bool) -> list[Expected]:
        return [self._entries.expected(entry, role, keep_end=keep_end) for entry in inputs]

    def _dimensions(self) -> int | None:
        full = self._entries.space.dimension
        return self._rng.choice([None] * 5 + [full, full // 2, full // 4])

    def _word(self, role: Role) -> str:
        word = self._rng.choice([word for word, meant in ROLE_WORDS.items() if meant is role])
        return self._rng.choice([word, word.upper(), f" {word} "])

    # --- dialects ---------------------------------------------------------------------------------

    def _openai(self, count: int | None = None) -> Request:
        rng = self._rng
        role = rng.choice(list(Role))
        is_ids = rng.random() < 0.15
        inputs = self._inputs(count or self._count(), ids=is_ids)
        where = rng.choice([None, None, "START", "START", "END", True, False, "NONE"])
        dimensions = self._dimensions()
        form = rng.choice([None, "float", "base64", ["base64"]])
        body: dict[str, Any] = {"input": [list(e) if is_ids else e for e in inputs]}
        if len(inputs) == 1 and rng.random() < 0.6:
            body["input"] = body["input"][0]
        suffixes = [suffix for suffix, meant in ROLE_SUFFIXES.items() if meant is role]
        ways = [
            {"model": self._model + rng.choice(suffixes)},
            {"input_type": self._word(role), "model": self._model},
            {"task": self._word(role)},
            {"input_type": self._word(role), "task": self._word(role)},
        ]
        if role is Role.QUERY:
            ways.append({"model": self._model})
        body |= rng.choice(ways)
        body |= {"dimensions": dimensions} if dimensions else {}
        body |= {"encoding_format": form} if form else {}
        body |= {} if where is None else {"truncate": where}
        body |= {"user": "me"} if rng.random() < 0.1 else {}
        expected = self._expected(inputs, role, where == "START")
        model = body.get("model", self._model)

        def check(headers: dict[str, str], content: bytes) -> None:
            answer = json.loads(content)
            self._check_receipts(headers, expected, role, dimensions)
            assert set(answer) == {"object", "data", "model", "usage"}
            assert answer["model"] == model
            total = sum(each.n_tokens for each in expected)
            assert answer["usage"] == {"prompt_tokens": total, "total_tokens": total}
            data = answer["data"]
            assert [item["index"] for item in data] == list(range(len(expected)))
            assert [item["n_tokens"] for item in data] == [each.n_tokens for each in expected]
            assert [item["truncated"] for item in data] == [each.truncated for each in expected]
            is_base64 = form in ("base64", ["base64"])
            vectors = [
                _floats(item["embedding"]) if is_base64 else item["embedding"] for item in data
            ]
            _check_vectors(vectors, expected, dimensions)

        refuses = where in (False, "NONE")
        kind = f"openai {role.value}{' ids' if is_ids else ''}"
        return self._post("/v1/embeddings", body, kind, expected, check, refuses=refuses)

    def _cohere(self) -> Request:
        rng = self._rng
        role = rng.choice(list(Role))
        texts = self._inputs(self._count())
        version = rng.choice(["1", "2", "2"])
        where = rng.choice([None, "START", "START", "END", "NONE"])
        types = rng.choice(
            [None, ["float"], ["base64"], ["binary", "float"], ["ubinary"], _COHERE_TYPES]
        )
        dimensions = self._dimensions()
        body: dict[str, Any] = {"texts": texts, "input_type": self._word(role)}
        body |= {"model": self._model} if rng.random() < 0.5 else {}
        body |= {"truncate": where} if where else {}
        body |= {"embedding_types": types} if types else {}
        body |= {"output_dimension": dimensions} if dimensions else {}
        body |= {"max_tokens": self._entries.space.max_seq_length} if rng.random() < 0.1 else {}
        expected = self._expected(texts, role, where == "START")

        def check(headers: dict[str, str], content: bytes) -> None:
            answer = json.loads(content)
            self._check_receipts(headers, expected, role, dimensions)
            assert answer["texts"] == texts
            assert answer["meta"] == {
                "api_version": {"version": version},
                "billed_units": {"input_tokens": sum(each.n_tokens for each in expected)},
                "truncated": [i for i, each in enumerate(expected) if each.truncated],
            }
            found = answer["embeddings"]
            if version == "1" and types is None:
                assert answer["response_type"] == "embeddings_floats"
                found = {"float": found}
            else:
                assert answer["response_type"] == "embeddings_by_type"
            assert list(found) == (types or ["float"])
            for name, vectors in found.items():
                _COHERE_CHECKS[name](vectors, expected, dimensions)

        return self._post(
            f"/v{version}/embed",
            body,
            f"cohere v{version} {role.value}",
            expected,
            check,
            refuses=where == "NONE",
        )

    def _tei(self) -> Request:
        rng = self._rng
        role = rng.choice(list(Role))
        texts = self._inputs(self._count())
        truncate = rng.choice([None, True, False])
        direction = rng.choice([None, "left", "Left", "right"])
        dimensions = self._dimensions()
        body: dict[str, Any] = {"inputs": texts}
        if len(texts) == 1 and rng.random() < 0.6:
            body["inputs"] = texts[0]
        body |= {} if truncate is None else {"truncate": truncate}
        body |= {"truncation_direction": direction} if direction else {}
        body |= {"normalize": True} if rng.random() < 0.2 else {}
        body |= {"dimensions": dimensions} if dimensions else {}
        body |= {"options": {"wait_for_model": True}} if rng.random() < 0.1 else {}
        path = rng.choice(["/embed", "/", f"/{role.value}/embed", f"/{role.value}", "//embed"])
        is_said = path.startswith(f"/{role.value}")
        if (role is Role.DOCUMENT and not is_said) or rng.random() < 0.2:
            body["prompt_name"] = self._word(role)
        path += rng.choice(["", "", "/"]) if path != "/" else ""
        is_left = direction in ("left", "Left") and truncate is not False
        expected = self._expected(texts, role, is_left)

        def check(headers: dict[str, str], content: bytes) -> None:
            self._check_receipts(headers, expected, role, dimensions)
            _check_vectors(json.loads(content), expected, dimensions)

        refuses = truncate is False
        return self._post(path, body, f"tei {role.value}", expected, check, refuses=refuses)

    def _post(
        self,
        path: str,
        body: dict[str, Any],
        kind: str,
        expected: Sequence[Expected],
        check: Callable[[dict[str, str], bytes], None],
        *,
        refuses: bool,
    ) -> Request:
        content = json.dumps(body, ensure_ascii=self._rng.random() < 0.5).encode()
        statuses = EMBEDS
        if len(content) > self._max_body_bytes:
            statuses = frozenset({413, 429})
        elif refuses and any(each.truncated for each in expected):
            statuses = frozenset({400, 429})
        return Request("POST", path, content, statuses, kind, check)

    def _check_receipts(
        self,
        headers: dict[str, str],
        expected: Sequence[Expected],
        role: Role,
        dimensions: int | None,
    ) -> None:
        space = self._entries.space
        if dimensions not in (None, space.dimension):
            space = replace(space, truncate_dim=dimensions, dimension=dimensions)
        cut = [str(i) for i, each in enumerate(expected) if each.truncated]
        assert headers["x-embedding-role"] == role.value
        assert headers["x-embedding-space"] == space.fingerprint
        assert headers["x-truncated-count"] == str(len(cut))
        assert headers.get("x-truncated-inputs", "") == ",".join(cut[:100])
        assert float(headers["x-forward-ms"]) >= 0  # none where the vectors were kept

    # --- everything else --------------------------------------------------------------------------

    def _refused(self) -> Request:
        """Return a request that deserves a refusal, before or after anybody has looked at it."""
        path, content, status = self._rng.choice(_REFUSED)
        if status == 413:
            content = json.dumps({"input": "x" * self._max_body_bytes}).encode()
        return Request("POST", path, content, frozenset({status, 429}), f"refused {status}")

    def _bodiless(self) -> Request:
        method, path, status = self._rng.choice(_BODILESS)
        return Request(method, path, b"", frozenset({status}), f"{method} {path}")


def _floats(text: str) -> Vector:
    return np.frombuffer(base64.b64decode(text), "<f4")


def _kept(expected: Sequence[Expected], dimensions: int | None) -> Vector:
    vectors = np.array([each.vector for each in expected])[:, :dimensions]  # (N, D)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _check_vectors(
    vectors: Sequence[Sequence[float] | Vector],
    expected: Sequence[Expected],
    dimensions: int | None,
) -> None:
    found, wanted = np.array(vectors, np.float64), _kept(expected, dimensions)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosines = np.sum(found * wanted, axis=1)
    wrong = np.flatnonzero(cosines < MIN_COSINE).tolist()
    assert not wrong, f"inputs {wrong} have vectors that are not theirs: {cosines[wrong]}"


def _check_bits(
    rows: Sequence[Sequence[int]], expected: Sequence[Expected], dimensions: int | None, low: int
) -> None:
    wanted = _kept(expected, dimensions)
    packed = (np.array(rows) - low).astype(np.uint8)
    found = np.unpackbits(packed, axis=1).astype(bool)
    assert found.shape == wanted.shape
    is_sure = np.abs(wanted) > _SURE_BIT
    assert not (is_sure & (found != (wanted > 0))).any()


_COHERE_TYPES = ["base64", "ubinary", "binary", "float"]
_COHERE_CHECKS: dict[str, Callable[[Any, Sequence[Expected], int | None], None]] = {
    "float": _check_vectors,
    "base64": lambda rows, *given: _check_vectors([_floats(row) for row in rows], *given),
    "ubinary": lambda rows, *given: _check_bits(rows, *given, 0),
    "binary": lambda rows, *given: _check_bits(rows, *given, -128),
}
_REFUSED: list[tuple[str, bytes, int]] = [
    ("/v1/embeddings", b"", 413),
    ("/v1/embeddings", b'{"input": []}', 400),
    ("/v1/embeddings", b'{"input": "a", "input_typ": "query"}', 400),
    ("/v1/embeddings", b'{"input": "a", "task": "query", "input_type": "document"}', 400),
    ("/v1/embeddings", b'{"input": ["a", 7]}', 400),
    ("/v1/embeddings", b'{"input": "a", "dimensions": 0}', 400),
    ("/v1/embeddings", b'{"input": "a", "model": "ada"}', 404),
    ("/v1/embeddings", b'{"input": [[99999999]]}', 400),
    ("/v1/embeddings", b'{"input": "half', 400),
    ("/v2/embed", b'{"texts": "a"}', 400),
    ("/v2/embed", b'{"texts": ["a"], "embedding_types": ["int8"]}', 400),
    ("/embed", b'{"inputs": "a", "normalize": false}', 400),
    ("/query/embed", b'{"inputs": "a", "prompt_name": "document"}', 400),
    ("/document/embed", b'{"inputs": ["\\ud800"]}', 400),
]
_BODILESS = [
    ("GET", "/health", 200),
    ("GET", "/health/live", 200),
    ("GET", "/health/ready", 200),
    ("GET", "/document/health", 200),
    ("HEAD", "/health/ready", 200),
    ("GET", "/info", 200),
    ("GET", "/query/info", 200),
    ("GET", "/v1/models", 200),
    ("HEAD", "/info", 405),
    ("OPTIONS", "/v1/embeddings", 405),
    ("GET", "/v2/embed", 405),
    ("GET", "/v1/engines", 404),
]
