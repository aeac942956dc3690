"""Texts that make the model raise are found; the others keep their vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import BackendError
from encoder.isolation import encode_each
from encoder.space import Role
from encoder.tokenizer import Tokenized
from support.fake_encoder import FakeEncoder, vector_of

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT
BAD = "this text is poison"


def tokens(texts: list[str]) -> Tokenized:
    return FakeEncoder().tokenize(texts, DOCUMENT)


def test_good_texts_are_encoded_in_one_forward_each_in_its_role():
    encoder, roles = FakeEncoder(), [QUERY, DOCUMENT, QUERY]

    encoded = encode_each(encoder, tokens(["one", "one", "two words"]), roles)

    assert encoder.forwards == [3]
    assert encoded.failures == {}
    assert encoded.padded_tokens == 8
    expected = [vector_of("one", QUERY), vector_of("one"), vector_of("two words", QUERY)]
    np.testing.assert_array_equal(encoded.vectors, expected)


def test_no_texts_give_no_vectors():
    encoded = encode_each(FakeEncoder(), tokens([]), [])

    assert encoded.vectors.shape == (0, 4)
    assert encoded.failures == {}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(Role)), min_size=1, max_size=30))
def test_just_the_texts_that_raise_are_named_and_the_others_have_their_vectors(
    rows: list[tuple[bool, Role]],
):
    texts = [BAD if bad else f"text {'x ' * (n % 5)}{n}" for n, (bad, _) in enumerate(rows)]
    roles = [role for _, role in rows]

    encoded = encode_each(FakeEncoder(), tokens(texts), roles)

    assert set(encoded.failures) == {n for n, (bad, _) in enumerate(rows) if bad}
    for error in encoded.failures.values():
        assert isinstance(error, RuntimeError)
        assert "a kernel said no" in str(error)
    for n, (bad, role) in enumerate(rows):
        expected = np.zeros(4, np.float32) if bad else vector_of(texts[n], role)
        np.testing.assert_array_equal(encoded.vectors[n], expected)


def test_one_bad_text_among_many_is_found_in_few_forwards():
    encoder, texts = FakeEncoder(), [*(f"text {n}" for n in range(1023)), BAD]

    encoded = encode_each(encoder, tokens(texts), [DOCUMENT] * 1024)

    assert list(encoded.failures) == [1023]
    assert len(encoder.forwards) < 2 * 10 + 5
    good = sum(2 * 2 for _ in range(1023))
    assert encoded.padded_tokens == good, "only forwards that gave vectors count"


def test_what_raises_once_for_a_passing_reason_loses_no_text():
    encoder, failures = FakeEncoder(), [True, True, True]

    def flaky() -> None:
        if failures:
            failures.pop()
            raise RuntimeError("out of memory for once")

    encoder.on_forward = flaky
    # The three together, then two halves of them, then each alone: all of these fail.
    encoded = encode_each(encoder, tokens(["a", "b c", "d e f"]), [DOCUMENT] * 3)

    assert encoded.failures == {}
    expected = [vector_of(text) for text in ("a", "b c", "d e f")]
    np.testing.assert_array_equal(encoded.vectors, expected)


def test_a_lone_text_is_tried_again_before_it_is_to_blame():
    encoder, failures = FakeEncoder(), [True, True]

    def flaky() -> None:
        if failures:
            failures.pop()
            raise RuntimeError("out of memory for once")

    encoder.on_forward = flaky

    encoded = encode_each(encoder, tokens(["a"]), [DOCUMENT])

    assert encoded.failures == {}
    np.testing.assert_array_equal(encoded.vectors, [vector_of("a")])


@pytest.mark.parametrize("count", [1, 64, 1000])
def test_a_backend_that_fails_for_every_text_blames_none_of_them(count: int):
    encoder = FakeEncoder()

    def broken() -> None:
        raise RuntimeError("device lost\nat line 3")

    encoder.on_forward = broken
    with pytest.raises(BackendError, match=r"every text \(RuntimeError: device lost at line 3\)"):
        encode_each(encoder, tokens([f"text {n}" for n in range(count)]), [DOCUMENT] * count)
    assert len(encoder.forwards) < 16, "every text was tried"


def test_the_known_good_text_is_asked_for_in_the_role_of_the_bad_one():
    class QueriesFail(FakeEncoder):
        def encode_tokenized(self, tokenized, roles, *, heartbeat=None):
            each = [roles] if isinstance(roles, Role) else roles
            if QUERY in each:
                raise RuntimeError("no pooling by the mean")
            return super().encode_tokenized(tokenized, roles, heartbeat=heartbeat)

    with pytest.raises(BackendError):
        encode_each(QueriesFail(), tokens(["a", "b"]), [DOCUMENT, QUERY])


def test_the_heartbeat_comes_before_every_attempt_and_after_every_good_forward():
    encoder, beats = FakeEncoder(), []

    encode_each(encoder, tokens(["a", "b"]), [DOCUMENT] * 2, heartbeat=lambda: beats.append(1))
    assert len(beats) == 2

    beats.clear()
    encoder.forwards.clear()
    encode_each(encoder, tokens(["a", "b", BAD]), [DOCUMENT] * 3, heartbeat=lambda: beats.append(1))
    # The forward of a known-good text is not one of the attempts.
    attempts = len(encoder.forwards) - 1
    assert attempts < len(beats) <= 2 * attempts


def test_a_heartbeat_that_raises_on_every_beat_ends_the_search():
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_each(FakeEncoder(), tokens(["a"]), [DOCUMENT], heartbeat=stop)
