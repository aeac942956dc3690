"""What the lines of `encode`, `limit` and `job` say together. Pure arithmetic.

Ratios are medians over turns of the ratio within a turn, never of medians: a machine that slows
down slows all systems of a turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.lines import Line

__all__ = [
    "OUR_ENCODERS",
    "OUR_JOB",
    "Cell",
    "JobResult",
    "encoder_cells",
    "job_results",
    "latency_cells",
    "limits",
]

OUR_ENCODERS = ("twofold-openvino-bfloat16", "twofold-openvino-float32")
"""What a user of this project gets on a CPU with bfloat16, or else without: what others are
compared with."""
OUR_JOB = "twofold"


@dataclass(frozen=True)
class Cell:
    """One system on one model and one kind of texts, over all turns.

    Attributes:
        model: Name of the model.
        texts: Kind of the texts.
        documents: How many there were for those that got all of them; 0 where no line says it.
        system: Name of the system.
        title: Product with its version, engine and precision.
        value: Median: tokens/s, or the milliseconds of a lone query at p50.
        turns: How many turns.
        ours_to_it: Ours over it (tokens/s) or it over ours (milliseconds): above 1 we are faster.
        share_of_limit: Of the GEMM rate measured in the same turn, at this precision.
        least_cosine: To the model card in float32; None where it was not compared.
    """

    model: str
    texts: str
    documents: int
    system: str
    title: str
    value: float
    turns: int
    ours_to_it: float | None
    share_of_limit: float | None = None
    least_cosine: float | None = None


@dataclass(frozen=True)
class JobResult:
    """One system's job of one size in one place, over all turns.

    Attributes:
        model: Name of the model.
        place: "local" or "s3".
        system: Name of the system.
        title: With its version.
        documents: Of the larger run.
        turns: How many there were.
        start_s: Median seconds of the run of a few documents.
        wall_tokens_per_s: Median of the larger run, start included.
        marginal_tokens_per_s: Median of what more documents cost.
        ours_to_it_wall: Ratio of the former; None where ours was not measured.
        ours_to_it_marginal: Ratio of the latter.
    """

    model: str
    place: str
    system: str
    title: str
    documents: int
    turns: int
    start_s: float
    wall_tokens_per_s: float
    marginal_tokens_per_s: float
    ours_to_it_wall: float | None
    ours_to_it_marginal: float | None


@dataclass
class _Turns:
    """The lines of one cell by turn, and the limit of each turn."""

    lines: dict[int, Line] = field(default_factory=dict)
    limits: dict[int, dict[str, float]] = field(default_factory=dict)


def limits(lines: Iterable[Line]) -> dict[int, dict[str, float]]:
    """Return the median best GFLOP/s by precision, by linear FLOPs of a token."""
    found: dict[int, dict[str, list[float]]] = {}
    for line in lines:
        if (line["benchmark"], line["measures"]) == ("limit", "best"):
            rates = found.setdefault(round(line["linear_mflop_per_token"] * 1e6), {})
            for dtype, rate in line["gflop_per_s"].items():
                rates.setdefault(dtype, []).append(rate)
    return {
        flops: {dtype: statistics.median(each) for dtype, each in rates.items()}
        for flops, rates in sorted(found.items())
    }


def encoder_cells(lines: Iterable[Line]) -> list[Cell]:
    """Return every cell of throughput, in the order in which they were first measured."""
    return _cells(lines, "throughput", "tokens_per_s", larger_is_faster=True)


def latency_cells(lines: Iterable[Line]) -> list[Cell]:
    """Return every cell of lone queries, in the order in which they were first measured."""
    return _cells(lines, "latency", "p50_ms", larger_is_faster=False)


def _cells(
    lines: Iterable[Line], measures: str, name: str, *, larger_is_faster: bool
) -> list[Cell]:
    turns = _by_cell(lines, measures)
    cells = []
    for (model, texts, documents, system), mine in turns.items():
        present = (
            turns[key] for name in OUR_ENCODERS if (key := (model, texts, documents, name)) in turns
        )
        ours = next(present, _Turns()).lines
        ratios = [
            ours[turn][name] / line[name] if larger_is_faster else line[name] / ours[turn][name]
            for turn, line in mine.lines.items()
            if turn in ours
        ]
        shares = [
            line["gflop_per_s"] / mine.limits[turn][line["dtype"]]
            for turn, line in mine.lines.items()
            if line["dtype"] in mine.limits.get(turn, {}) and "gflop_per_s" in line
        ]
        cosines = [line["least_cosine"] for line in mine.lines.values() if "least_cosine" in line]
        cells.append(
            Cell(
                model=model,
                texts=texts,
                documents=documents,
                system=system,
                title=_title(next(iter(mine.lines.values()))),
                value=statistics.median(line[name] for line in mine.lines.values()),
                turns=len(mine.lines),
                ours_to_it=statistics.median(ratios) if ratios else None,
                share_of_limit=statistics.median(shares) if shares else None,
                least_cosine=min(cosines) if cosines else None,
            )
        )
    return cells


def _by_cell(lines: Iterable[Line], measures: str) -> dict[tuple[str, str, int, str], _Turns]:
    """Sort lines by cell and turn; a turn begins where a round's limit was measured.

    Turns of more documents are cells of their own: with more of them, batches pad less.
    """
    turns: list[tuple[dict[str, float], list[Line]]] = []
    for line in lines:
        if (line["benchmark"], line["measures"]) == ("limit", "best"):
            turns.append((line["gflop_per_s"], []))
        elif (line["benchmark"], line["measures"]) == ("encode", measures):
            if not turns:
                turns.append(({}, []))
            turns[-1][1].append(line)
    found: dict[tuple[str, str, int, str], _Turns] = {}
    for number, (limit, cells) in enumerate(turns):
        most: dict[tuple[str, str], int] = {}
        for line in cells:
            kind = line["model_name"], line["texts"]
            # The model card gets a part of them.
            most[kind] = max(most.get(kind, 0), line.get("documents", 0))
        for line in cells:
            kind = line["model_name"], line["texts"]
            cell = found.setdefault((*kind, most[kind], line["system"]), _Turns())
            cell.lines[number] = line
            cell.limits[number] = limit
    return found


def _title(line: Line) -> str:
    versions = line["versions"]
    version = versions.get(line["product"]) or versions.get(f"{line['product']}-emb")
    product = " ".join(filter(None, (line["product"], version)))
    dtype = "" if line["dtype"] == "default" else f" {line['dtype']}"
    return f"{product}, {line['engine']}{dtype}"


def job_results(lines: Sequence[Line]) -> list[JobResult]:
    """Return every job's result, in the order in which they were first measured.

    What has one model, one place and one number of documents is compared with each other.
    """
    jobs = [line for line in lines if line["benchmark"] == "job"]
    groups: dict[tuple[str, str, int], list[Line]] = {}
    for line in jobs:
        if line["measures"] == "rate":
            key = (line["model_name"], line["place"], line["documents"])
            groups.setdefault(key, []).append(line)
    results = []
    for (model, place, documents), rates in groups.items():
        of_size = [
            line
            for line in jobs
            if line["measures"] == "run"
            and (line["model_name"], line["place"], line["documents"]) == (model, place, documents)
        ]
        wall = _by_turn(of_size, "wall_tokens_per_s")
        marginal = _by_turn(rates, "marginal_tokens_per_s")
        for system in dict.fromkeys(line["system"] for line in rates):
            runs = _runs(jobs, model, place, system)
            few = min(line["documents"] for line in runs)
            start = [line["wall_s"] for line in runs if line["documents"] == few]
            results.append(
                JobResult(
                    model=model,
                    place=place,
                    system=system,
                    title=_job_title(system, runs[0]["versions"]),
                    documents=documents,
                    turns=len(_of_system(marginal, system)),
                    start_s=statistics.median(start),
                    wall_tokens_per_s=statistics.median(_of_system(wall, system)),
                    marginal_tokens_per_s=statistics.median(_of_system(marginal, system)),
                    ours_to_it_wall=_median_ratio(wall, system),
                    ours_to_it_marginal=_median_ratio(marginal, system),
                )
            )
    return results


def _runs(jobs: Iterable[Line], model: str, place: str, system: str) -> list[Line]:
    return [
        line
        for line in jobs
        if line["measures"] == "run"
        and (line["model_name"], line["place"], line["system"]) == (model, place, system)
    ]


def _by_turn(lines: Iterable[Line], name: str) -> list[dict[str, float]]:
    """Return each turn's figure by system; a turn ends with its round, or with its run.

    Lines of several runs stand one after the other, and a run that failed has no last turn.
    """
    turns: list[dict[str, float]] = []
    current: int | None = None
    for line in lines:
        if not turns or line["round"] != current or line["system"] in turns[-1]:
            turns.append({})
            current = line["round"]
        turns[-1][line["system"]] = line[name]
    return turns


def _of_system(turns: Iterable[Mapping[str, float]], system: str) -> list[float]:
    return [turn[system] for turn in turns if system in turn]


def _median_ratio(turns: Iterable[Mapping[str, float]], system: str) -> float | None:
    ratios = [turn[OUR_JOB] / turn[system] for turn in turns if turn.keys() >= {OUR_JOB, system}]
    return statistics.median(ratios) if ratios else None


def _job_title(system: str, versions: dict[str, str]) -> str:
    library = f"sentence-transformers {versions.get('sentence-transformers', '')}".strip()
    titles = {
        "ray-data": f"Ray Data and {library}",
        "multi-process": f"{library}, pool of processes",
    }
    return titles.get(system, system)
