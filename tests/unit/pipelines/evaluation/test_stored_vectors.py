"""What comes back of a stored vector: within a step of int8, a sign of binary, at unit length."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.stored_vectors import StoredAs, ValueRange, cut_to_unit, read_back

RANDOM = np.random.default_rng(3)
VECTORS = cut_to_unit(RANDOM.standard_normal((200, 24)).astype(np.float32), 24)
RANGE = ValueRange.of([VECTORS[:50], VECTORS[50:50], VECTORS[50:]])


def test_the_range_does_not_depend_on_the_parts():
    np.testing.assert_array_equal(RANGE.least, VECTORS.min(axis=0))
    np.testing.assert_array_equal(RANGE.greatest, VECTORS.max(axis=0))


def test_float32_comes_back_as_it_is_and_float16_nearly():
    np.testing.assert_array_equal(read_back(VECTORS, StoredAs.FLOAT32, RANGE), VECTORS)
    half = read_back(VECTORS, StoredAs.FLOAT16, RANGE)
    assert 0 < np.abs(half - VECTORS).max() < 1e-3


def test_int8_comes_back_within_half_a_step_and_has_256_values():
    found = read_back(VECTORS, StoredAs.INT8, RANGE)
    step = (RANGE.greatest - RANGE.least) / 255
    assert (np.abs(found - VECTORS) <= step / 2 + 1e-6).all()
    numbers = (found - RANGE.least) / step
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-3)
    assert set(np.rint(numbers).ravel()) <= set(range(256))
    assert found.dtype == np.float32


def test_int8_of_a_constant_dimension_is_that_constant():
    vectors = np.full((3, 2), 0.5, np.float32)
    found = read_back(vectors, StoredAs.INT8, ValueRange.of([vectors]))
    np.testing.assert_array_equal(found, vectors)


def test_int8_steps_are_those_of_sentence_transformers():
    quantization = pytest.importorskip("sentence_transformers.util.quantization")
    theirs = quantization.quantize_embeddings(
        VECTORS, "int8", ranges=np.vstack([RANGE.least, RANGE.greatest])
    )
    step = (RANGE.greatest - RANGE.least) / 255
    ours = np.rint((read_back(VECTORS, StoredAs.INT8, RANGE) - RANGE.least) / step) - 128
    assert np.abs(ours - theirs).max() <= 1


def test_products_of_signs_order_as_hamming_distances():
    signs = read_back(VECTORS, StoredAs.BINARY, RANGE)
    bits = np.packbits(VECTORS > 0, axis=1)
    distances = np.unpackbits(bits[:1] ^ bits, axis=1).sum(axis=1)
    np.testing.assert_array_equal(signs @ signs[0], 24 - 2.0 * distances)


def test_a_cut_vector_has_unit_length_and_zero_stays_zero():
    cut = cut_to_unit(np.vstack([VECTORS, np.zeros((1, 24), np.float32)]), 5)
    assert cut.shape == (201, 5)
    np.testing.assert_allclose(np.linalg.norm(cut[:-1], axis=1), 1, rtol=1e-6)
    assert not cut[-1].any()


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        (StoredAs.FLOAT32, 1536),
        (StoredAs.FLOAT16, 768),
        (StoredAs.INT8, 384),
        (StoredAs.BINARY, 48),
    ],
)
def test_bytes_of_a_vector_of_384(stored, size):
    assert stored.bytes_of(384) == size
    assert StoredAs.BINARY.bytes_of(9) == 2
