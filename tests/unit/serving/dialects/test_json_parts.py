"""Large answers: written in parts, and byte for byte what one call would have written."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.dialects import json_parts, wire
from serving.dialects.json_parts import PART_FLOATS, dumped, dumped_in_parts
from support.replica_app import TEI, V1, V2, App

TYPES = ["float", "base64", "binary", "ubinary"]
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "openai": (V1, "input", {}),
    "openai base64": (V1, "input", {"encoding_format": "base64"}),
    "cohere": (V2, "texts", {"embedding_types": TYPES}),
    "cohere 1": ("/v1/embed", "texts", {}),
    "tei": (TEI, "inputs", {}),
}


def floats_in(content: object) -> int:
    if isinstance(content, np.ndarray):
        return content.size
    if isinstance(content, dict):
        return sum(map(floats_in, content.values()))
    return sum(map(floats_in, content)) if isinstance(content, list) else 0


@pytest.fixture(scope="module")
def replica() -> App:
    return App(max_inputs=10_000)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_dialects_answer_is_the_same_in_parts(replica: App, shape: str):
    path, field, more = SHAPES[shape]
    answers: list[bytes] = []

    def both(content: object) -> bytes:
        answers.append(dumped_in_parts(content))
        assert answers[-1] == dumped(content)
        return answers[-1]

    @settings(max_examples=25, deadline=None)
    @given(count=st.integers(1, 300), part_floats=st.integers(1, 500))
    def ask(count: int, part_floats: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire, "_INLINE_FLOATS", 0)
            patch.setattr(wire, "dumped_in_parts", both)
            patch.setattr(json_parts, "PART_FLOATS", part_floats)
            texts = [f'"text" {n}\n' * (n % 4) for n in range(count)]
            answers.clear()
            answer = replica.post(path, **{field: texts}, **more)
        assert answer.status_code == 200, answer.text
        assert [answer.content] == answers

    ask()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_call_writes_more_floats_than_the_event_loop_should_wait_for(
    replica: App, shape: str, monkeypatch: pytest.MonkeyPatch
):
    path, field, more = SHAPES[shape]
    calls: list[int] = []

    class Watched:
        OPT_SERIALIZE_NUMPY = orjson.OPT_SERIALIZE_NUMPY

        @staticmethod
        def dumps(content: object, option: int) -> bytes:
            calls.append(floats_in(content))
            return orjson.dumps(content, option=option)

    monkeypatch.setattr(json_parts, "orjson", Watched)

    answer = replica.post(path, **{field: ["a"] * 5000}, **more)

    assert answer.status_code == 200, answer.text
    assert max(calls) <= PART_FLOATS
    assert sum(calls) == (0 if "base64" in shape else 5000 * (16 if shape != "cohere" else 20))
    assert len(calls) > 3


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=60),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    ),
    st.integers(1, 20),
)
def test_whatever_is_written_in_parts_is_what_one_call_writes(content: object, part_floats: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_parts, "PART_FLOATS", part_floats)
        assert dumped_in_parts(content) == dumped(content)
