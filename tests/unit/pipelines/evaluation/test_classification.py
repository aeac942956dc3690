"""A classifier on vectors: mteb's protocol, on local files."""

from __future__ import annotations

import json
import warnings

import pytest
from datasets.arrow_dataset import Column

from encoder.errors import InvalidInputError
from encoder.space import Role
from pipelines.evaluation import classification
from pipelines.evaluation.classification import (
    METRICS,
    ClassificationSettings,
    LabelledTexts,
    Protocol,
    measure_classification,
    read_labelled,
)
from support.fake_encoder import FakeEncoder

DATA = ("train.csv", "test.csv")


def labelled(count: int, labels: int, word: str) -> LabelledTexts:
    """Texts of equal words, a few different ones to each label: something can be learned."""
    return LabelledTexts(
        [f"{word} {index % labels} {index % 5}" for index in range(count)],
        [f"label {index % labels}" for index in range(count)],
    )


def mtebs_scores(train: LabelledTexts, test: LabelledTexts) -> dict[str, float]:
    import mteb
    from datasets import Dataset, DatasetDict

    from pipelines.evaluation.mteb_encoder import MtebEncoder

    number = {label: index for index, label in enumerate(sorted(set(train.labels)))}
    task = mteb.get_task("Banking77Classification")
    task.dataset = DatasetDict(
        {
            name: Dataset.from_dict(
                {"text": part.texts, "label": [number[label] for label in part.labels]}
            )
            for name, part in (("train", train), ("test", test))
        }
    )
    task.data_loaded = True
    return task.evaluate(MtebEncoder(FakeEncoder()), "test", encode_kwargs={})["default"]


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.filterwarnings(
    # mteb lets scikit-learn warn of labels that are never predicted; ours says zero_division=0.
    "ignore:Precision is ill-defined:sklearn.exceptions.UndefinedMetricWarning"
)
def test_figures_are_those_of_mtebs_own_task(labels):
    train, test = labelled(200, labels, "word"), labelled(60, labels, "word")
    theirs = mtebs_scores(train, test)
    ours = measure_classification(train, test, FakeEncoder(), Protocol(), DATA)
    names = [name for name in ours.metrics if name != "accuracy_std"]
    assert ("ap" in names) == (labels == 2)
    assert {name: ours.metrics[name] for name in names} == pytest.approx(
        {name: theirs[name] for name in names}, abs=1e-9
    )
    assert [one["accuracy"] for one in ours.details] == pytest.approx(
        [one["accuracy"] for one in theirs["scores_per_experiment"]], abs=1e-9
    )


def test_the_protocol_says_how_many_texts_are_drawn_how_often_and_which():
    train, test = labelled(200, 3, "word"), labelled(60, 3, "word")

    def measured(**protocol):
        return measure_classification(train, test, FakeEncoder(), Protocol(**protocol), DATA)

    found = measured(samples_per_label=4, experiments=2)
    assert len(found.details) == 2
    assert measured(samples_per_label=4, experiments=1).counts["training texts drawn"] == 3 * 4
    assert measured(samples_per_label=4, experiments=2).details == found.details
    assert measured(samples_per_label=4, experiments=2, seed=7).details != found.details


def test_labels_are_not_read_one_by_one(monkeypatch):
    """By each metric of each experiment, a row of a file each."""
    read = Column.__getitem__

    def checked(column, key):
        assert column.column_name != "label" or not isinstance(key, int)
        return read(column, key)

    monkeypatch.setattr(Column, "__getitem__", checked)
    train, test = labelled(60, 3, "word"), labelled(30, 3, "word")
    assert measure_classification(train, test, FakeEncoder(), Protocol(), DATA).details


def test_a_warning_of_the_encoder_is_shown():
    class Warner(FakeEncoder):
        def encode(self, texts, role):
            warnings.warn("a device is hot", RuntimeWarning, stacklevel=1)
            return super().encode(texts, role)

    train, test = labelled(60, 3, "word"), labelled(30, 3, "word")
    with pytest.warns(RuntimeWarning, match="a device is hot"):
        measure_classification(train, test, Warner(), Protocol(), DATA)


def test_texts_are_documents():
    roles = []

    class Recorder(FakeEncoder):
        def encode(self, texts, role):
            roles.append(role)
            return super().encode(texts, role)

    train = labelled(40, 2, "word")
    measure_classification(train, train, Recorder(), Protocol(), DATA)
    assert set(roles) == {Role.DOCUMENT}


def test_labels_with_too_few_texts_and_fits_that_did_not_converge_are_counted(monkeypatch):
    from sklearn.linear_model import LogisticRegression

    from pipelines.evaluation.local_tasks import LabelledTextsTask

    monkeypatch.setattr(LabelledTextsTask, "evaluator_model", LogisticRegression(max_iter=1))
    train = LabelledTexts(["a", "b", "c", "d"], ["x", "x", "x", "y"])
    protocol = Protocol(samples_per_label=2, experiments=3)
    counts = measure_classification(train, train, FakeEncoder(), protocol, DATA).counts
    assert counts["labels with too few training texts"] == 1
    assert counts["fits stopped before converging"] == 3


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["x", "x"], ["x"], "expected two labels or more in train.csv, found one, 'x'"),
        (["x", "y"], ["x", "z"], "only labels of train.csv in test.csv, found 1 others, .* 'z'"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused_before_anything_is_embedded(
    train, test, message
):
    with pytest.raises(InvalidInputError, match=message):
        measure_classification(
            LabelledTexts(list("ab"), train),
            LabelledTexts(list("ab"), test) if len(test) == 2 else LabelledTexts(["a"], test),
            None,
            Protocol(),
            DATA,
        )


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_two_of_three_labels_are_judged_without_what_only_two_labels_have(pair):
    train = labelled(60, 3, "word")
    judged = [index for index in range(60) if index % 3 in pair]
    test = LabelledTexts(
        [train.texts[index] for index in judged], [train.labels[index] for index in judged]
    )
    found = measure_classification(train, test, FakeEncoder(), Protocol(), DATA)
    assert set(found.metrics) == {*METRICS, "accuracy_std"}


def test_texts_and_labels_are_read_from_the_columns_that_are_named(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("kind,id,said\ngreeting,1,hello\nfarewell,2,bye\n", encoding="utf-8")
    settings = ClassificationSettings(
        train=str(file), test=str(file), text_column="said", label_column="kind"
    )
    expected = LabelledTexts(["hello", "bye"], ["greeting", "farewell"])
    assert read_labelled(str(file), settings) == expected


@pytest.mark.parametrize("row", ["  ,greeting", "hello,"])
def test_an_empty_text_or_label_is_refused_with_its_line(tmp_path, row):
    file = tmp_path / "train.csv"
    file.write_text(f"text,label\nhello,greeting\n{row}\n", encoding="utf-8")
    settings = ClassificationSettings(train=str(file), test=str(file))
    with pytest.raises(InvalidInputError, match=r"found an empty one in .*line 3"):
        read_labelled(str(file), settings)


def test_the_command_prints_writes_and_compares(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(classification, "load_encoder", lambda settings: FakeEncoder())
    texts = labelled(60, 3, "word")
    file = tmp_path / "texts.csv"
    rows = [f"{text},{label}" for text, label in zip(texts.texts, texts.labels, strict=True)]
    file.write_text("\n".join(["text,category", *rows]), encoding="utf-8")
    result = tmp_path / "result.json"
    arguments = ["--train", str(file), "--test", str(file), "--label-column", "category"]
    assert classification.main([*arguments, "--json", str(result), "--experiments", "2"]) == 0
    content = json.loads(result.read_text())
    assert set(content["metrics"]) == {*METRICS, "accuracy_std"}
    assert len(content["details"]) == 2
    assert "accuracy" in capsys.readouterr().out
    assert classification.main([*arguments, "--expect", "accuracy=2"]) == 8
    monkeypatch.setattr(classification, "load_encoder", None)  # a wrong one is told before
    assert classification.main([*arguments, "--expect", "ap=0.5"]) == 2
    two = tmp_path / "two.csv"
    two.write_text("\n".join(["text,category", *rows[:2]]), encoding="utf-8")
    of_two = ["--train", str(file), "--test", str(two), "--label-column", "category"]
    assert classification.main([*of_two, "--expect", "ap=0.5"]) == 2
