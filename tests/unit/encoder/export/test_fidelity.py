"""The bar that an export passes before it is written."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.backends.fidelity import lowest_cosine
from encoder.errors import BackendError
from encoder.export.fidelity import Fidelity, require_fidelity


def _rows(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_the_worst_row_counts_and_lengths_do_not() -> None:
    expected = _rows([1, 0], [1, 0])
    assert lowest_cosine(_rows([3, 0], [1, 1]), expected) == pytest.approx(0.70710678)


@pytest.mark.parametrize("broken", [[np.nan, 0], [0, 0], [np.inf, 0]])
def test_vectors_that_are_no_numbers_are_the_worst(broken: list[float]) -> None:
    assert lowest_cosine(_rows([1, 0], broken), _rows([1, 0], [1, 0])) == -1.0


def test_what_is_below_the_bar_is_refused_with_both_numbers() -> None:
    with pytest.raises(BackendError, match=r"0\.99999\).*0\.999980 in onnxruntime 1") as caught:
        require_fidelity("model.onnx", Fidelity(0.99998, "onnxruntime 1", 9))
    assert "\n" not in str(caught.value)


def test_what_reaches_the_bar_is_handed_back() -> None:
    found = Fidelity(0.99999, "onnxruntime 1", 9)
    assert require_fidelity("model.onnx", found) is found
