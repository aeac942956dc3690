"""Banking77's queries are the same each time, and generated ones are as long as those."""

from __future__ import annotations

import statistics

from benchmarks.queries import generated_queries, read_banking77


def test_banking77_is_read_once_per_text_in_an_order_of_its_own(tmp_path):
    rows = [f'"text {i}, with\na newline",label' for i in range(50)]
    for name in ("test.csv", "train.csv"):
        (tmp_path / name).write_text("text,category\n" + "\n".join(rows) + "\n")
    queries = read_banking77(tmp_path)
    assert sorted(queries) == sorted(f"text {i}, with\na newline" for i in range(50))
    assert queries != sorted(queries)
    assert queries == read_banking77(tmp_path)


def test_generated_queries_are_short():
    queries = generated_queries(500)
    assert 8 <= statistics.median(len(query.split()) for query in queries) <= 12
