"""Types of JSON columns: of values that are nested without end, too."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from pipelines.source.json_types import WITHOUT_TYPE, json_field


def nested(levels: int, kind: str) -> object:
    text = "[" * levels + "1" + "]" * levels
    if kind == "objects":
        text = '{"a":' * levels + "1" + "}" * levels
    return json.loads(text)


@pytest.mark.parametrize("kind", ["lists", "objects"])
def test_32_lists_or_objects_in_each_other_have_a_type(kind):
    data_type = json_field("x", [nested(32, kind)]).type
    for _ in range(32):
        data_type = data_type.field(0).type
    assert data_type == pa.int64()


@pytest.mark.parametrize("kind", ["lists", "objects"])
@pytest.mark.parametrize("levels", [33, 300, 900])
def test_more_have_none_and_a_reason_that_says_so(kind, levels):
    field = json_field("x", [nested(levels, kind)] * 3)
    assert field.type == pa.null()
    reason = field.metadata[WITHOUT_TYPE].decode()
    assert "column 'x'" in reason
    assert "more than 32 lists or objects in each other" in reason
    assert len(reason) < 400


def test_a_value_that_is_nested_without_end_does_not_decide_for_the_others():
    assert json_field("x", [["a"], nested(900, "lists"), ["b"]]).type == pa.list_(pa.string())
