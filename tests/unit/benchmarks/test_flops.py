"""What a forward costs, counted by hand."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.flops import ModelShape

NOINSTRUCT = {
    "num_hidden_layers": 12,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
}


def test_noinstruct_costs_42_mflop_a_token_in_its_weights():
    # DESIGN.md counts 42.6 with the attention of a text of common length.
    assert ModelShape.of(NOINSTRUCT).linear_flops_per_token == 42_467_328


def test_attention_costs_the_square_of_a_text_not_of_all_texts():
    shape = ModelShape(layers=1, hidden=2, intermediate=3, heads=1)
    weights = 2 * (4 * 2 * 2 + 2 * 2 * 3)
    assert shape.flops([5]) == 5 * weights + 4 * 2 * 25
    assert shape.flops([5, 5]) == 2 * shape.flops([5])
    assert shape.flops([10]) > shape.flops([5, 5])


def test_the_products_of_a_layer_follow_each_other():
    products = ModelShape.of(NOINSTRUCT).products
    assert all(one[1] == other[0] for one, other in itertools.pairwise(products))


def test_a_config_without_a_size_is_refused_by_name():
    with pytest.raises(ValueError, match="found none of intermediate_size"):
        ModelShape.of({k: v for k, v in NOINSTRUCT.items() if k != "intermediate_size"})
