"""The first table sets ours beside what users would pick instead, of the lines of all tables."""

from __future__ import annotations

from benchmarks.reporting.headlines import headlines


def encoded(system: str, documents: int, tokens_per_s: float, **more: str) -> dict[str, object]:
    return {
        "benchmark": "encode",
        "measures": "throughput",
        "model_name": "noinstruct",
        "texts": "descriptions",
        "documents": documents,
        "system": system,
        "product": system.split("-")[0],
        "engine": "torch",
        "dtype": "float32",
        "versions": {},
        "tokens_per_s": tokens_per_s,
        **more,
    }


def job(system: str, tokens_per_s: float, place: str = "s3") -> list[dict[str, object]]:
    common = {
        "benchmark": "job",
        "model_name": "noinstruct",
        "place": place,
        "system": system,
        "documents": 20_000,
        "round": 1,
        "versions": {},
    }
    return [
        {**common, "measures": "run", "wall_s": 9.0, "wall_tokens_per_s": tokens_per_s},
        {**common, "measures": "rate", "marginal_tokens_per_s": tokens_per_s},
    ]


def served(p50_ms: float | None, requests_per_s: float) -> dict[str, object]:
    return {"1": {"p50_ms": p50_ms}, "64": {"requests_per_s": requests_per_s}}


ENDPOINT = {
    "benchmark": "serve",
    "measures": "summary",
    "medians": {
        "twofold": served(4.0, 600.0),
        "echo": served(0.3, 6000.0),
        "infinity torch": served(20.0, 150.0),
        "infinity onnx": served(10.0, 200.0),
        "infinity broken": served(None, 0.0),
    },
    "ratios": {
        "p50_at_1_to_infinitys_best": {"median": 0.39},
        "requests_per_s_at_64_to_infinity_torch": {"median": 4.1},
        "requests_per_s_at_64_to_infinity_onnx": {"median": 3.1},
        "requests_per_s_at_64_to_echo_and_bare": {"median": 0.8},
    },
}


def rows(*lines: dict[str, object]) -> list[str]:
    return headlines(lines).splitlines()[2:]


def test_the_encoder_is_compared_on_the_most_texts_that_were_measured():
    ours = "twofold-openvino-bfloat16"
    limit = {
        "benchmark": "limit",
        "measures": "best",
        "linear_mflop_per_token": 40.0,
        "gflop_per_s": {},
    }
    few = [limit, encoded(ours, 100, 900.0), encoded("infinity", 100, 300.0)]
    many = [limit, encoded(ours, 500, 800.0), encoded("infinity", 500, 100.0)]
    queries = encoded("infinity", 500, 1.0, texts="queries")
    another = encoded("infinity", 900, 1.0, model_name="minilm")
    (row,) = rows(*few, *many, queries, another)
    assert row == (
        "| encoder, 500 descriptions, tokens/s: infinity, torch float32 | 800 | 100 | 8.00 |"
    )


def test_the_job_is_compared_with_what_a_user_of_ray_writes_from_store_to_store():
    (row,) = rows(
        *job("twofold", 1200.0),
        *job("ray-data", 200.0),
        *job("multi-process", 100.0),
        *job("ray-data", 999.0, place="local"),
    )
    assert row.startswith("| job, 20,000 documents from S3 to S3, tokens/s: Ray Data and")
    assert row.endswith("| 1,200 | 200 | 6.00 |")


def test_the_endpoint_is_compared_with_each_peer_under_load_and_with_the_faster_one_alone():
    assert rows(ENDPOINT) == [
        "| endpoint, 64 connections, requests/s: infinity torch | 600 | 150 | 4.10 |",
        "| endpoint, 64 connections, requests/s: infinity onnx | 600 | 200 | 3.10 |",
        "| endpoint, one connection, p50 ms (lower is better): infinity, its faster engine "
        "| 4.0 | 10.0 | 0.39 |",
    ]


def test_what_was_not_measured_has_no_row_and_nothing_at_all_no_table():
    assert headlines([]) == ""
    assert (
        rows(*job("twofold", 1200.0), *job("multi-process", 200.0), {**ENDPOINT, "ratios": {}})
        == []
    )
