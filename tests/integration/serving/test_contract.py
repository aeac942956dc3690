"""The same text and role give the same vector from `twofold embed` and from `twofold serve`.

And an endpoint that is told which corpus it serves refuses to start where they could not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from command_line.parse import parse_settings
from encoder.errors import SpaceMismatchError
from pipelines.embed_corpus import embed_corpus
from pipelines.settings import EmbedCorpusSettings
from serving.serve import main
from support.answers import assert_error
from support.endpoints import Endpoint, serving
from support.jobs import arguments, embed, error_lines
from support.models import minilm_folder
from support.outputs import OutputFolder
from support.processes import run_module

pytestmark = pytest.mark.integration

POOLINGS = ("--query-pooling", "mean", "--document-pooling", "cls")
TEXTS = {
    "plain": "How do I reset my password?",
    "odd": "Ünïcödé naïve façade; 東京 に 行く; שלום; 🙂",
    "code": "def f(x): return x**2  # 3.14 <tag> [SEP] [MASK]",
    "long": "This goes on, and is cut where the model's patience ends. " * 80,
    **{f"{n}": f"Row {n} says {'this and ' * n}that." for n in range(20)},
}
MIN_COSINE = 0.9999


@pytest.fixture(scope="module")
def corpora(
    tmp_path_factory: pytest.TempPathFactory, minilm: str, on_session_cluster: dict[str, str]
) -> dict[str, OutputFolder]:
    """The texts as `twofold embed` writes them, once for each role.

    Documents by the command; queries by the same job in this process: one start of Python less.
    """
    folder = tmp_path_factory.mktemp("contract")
    rows = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in TEXTS.items())
    (folder / "texts.jsonl").write_text(rows)
    more = [*POOLINGS, "--backend", "auto", "--role"]
    finished = embed(
        folder,
        folder / "texts.jsonl",
        folder / "document",
        minilm,
        *more,
        "document",
        environment=on_session_cluster,
    )
    assert finished.returncode == 0, finished.stderr
    given = [*arguments(folder / "texts.jsonl", folder / "query", minilm), *more, "query"]
    settings = parse_settings(EmbedCorpusSettings, given, prog="twofold embed", description="")
    embed_corpus(settings)
    return {role: OutputFolder(folder / role) for role in ("document", "query")}


@pytest.fixture(scope="module")
def on_session_cluster(ray_cluster: None) -> dict[str, str]:
    """What a command needs to run on the session's Ray, which is there already."""
    import ray

    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@pytest.fixture(scope="module")
def beside_corpus(
    corpora: dict[str, OutputFolder], minilm: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """An endpoint that was told which corpus it serves, with the settings it was embedded with."""
    folder = tmp_path_factory.mktemp("beside")
    corpus = corpora["document"].uri
    with serving(folder, *POOLINGS, "--corpus", corpus, model=minilm) as endpoint:
        yield endpoint


def ask(endpoint: Endpoint, role: str) -> httpx.Response:
    body = {"input": list(TEXTS.values()), "input_type": role}
    return httpx.post(f"{endpoint.url}/v1/embeddings", json=body, timeout=60)


@pytest.mark.parametrize("role", ["document", "query"])
def test_offline_and_online_give_the_same_vectors_in_the_same_space(beside_corpus, corpora, role):
    answer = ask(beside_corpus, role)

    assert answer.status_code == 200, answer.text
    online = np.array([item["embedding"] for item in answer.json()["data"]])
    stored = corpora[role].vectors()
    assert set(stored) == set(TEXTS)
    offline = np.array([stored[name] for name in TEXTS])
    cosines = np.sum(online * offline, axis=1)
    assert cosines.min() >= MIN_COSINE, dict(zip(TEXTS, cosines, strict=True))
    space = corpora[role].json("_space.json")
    assert answer.headers["x-embedding-space"] == space["fingerprint"]
    assert answer.headers["x-embedding-role"] == role


def test_the_two_roles_are_told_apart_by_this_test(beside_corpus, corpora):
    """Otherwise the contract would hold for an endpoint that mixes the roles up."""
    online = np.array([item["embedding"] for item in ask(beside_corpus, "query").json()["data"]])
    documents = corpora["document"].vectors()
    offline = np.array([documents[name] for name in TEXTS])
    assert np.sum(online * offline, axis=1).max() < 0.99


def test_what_was_cut_offline_is_cut_online(beside_corpus, corpora):
    receipts = [item["truncated"] for item in ask(beside_corpus, "document").json()["data"]]
    stored = {}
    for name in corpora["document"].names():
        table = corpora["document"].table(name)
        stored.update(zip(table["id"].to_pylist(), table["truncated"].to_pylist(), strict=True))
    assert receipts == [stored[name] for name in TEXTS]
    assert any(receipts)


def test_vectors_that_could_not_be_compared_with_the_corpus_are_refused(beside_corpus):
    body = {"input": "a text", "dimensions": 64}
    answer = httpx.post(f"{beside_corpus.url}/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert_error(answer.content, 400, "dimensions: expected 384, the corpus' own, found 64")


def test_info_names_the_corpus_and_its_space(beside_corpus, corpora):
    info = httpx.get(f"{beside_corpus.url}/info").json()
    space = corpora["document"].json("_space.json")
    assert info["corpus"] == corpora["document"].uri
    assert info["embedding_space"] == {"fingerprint": space["fingerprint"], **space["space"]}


@pytest.mark.slow
def test_a_worker_that_computes_other_vectors_of_the_same_files_ends_the_job(
    corpora, minilm, tmp_path
):
    """Half the heads: a field of config.json that neither weights nor settings know."""
    edited = shutil.copytree(minilm_folder(), tmp_path / "edited")
    config = json.loads((edited / "config.json").read_text())
    (edited / "config.json").write_text(json.dumps({**config, "num_attention_heads": 6}))
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "new", "text": "a text that is not in it"}) + "\n")
    corpus = corpora["document"]
    given = [*arguments(more, corpus.uri, edited), *POOLINGS, "--backend", "auto"]
    settings = parse_settings(EmbedCorpusSettings, given, prog="twofold embed", description="")
    before = corpus.names()

    with pytest.raises(
        SpaceMismatchError, match=f"computes other vectors .* wrote {corpus.uri}/_probe"
    ):
        embed_corpus(settings)
    assert corpus.names() == before


def test_another_pooling_than_the_corpus_is_refused_with_both_values(
    corpora, minilm, tmp_path, capfd
):
    corpus = corpora["document"].uri
    other = ["--query-pooling", "cls", "--document-pooling", "cls"]

    code = main(["--model", minilm, *other, "--corpus", corpus])

    [said] = error_lines(capfd.readouterr().err)
    assert code == 3
    assert 'query: corpus {"pooling": "mean", "prompt": ""}, here {"pooling": "cls"' in said
    assert "document: " not in said, "it differs in one field only"


def test_a_folder_that_is_no_corpus_is_refused(minilm, tmp_path, capfd):
    code = main(["--model", minilm, *POOLINGS, "--corpus", str(tmp_path)])

    [said] = error_lines(capfd.readouterr().err)
    assert code == 2
    assert f"{tmp_path} is no corpus: expected _space.json" in said


def test_a_model_that_is_not_there_ends_the_command_with_one_line(tmp_path):
    finished = run_module(tmp_path, "twofold", "serve", "--model", "package:no_such_package")

    assert finished.returncode == 4
    assert finished.stderr.startswith("twofold: error: ")
    assert len(finished.stderr.splitlines()) == 1, finished.stderr
    assert "no_such_package" in finished.stderr
    assert "Traceback" not in finished.stderr
