"""Correlations with people's ratings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encoder.errors import InvalidInputError
from encoder.space import Role
from pipelines.evaluation import sts
from pipelines.evaluation.sts import METRICS, RatedPairs, StsSettings, measure_sts, read_pairs
from support.fake_encoder import FakeEncoder

PAIRS = RatedPairs(
    [f"first {number}" for number in range(20)],
    [f"second {number % 7} {number}" for number in range(20)],
    [number % 6 for number in range(20)],
)


def benchmark_line(rating: str, sentence1: str, sentence2: str, *more: str) -> str:
    return "\t".join(
        ["main-news", "MSRpar", "2012test", "0001", rating, sentence1, sentence2, *more]
    )


def written(folder: Path, *lines: str) -> StsSettings:
    file = folder / "pairs.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return StsSettings(pairs=str(file))


def test_the_sts_benchmarks_layout_is_the_default(tmp_path):
    settings = written(
        tmp_path,
        benchmark_line("2.500", 'A "girl" is styling', "A girl"),
        benchmark_line("5", "a", "b", "http://source", "http://source"),
    )
    assert read_pairs(settings) == RatedPairs(
        ['A "girl" is styling', "a"], ["A girl", "b"], [2.5, 5.0]
    )


def test_other_layouts_are_named_by_their_columns(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text('left,right,score\n"a, b",c,0\nd,e,1\n', encoding="utf-8")
    settings = StsSettings(
        pairs=str(file), columns="left,right,score", separator="comma", quoted=True
    )
    assert read_pairs(settings) == RatedPairs(["a, b", "d"], ["c", "e"], [0.0, 1.0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (benchmark_line("high", "a", "b"), "expected a number as rating, found 'high' in .*line 2"),
        (benchmark_line("nan", "a", "b"), "expected a number as rating, found 'nan' in .*line 2"),
        (benchmark_line("1", " ", "b"), "expected two sentences, found an empty one in .*line 2"),
        (benchmark_line("3", "a", "b"), "found one rating, 3, .*nothing correlates"),
    ],
)
def test_pairs_that_cannot_be_rated_are_refused_in_one_line(tmp_path, line, message):
    settings = written(tmp_path, benchmark_line("3", "a", "b"), line)
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_pairs(settings)
    assert "\n" not in str(caught.value)


def test_other_than_three_columns_are_refused(capsys):
    assert sts.main(["--pairs", "pairs.csv", "--columns", "left,right"]) == 2
    assert "--columns: expected three columns, found 2: left, right" in capsys.readouterr().err


def test_both_sentences_are_documents():
    roles = []

    class Recorder(FakeEncoder):
        def encode(self, texts, role):
            roles.append(role)
            return super().encode(texts, role)

    measure_sts(PAIRS, Recorder(), "pairs")
    assert set(roles) == {Role.DOCUMENT}


def test_figures_are_those_of_mtebs_own_task(tmp_path):
    import mteb
    from datasets import Dataset, DatasetDict

    from pipelines.evaluation.mteb_encoder import MtebEncoder

    task = mteb.get_task("BIOSSES")
    task.dataset = DatasetDict(
        {
            "test": Dataset.from_dict(
                {
                    "sentence1": PAIRS.sentences1,
                    "sentence2": PAIRS.sentences2,
                    "score": PAIRS.ratings,
                }
            )
        }
    )
    task.data_loaded = True
    theirs = task.evaluate(MtebEncoder(FakeEncoder()), "test", encode_kwargs={})["default"]
    ours = measure_sts(PAIRS, FakeEncoder(), "pairs").metrics
    assert ours == pytest.approx({metric: theirs[metric] for metric in METRICS}, abs=1e-9)


def test_truncated_sentences_are_counted():
    long = " ".join(map(str, range(9)))
    pairs = RatedPairs(["a", long], ["b", long], [0.0, 1.0])
    assert measure_sts(pairs, FakeEncoder(), "pairs").counts["sentences truncated"] == 2


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command on four pairs, with an encoder that knows what they mean."""
    monkeypatch.setattr(sts, "load_encoder", lambda settings: FakeEncoder())
    settings = written(
        tmp_path,
        *(benchmark_line(str(index), f"a {index}", f"b {index % 3}") for index in range(9)),
    )

    def run(*arguments: str) -> int:
        return sts.main(["--pairs", settings.pairs, *arguments])

    return run


def test_the_figures_are_printed_and_written(command, tmp_path, capsys):
    file = tmp_path / "figures" / "sts.json"
    assert command("--json", str(file)) == 0
    content = json.loads(file.read_text())
    assert set(content["metrics"]) == set(METRICS)
    assert content["counts"]["pairs"] == 9
    assert content["model"]["space"] == FakeEncoder().space.fingerprint
    assert f"{content['metrics']['cosine_spearman']:.5f}" in capsys.readouterr().out


def test_a_figure_that_is_not_as_expected_ends_with_8_after_it_was_written(
    command, tmp_path, capsys
):
    file = tmp_path / "sts.json"
    assert command("--json", str(file), "--expect", "cosine_spearman=2", "--tolerance", "0.5") == 8
    assert "expected cosine_spearman 2 within 0.5, found" in capsys.readouterr().err
    assert file.exists()


def test_an_expectation_of_an_unknown_metric_is_refused_before_the_model_is_loaded(
    command, monkeypatch
):
    monkeypatch.setattr(sts, "load_encoder", None)
    assert command("--expect", "ndcg=1") == 2


def test_a_missing_file_ends_with_the_exit_code_of_sources(monkeypatch, capsys):
    monkeypatch.setattr(sts, "load_encoder", None)
    assert sts.main(["--pairs", "nowhere.csv"]) == 5
    assert capsys.readouterr().err.count("\n") == 1
