"""A fingerprint names everything that makes two vectors comparable, and nothing else."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import InvalidInputError
from encoder.space import EmbeddingSpace, Pooling, Role, RoleEncoding

hex_digests = st.text("0123456789abcdef", min_size=64, max_size=64)
roles = st.builds(RoleEncoding, st.sampled_from(Pooling), st.text(max_size=20))
spaces = st.builds(
    EmbeddingSpace,
    weights_sha256=hex_digests,
    tokenizer_sha256=hex_digests,
    query=roles,
    document=roles,
    normalize=st.booleans(),
    max_seq_length=st.integers(3, 100_000),
    truncate_dim=st.none() | st.integers(1, 4096),
    dimension=st.integers(1, 4096),
)

NOINSTRUCT = EmbeddingSpace(
    weights_sha256="a" * 64,
    tokenizer_sha256="b" * 64,
    query=RoleEncoding(Pooling.MEAN),
    document=RoleEncoding(Pooling.CLS),
    normalize=True,
    max_seq_length=512,
    truncate_dim=None,
    dimension=384,
)

ANOTHER = {
    "weights_sha256": "c" * 64,
    "tokenizer_sha256": "c" * 64,
    "query": RoleEncoding(Pooling.MEAN, "query: "),
    "document": RoleEncoding(Pooling.MEAN),
    "normalize": False,
    "max_seq_length": 511,
    "truncate_dim": 384,
    "dimension": 383,
}


def test_a_person_can_check_a_space_in_one_line():
    told = replace(NOINSTRUCT, query=RoleEncoding(Pooling.CLS, "query: "), normalize=False)
    assert told.summary() == (
        f"{told.fingerprint} (query cls with prompt 'query: ', document cls without prompt, 512 "
        "tokens, 384 dimensions, lengths as they come)"
    )
    assert NOINSTRUCT.summary() == (
        "be3162ff57a676b9 (query mean without prompt, document cls without prompt, 512 tokens, 384 "
        "dimensions, unit length)"
    )


@given(spaces)
def test_a_space_survives_json(space: EmbeddingSpace):
    assert EmbeddingSpace.from_json(space.to_json()) == space


@given(spaces, spaces)
def test_spaces_have_one_fingerprint_exactly_when_they_are_equal(
    one: EmbeddingSpace, other: EmbeddingSpace
):
    assert (one.fingerprint == other.fingerprint) == (one == other)
    assert (one.differences(other) == {}) == (one == other)


def test_the_fingerprint_is_the_same_in_every_version_of_twofold():
    # Corpora on disk carry it: if this fails, every one of them is refused.
    assert NOINSTRUCT.fingerprint == "be3162ff57a676b9"


@pytest.mark.parametrize("name", [field.name for field in fields(EmbeddingSpace)])
def test_every_field_changes_the_fingerprint_and_is_named_as_the_difference(name: str):
    changed = replace(NOINSTRUCT, **{name: ANOTHER[name]})
    assert changed.fingerprint != NOINSTRUCT.fingerprint
    assert list(NOINSTRUCT.differences(changed)) == [name]


def test_each_role_has_its_own_encoding():
    assert NOINSTRUCT.role(Role.QUERY).pooling is Pooling.MEAN
    assert NOINSTRUCT.role(Role.DOCUMENT).pooling is Pooling.CLS


def test_the_canonical_json_is_ascii_sorted_and_without_white_space():
    text = replace(NOINSTRUCT, query=RoleEncoding(Pooling.MEAN, "à ")).to_json()
    assert text.isascii()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert '"prompt":"\\u00e0 "' in text


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in NOINSTRUCT.to_dict().items() if key != name}


@pytest.mark.parametrize(
    "data",
    [
        without("normalize"),
        {**NOINSTRUCT.to_dict(), "revision": "main"},
        {**NOINSTRUCT.to_dict(), "query": {"pooling": "max", "prompt": ""}},
        {**NOINSTRUCT.to_dict(), "query": {"prompt": ""}},
        {**NOINSTRUCT.to_dict(), "query": None},
    ],
)
def test_what_is_not_a_space_is_refused(data: dict[str, object]):
    with pytest.raises(InvalidInputError, match="embedding space"):
        EmbeddingSpace.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"normalize": "false"}, "normalize: expected a valid boolean, found 'false'"),
        ({"dimension": "384"}, "dimension: expected a valid integer, found '384'"),
        ({"max_seq_length": None}, "max_seq_length: expected a valid integer, found None"),
        ({"max_seq_length": True}, "max_seq_length: expected a valid integer, found True"),
        (
            {"query": {"pooling": "max", "prompt": ""}},
            "query.pooling: expected 'cls' or 'mean', found 'max'",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_expected_and_found(changes, problem):
    with pytest.raises(InvalidInputError, match=f"{problem}$"):
        EmbeddingSpace.from_json(json.dumps({**NOINSTRUCT.to_dict(), **changes}))


def test_what_a_later_version_may_say_of_a_role_is_refused_and_never_passed_over():
    data = NOINSTRUCT.to_dict()
    data["document"]["suffix"] = " [SEP]"
    with pytest.raises(InvalidInputError, match=r"document\.suffix: expected no such field"):
        EmbeddingSpace.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"space"'])
def test_text_that_is_not_a_json_object_is_refused(text: str):
    with pytest.raises(InvalidInputError, match="embedding space"):
        EmbeddingSpace.from_json(text)
