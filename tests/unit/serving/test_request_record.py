"""What is told of a request: its metrics, and one line in the log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.replica_app import DOCUMENT, NINE, QUERY, TEI, V1, V2, WIDE, App


def test_metrics_are_told_of_every_answer():
    app = App()
    app.post(V1, input=["a b", NINE], input_type="document")
    app.post(V2, texts=["a"])
    app.post(TEI, inputs="a")
    app.post(TEI, inputs=7)
    app.get("/nowhere")
    app.get("/health/ready")
    app.get("/query/health/")

    assert app.metrics.answers == [
        ("document", "openai", 200),
        ("query", "cohere", 200),
        ("query", "tei", 200),
        ("-", "-", 400),
        ("-", "-", 404),
    ]
    assert app.metrics.embeddings == [(DOCUMENT, 10, 1), (QUERY, 1, 0), (QUERY, 1, 0)]
    assert app.metrics.serializations == [DOCUMENT, QUERY, QUERY]
    assert app.metrics.rejections == []


@pytest.mark.parametrize(
    ("path", "body"),
    [(V1, {"input": NINE}), (V2, {"texts": [NINE]}), (TEI, {"inputs": NINE})],
)
def test_a_refusal_has_the_role_that_was_asked_for_in_metrics_and_log(
    path: str, body: dict[str, object]
):
    app = App(max_request_tokens=5)

    app.post(path, **body)

    assert [role for role, _, status in app.metrics.answers if status == 413] == ["query"]
    assert app.metrics.rejections == [("query", "too_large")]
    assert json.loads(app.access_lines()[-1])["role"] == "query"


def test_each_request_is_one_line_of_json_without_its_texts():
    app = App()
    inputs = ["secret", NINE]
    headers = app.post(V1, {"x-request-id": "one"}, input=inputs, input_type="document").headers
    app.post_text(V1, r'{"input": "a", "model": "\ud800"}', x_request_id="two")
    app.get("/health/ready")

    lines = app.access_lines()
    good, bad = (json.loads(line) for line in lines)
    assert "secret" not in "".join(lines)
    assert (good["request_id"], good["method"], good["path"]) == ("one", "POST", V1)
    assert (good["status"], good["dialect"], good["role"]) == (200, "openai", "document")
    assert (good["inputs"], good["tokens"], good["truncated"]) == (2, 9, 1)
    assert good["cached"] == 0
    assert good["space"] == WIDE.fingerprint
    assert 10_000 > good["ms"] >= good["forward_ms"] >= 0, "they are no moments on a clock"
    for stage in ("tokenize", "queue", "forward"):
        assert good[f"{stage}_ms"] == float(headers[f"x-{stage}-ms"])
    assert (bad["request_id"], bad["status"]) == ("two", 404)
    assert bad["error"].startswith("model: ")


def test_the_guide_lists_every_field_of_the_log():
    guide = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    table = guide[guide.index("\n| field |") : guide.index("**Traces**")]
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    app = App()
    app.post(V1, {"x-forwarded-for": "1.2.3.4"}, input="a")
    app.post(V1, input=7)

    found: set[str] = set().union(*map(json.loads, app.access_lines()))
    assert sorted(documented) == sorted(found)


def test_requests_are_not_logged_where_the_operator_does_not_want_it():
    app = App(access_log=False)

    assert app.post(V1, input="a").status_code == 200
    assert app.access_lines() == []
