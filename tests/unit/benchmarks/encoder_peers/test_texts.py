"""Texts are the same each time, as many as asked for, with the tokens they have."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest

from benchmarks.encoder_peers import texts
from benchmarks.encoder_peers.texts import KINDS, TextSet, load_texts
from benchmarks.models import minilm_folder
from encoder.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(minilm_folder() / "tokenizer.json", 256)


@pytest.fixture(scope="module")
def generated(tokenizer, tmp_path_factory) -> dict[str, TextSet]:
    absent = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        # A twentieth of what a benchmark chooses from; 2,000 tokens are of fewer texts still.
        patch.setattr(texts, "_MOST_TEXTS", 500)
        return {kind: load_texts(kind, absent, tokenizer, 2_000) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_without_data_sets_as_many_texts_are_generated_as_make_the_tokens(kind, generated):
    found = generated[kind]
    assert found.source == "generated"
    assert sum(found.lengths) >= 2_000 > sum(found.lengths[:-1])
    assert len(found.texts) == len(found.lengths)


def test_long_texts_fill_the_model_and_queries_do_not(generated):
    assert generated["long"].lengths == [256] * 8
    queries = generated["queries"].lengths
    assert 10 < sum(queries) / len(queries) < 25


def test_data_sets_are_read_where_they_are(tokenizer, tmp_path):
    (tmp_path / "debian").mkdir()
    with gzip.open(tmp_path / "debian" / "a.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps({"text": f"package {i}"}) + "\n" for i in range(9)))
    (tmp_path / "movie-reviews").mkdir()
    with zipfile.ZipFile(tmp_path / "movie-reviews" / "r.zip", "w") as archive:
        archive.writestr("neg/a.txt", "dull " * 300)
        archive.writestr("neg/README", "not a review")
    descriptions = load_texts("descriptions", tmp_path, tokenizer, 20)
    assert descriptions.source == "debian"
    assert set(descriptions.texts) < {f"package {i}" for i in range(9)}
    assert load_texts("long", tmp_path, tokenizer, 256).texts == ["dull " * 300]
    with pytest.raises(ValueError, match="expected 9,999 tokens of long, found 256"):
        load_texts("long", tmp_path, tokenizer, 9_999)


def test_the_first_texts_of_so_many_tokens_are_at_least_one_and_at_most_all(generated):
    long = generated["long"]
    assert [long.first(tokens) for tokens in (1, 256, 257, 99_999)] == [1, 1, 2, 8]
