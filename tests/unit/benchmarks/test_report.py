"""Tables and plots are what the lines say, and `--check` notices where they are not."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import main, newest
from benchmarks.reporting.results import encoder_cells, job_results, latency_cells, limits
from benchmarks.reporting.tables import TABLES

OURS, OURS_WITHOUT_BFLOAT16 = "twofold-openvino-bfloat16", "twofold-openvino-float32"
MODEL = {"layers": 1, "hidden": 2, "intermediate": 3, "heads": 1}


def limit(**gflop_per_s: float) -> dict[str, object]:
    return {
        "benchmark": "limit",
        "measures": "best",
        "linear_mflop_per_token": 20.0,
        "gflop_per_s": gflop_per_s,
    }


def cell(system: str, tokens_per_s: float, **more: object) -> dict[str, object]:
    return {
        "benchmark": "encode",
        "measures": "throughput",
        "model_name": "minilm",
        "texts": "descriptions",
        "system": system,
        "product": "infinity",
        "engine": "torch",
        "dtype": "float32",
        "versions": {"infinity-emb": "0.0.78"},
        "tokens_per_s": tokens_per_s,
        "gflop_per_s": tokens_per_s / 10,
        **more,
    }


def job(
    system: str, documents: int, wall_s: float, tokens: int, number: int = 1
) -> dict[str, object]:
    return {
        "benchmark": "job",
        "measures": "run",
        "round": number,
        "model_name": "minilm",
        "place": "local",
        "system": system,
        "versions": {"sentence-transformers": "6.2.0"},
        "documents": documents,
        "wall_s": wall_s,
        "wall_tokens_per_s": tokens / wall_s,
    }


def rate(system: str, documents: int, marginal: float, number: int = 1) -> dict[str, object]:
    return {
        "benchmark": "job",
        "measures": "rate",
        "round": number,
        "model_name": "minilm",
        "place": "local",
        "system": system,
        "documents": documents,
        "marginal_tokens_per_s": marginal,
    }


TWO_TURNS = [
    limit(float32=100.0),
    cell(OURS, 1000, least_cosine=0.9999),
    cell("peer", 500, least_cosine=0.999),
    limit(float32=50.0),
    cell(OURS, 480),
    cell("peer", 100),
    limit(float32=100.0),
    cell(OURS, 900, least_cosine=0.99999),
    cell("peer", 300),
]


def test_a_ratio_is_the_median_of_the_turns_ratios():
    peer = encoder_cells(TWO_TURNS)[1]
    # 2, 4.8, 3; the medians' ratio would be 900 / 300 too, so the turns are made unequal below.
    assert peer.ours_to_it == 3
    unequal = [*TWO_TURNS[:-1], cell("peer", 900)]
    assert encoder_cells(unequal)[1].ours_to_it == 2
    assert peer.value == 300
    assert peer.turns == 3


def test_where_there_is_no_bfloat16_others_are_compared_with_our_float32():
    lines = [limit(), cell(OURS_WITHOUT_BFLOAT16, 600), cell("peer", 200)]
    assert [found.ours_to_it for found in encoder_cells(lines)] == [1, 3]
    with_bfloat16 = [*lines, cell(OURS, 1000)]
    assert [found.ours_to_it for found in encoder_cells(with_bfloat16)] == [1000 / 600, 5, 1]


def test_a_share_is_of_the_limit_measured_in_the_same_turn():
    ours = encoder_cells(TWO_TURNS)[0]
    # 100 / 100, 48 / 50, 90 / 100.
    assert ours.share_of_limit == pytest.approx(0.96)


def test_the_least_cosine_of_all_turns_stands():
    assert [found.least_cosine for found in encoder_cells(TWO_TURNS)] == [0.9999, 0.999]


def test_a_precision_without_a_limit_has_no_share():
    (found,) = encoder_cells([limit(float32=100.0), cell("peer", 5, dtype="default")])
    assert found.share_of_limit is None
    assert found.ours_to_it is None


def test_a_system_is_named_with_the_version_it_was_measured_in():
    assert encoder_cells(TWO_TURNS)[0].title == "infinity 0.0.78, torch float32"


def test_a_slower_answer_is_a_ratio_above_one_too():
    lines = [limit(), cell(OURS, 0), cell("peer", 0)]
    for line, p50_ms in zip(lines[1:], (4.0, 6.0), strict=True):
        line.update(measures="latency", p50_ms=p50_ms)
    assert latency_cells(lines)[1].ours_to_it == 1.5


def test_limits_are_medians_over_the_turns():
    assert limits(TWO_TURNS) == {20_000_000: {"float32": 100.0}}


def test_a_job_is_compared_by_its_whole_run_and_by_what_more_documents_cost():
    lines = [
        job("twofold", 50, 20, 1000),
        job("twofold", 900, 40, 40_000),
        rate("twofold", 900, 2000),
        job("ray-data", 50, 10, 1000),
        job("ray-data", 900, 80, 40_000),
        rate("ray-data", 900, 500),
    ]
    found = job_results(lines)[1]
    assert found.title == "Ray Data and sentence-transformers 6.2.0"
    assert (found.start_s, found.ours_to_it_wall, found.ours_to_it_marginal) == (10, 2, 4)
    assert (found.model, found.place, found.documents, found.turns) == ("minilm", "local", 900, 1)


@pytest.mark.parametrize(
    ("other", "size"), [({"model_name": "noinstruct"}, 900), ({"place": "s3"}, 900), ({}, 1800)]
)
def test_jobs_of_another_model_place_or_size_are_not_compared(other, size):
    first = [job("twofold", 50, 20, 1000), job("twofold", 900, 40, 40_000)]
    second = [job("twofold", 50, 30, 1000), job("twofold", size, 10, 40_000)]
    lines = [
        *(*first, rate("twofold", 900, 2000), rate("ray-data", 900, 1000)),
        *(job("ray-data", 50, 20, 1000), job("ray-data", 900, 80, 40_000)),
        *({**line, **other} for line in (*second, rate("twofold", size, 9000))),
    ]
    ours, theirs, others = job_results(lines)
    assert (ours.marginal_tokens_per_s, ours.turns) == (2000, 1)
    assert (theirs.ours_to_it_marginal, theirs.ours_to_it_wall) == (2, 2)
    assert (others.marginal_tokens_per_s, others.wall_tokens_per_s) == (9000, 4000)


def test_a_job_that_ours_was_not_measured_beside_has_no_ratio():
    lines = [job("ray-data", 50, 10, 1000), job("ray-data", 900, 80, 40_000)]
    (found,) = job_results([*lines, rate("ray-data", 900, 500)])
    assert (found.ours_to_it_wall, found.ours_to_it_marginal) == (None, None)
    assert "| 500 | - |" in TABLES["job"]([*lines, rate("ray-data", 900, 500)])


@pytest.mark.parametrize("numbers", [(1, 2), (1, 1)], ids=["of one run", "of two runs"])
def test_a_jobs_ratio_is_of_one_turn_also_where_a_turn_was_not_finished(numbers):
    first, second = numbers
    lines = [
        *(job("twofold", 50, 20, 1000, first), job("twofold", 900, 4, 40_000, first)),
        rate("twofold", 900, 10_000, first),
        # Here the other one failed. Then a slower hour.
        *(job("twofold", 50, 20, 1000, second), job("twofold", 900, 8, 40_000, second)),
        rate("twofold", 900, 5_000, second),
        *(job("ray-data", 50, 20, 1000, second), job("ray-data", 900, 16, 40_000, second)),
        rate("ray-data", 900, 2_500, second),
    ]
    theirs = job_results(lines)[1]
    assert (theirs.ours_to_it_wall, theirs.ours_to_it_marginal) == (2, 2)


def test_more_texts_are_cells_of_their_own():
    card = cell("card", 10, documents=25)
    lines = [
        *(limit(float32=100.0), cell(OURS, 1000, documents=100), cell("peer", 250, documents=100)),
        card,
        *(limit(float32=100.0), cell(OURS, 1200, documents=900), cell("peer", 600, documents=900)),
    ]
    found = {(cell.system, cell.documents): cell.ours_to_it for cell in encoder_cells(lines)}
    assert found == {
        (OURS, 100): 1,
        ("peer", 100): 4,
        ("card", 100): 100,
        (OURS, 900): 1,
        ("peer", 900): 2,
    }
    table = TABLES["encoder"](lines)
    assert "| 100 descriptions: tokens/s |" in table
    assert "| 900 descriptions: tokens/s |" in table


def left_out(system: str, problem: str) -> dict[str, object]:
    return {
        "benchmark": "encode",
        "measures": "left out",
        "model_name": "minilm",
        "system": system,
        "problem": problem,
    }


def test_who_was_left_out_stands_below_the_table_unless_other_lines_have_it():
    lines = [
        left_out("fastembed", "Traceback\nIt is not there."),
        left_out(OURS, "it failed at first"),
        *(limit(float32=100.0), cell(OURS, 1000)),
    ]
    assert TABLES["encoder"](lines).endswith("Left out: fastembed with minilm (It is not there.).")
    assert "Left out" not in TABLES["encoder"](lines[1:])


@pytest.fixture
def measured(tmp_path):
    """A document with a place for a table, and lines of one day."""
    folder = tmp_path / "measurements"
    folder.mkdir()
    (folder / "2026-01-02-encode.jsonl").write_text("\n".join(map(json.dumps, TWO_TURNS)) + "\n")
    (tmp_path / "README.md").write_text(
        "before\n<!-- measured: encoder -->\nold\n<!-- end measured: encoder -->\nafter\n"
    )
    return tmp_path


def report(folder, *flags: str) -> int:
    return main(
        [
            *("--measurements", str(folder / "measurements"), "--plots", str(folder / "plots")),
            *("--documents", str(folder / "README.md"), *flags),
        ]
    )


def test_the_table_is_written_between_its_markers_and_nothing_else_changes(measured):
    assert report(measured) == 0
    text = (measured / "README.md").read_text()
    assert text.startswith("before\n<!-- measured: encoder -->\n| all-MiniLM")
    assert text.endswith("\n<!-- end measured: encoder -->\nafter\n")
    assert "old" not in text
    assert "<svg" in (measured / "plots" / "encoder.svg").read_text()


def test_check_passes_after_writing_and_fails_when_a_figure_was_changed(measured, capsys):
    assert report(measured, "--check") == 1
    report(measured)
    assert report(measured, "--check") == 0
    document = measured / "README.md"
    document.write_text(document.read_text().replace("3.00", "9.00"))
    assert report(measured, "--check") == 1
    assert "README.md is not what docs/measurements say" in capsys.readouterr().err


def test_check_writes_nothing(measured):
    before = (measured / "README.md").read_text()
    report(measured, "--check")
    assert (measured / "README.md").read_text() == before
    assert not (measured / "plots").exists()


def test_a_place_for_a_table_without_measurements_is_refused(measured, capsys):
    document = measured / "README.md"
    document.write_text(document.read_text().replace("encoder", "job"))
    assert report(measured) == 1
    assert "expected measurements for job" in capsys.readouterr().err


def test_a_place_may_name_the_lines_of_another_machine(measured):
    other = measured / "measurements" / "other-machines"
    other.mkdir()
    lines = [limit(float32=100.0), cell(OURS, 777), cell("peer", 111)]
    (other / "2026-01-01-encode-x.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    document = measured / "README.md"
    name = "encoder 2026-01-01-encode-x"
    place = f"<!-- measured: {name} -->\n<!-- end measured: {name} -->\n"
    document.write_text(document.read_text() + place)
    assert report(measured) == 0
    here, there = document.read_text().split("after\n")
    assert ("777" in here, "777" in there) == (False, True)
    assert report(measured, "--check") == 0


def test_a_place_that_names_lines_that_are_not_there_is_refused(measured, capsys):
    document = measured / "README.md"
    document.write_text(document.read_text().replace("encoder", "encoder 2026-01-01-encode-x"))
    assert report(measured) == 1
    assert "other-machines/2026-01-01-encode-x.jsonl" in capsys.readouterr().err


def test_a_marker_without_its_end_is_refused(measured, capsys):
    (measured / "README.md").write_text("<!-- measured: encoder -->\n")
    assert report(measured) == 1
    assert "expected each <!-- measured: NAME --> with its" in capsys.readouterr().err


def test_of_each_measurement_the_newest_day_counts(tmp_path):
    def write(name: str, *lines: dict[str, object]) -> None:
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("2026-01-01-encode-a.jsonl", limit(float32=1.0), cell(OURS, 1))
    write("2026-01-01-encode-b.jsonl", limit(float32=2.0), cell(OURS, 2))
    write("2026-01-02-encode-b.jsonl", limit(float32=3.0), cell(OURS, 3))
    write("2026-01-02-job.jsonl", job("twofold", 1, 1, 1))
    found = newest(sorted(tmp_path.iterdir()))
    assert [line["benchmark"] for line in found] == ["limit", "encode", "limit", "encode", "job"]
    assert [line["tokens_per_s"] for line in found if line["benchmark"] == "encode"] == [1, 3]


def test_the_jobs_table_says_where_our_largest_runs_time_went(tmp_path):
    small, large = job("twofold", 50, 20, 1000), job("twofold", 900, 40, 40_000)
    small |= {"seconds_by_stage": {"encode": 1.0}, "first_commit_s": 11.0}
    large |= {"seconds_by_stage": {"read": 0.5, "encode": 33.0}, "first_commit_s": 12.0}
    lines = [small, large, rate("twofold", 900, 2000)]
    assert TABLES["job"](lines).endswith(
        "Of the 40 s that twofold took for 900 documents (local, minilm), 12 s went by until the "
        "first shard; its actor's seconds by stage, which overlap: encode 33.0, read 0.5."
    )
    assert TABLES["job"]([]) == ""


def test_the_endpoints_table_has_every_system_and_the_rounds_ratios():
    def cells(p50_ms: float, many: float) -> dict[str, dict[str, float]]:
        return {
            "1": {"p50_ms": p50_ms, "requests_per_s": 1.0, "p99_ms": 1.0},
            "16": {"p50_ms": 1.0, "requests_per_s": many / 2, "p99_ms": 1.0},
            "64": {"p50_ms": 1.0, "requests_per_s": many, "p99_ms": 1200.0},
        }

    summary = {
        "benchmark": "serve",
        "measures": "summary",
        "rounds": 3,
        "medians": {"a peer": cells(30.04, 60), "twofold": cells(9.96, 240), "echo": cells(1, 900)},
        "ratios": {"requests_per_s_at_64_to_a peer": {"median": 4.0, "range": [3.5, 4.25]}},
    }
    table = TABLES["endpoint"]([{**summary, "rounds": 1}, summary])
    assert [row.split(" | ")[0] for row in table.splitlines()[2:5]] == [
        "| an empty Serve application, same mode",
        "| twofold",
        "| a peer",
    ]
    assert "| twofold | 10.0 | 120 | 240 |" in table
    assert "queries arrive" not in table
    assert "median of 3 rounds" in table
    assert "- requests per s at 64 to a peer: 4.00 (3.50 to 4.25)" in table
    assert TABLES["endpoint"]([]) == ""


def test_the_endpoints_table_has_what_queries_took_that_arrive_at_a_rate():
    summary = {
        "benchmark": "serve",
        "measures": "summary",
        "rounds": 1,
        "medians": {"slow": {"64": {"requests_per_s": 9.0}}, "twofold": {}},
        "open_loop_medians": {
            "twofold": {
                "100": {"p50_ms": 8.25, "p99_ms": 19.0},
                "20": {"p50_ms": 6.5, "p99_ms": 15.75},
            },
            "slow": {"20": {"p50_ms": 18.0, "p99_ms": None}},
        },
        "ratios": {},
    }
    shown = TABLES["endpoint"]([summary])
    assert "| 20/s: p50 ms | 20/s: p99 ms | 100/s: p50 ms | 100/s: p99 ms |" in shown
    assert "| twofold | 6.5 | 15.8 | 8.2 | 19.0 |" in shown
    assert "| slow | 18.0 | - | - | - |" in shown


def closed_loop(system: str, requests: int, errors: int) -> dict[str, object]:
    figures = {"system": system, "engine": None, "requests": requests, "errors": errors}
    return {"benchmark": "serve", "measures": "closed loop", **figures}


def test_the_endpoints_table_says_what_failed_and_who_is_missing_and_how_busy_it_was():
    answered = {"p50_ms": 1.0, "requests_per_s": 5.0, "p99_ms": 1.0}
    summary = {
        "benchmark": "serve",
        "measures": "summary",
        "rounds": 1,
        "medians": {
            "twofold": {"1": answered},
            "a peer": {"1": answered, "64": {"p50_ms": None, "requests_per_s": None}},
        },
        "ratios": {},
        "left_out": {"infinity onnx": "make bench-peers"},
        "load_average_before": 1.5,
        "machine": {"cores": 2},
    }
    loops = [closed_loop("twofold", 10, 0), *(closed_loop("a peer", 1000, 30) for _ in range(2))]
    table = TABLES["endpoint"]([*loops, summary])
    assert "| twofold | 1.0 | - | - |" in table
    assert "| a peer | 1.0 | - | - |" in table
    assert "no figure counts: a peer 60 of 2,000.\n" in table
    assert "Left out: infinity onnx (make bench-peers)." in table
    assert table.endswith("Load average before the run: 1.5 on 2 cores.")


def test_the_traffic_table_says_what_was_refused_of_queries_and_of_documents():
    figures = {"requests_per_s": 90.0, "p50_ms": 10.0, "p99_ms": 20.0, "requests": 100}
    documents = {"documents_per_s": 64.0, "requests": 1000, "errors": 990}
    beside = {"document_connections": 4, **figures, "errors": 0, "documents": documents}
    lines = [
        {"measures": "rate", "share_of_knee": 0.9, **figures, "errors": 7},
        {"measures": "queries beside documents", **beside},
        {
            "measures": "traffic summary",
            "rounds": 1,
            "knee_connections": 64,
            "knee": {"requests_per_s": 100.0, "p99_ms": 30.0},
        },
    ]
    table = TABLES["traffic"]([{"benchmark": "serve", **line} for line in lines])
    assert "| 90% of the knee | 90 | 10 | 20 | 7% | - | - |" in table
    assert "| 25%, documents over 4 connections | 90 | 10 | 20 | 0% | 64 | 99% |" in table


def test_the_loops_table_compares_the_job_with_the_bare_loop():
    summary = {
        "benchmark": "embed",
        "measures": "summary",
        "runs": 5,
        "bare_tokens_per_s": 14_000.4,
        "bare_padding_waste": 0.026,
        "bare_peak_rss_bytes": 1_000_000_000,
        "job_tokens_per_s": 12_600.0,
        "job_padding_waste": 0.027,
        "job_actor_peak_rss_bytes": 1_100_000_000,
        "job_driver_peak_rss_bytes": 276_000_000,
        "job_to_bare": 0.9,
        "job_to_bare_range": [0.88, 0.95],
    }
    table = TABLES["loop"]([summary])
    assert "| the bare loop | 14,000 | 2.6% | 1,000 |" in table
    assert (
        "| the job, first to last commit | 12,600 | 2.7% | 1,100 (actor), 276 (driver) |" in table
    )
    assert table.endswith("median of the pairs: 0.90 (0.88 to 0.95).")
    assert TABLES["loop"]([]) == ""


def test_the_gpus_table_keeps_the_first_pass_apart_from_the_median_of_the_others():
    shared = {"benchmark": "gpu", "gpu": {"name": "a GPU"}, "machine": {"cores": 16}}

    def turn(number: int, tokens_per_s: float, cosine: float) -> dict[str, object]:
        return {
            "measures": "throughput",
            "system": "ours",
            "round": number,
            "tokens_per_s": tokens_per_s,
            "tflop_per_s": tokens_per_s / 10,
            "least_cosine": cosine,
            **shared,
        }

    def wait(system: str, queries: int, p50_ms: float) -> dict[str, object]:
        figures = {"system": system, "queries": queries, "p50_ms": p50_ms}
        return {"measures": "latency", **figures, **shared}

    lines = [
        turn(0, 100, 0.9999),
        *(turn(number, rate, 0.99995) for number, rate in enumerate((900, 1000, 1600), start=1)),
        {"measures": "limit", "tflop_per_s": 200, **shared},
        {"measures": "tokenizing", "tokens_per_s": 700, **shared},
        wait("twofold", 1, 5.0),
        wait("twofold, recorded", 1, 1.0),
        {
            "measures": "job",
            "documents": 9_000,
            "tokens_per_s": 800,
            "first_commit_s": 18,
            **shared,
        },
    ]

    table = TABLES["gpu"](lines)

    assert "| ours | 100 | 1,000 | 50% | 0.99990 |" in table
    assert "3 turns after the first pass" in table
    assert "1 query takes 1.0 ms, 5.0 ms where" in table
    assert "9,000 documents in one actor: 800 tokens/s" in table
    assert TABLES["gpu"]([]) == ""
