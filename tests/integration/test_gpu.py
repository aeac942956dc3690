"""On a CUDA device: the CPU's vectors, recorded forwards, memory that runs out, a whole job.

`pytest -m gpu` runs these; the suite leaves them out, since few machines have one.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.encoder import Encoder, load_encoder
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.space import Role
from support.jobs import MODULE
from support.processes import run_module

pytestmark = [
    pytest.mark.integration,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WORDS = ["the", "of", "a", "model", "vector", "query", "document", "answer", "network", "seven"]


def texts(count: int, longest: int = 300) -> list[str]:
    chosen = np.random.default_rng(0)
    lengths = np.exp(chosen.uniform(0, np.log(longest), count)).astype(int)
    return [" ".join(chosen.choice(WORDS, length)) for length in lengths]


def roles(count: int) -> list[Role]:
    return [(Role.QUERY, Role.DOCUMENT)[number % 2] for number in range(count)]


def vectors(encoder: Encoder, given: list[str]) -> np.ndarray:
    tokenized = encoder.tokenize(given, Role.QUERY)
    return encoder.encode_tokenized(tokenized, roles(len(given))).vectors


def lowest(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found * expected).sum(axis=1).min())


@pytest.fixture(scope="module")
def on_cpu(noinstruct_model: Path) -> Iterator[Encoder]:
    encoder = load_encoder(
        EncoderSettings(
            model=str(noinstruct_model),
            backend=BackendName.TORCH,
            dtype=DtypeName.FLOAT32,
            device="cpu",
        )
    )
    yield encoder
    encoder.close()


def on_gpu(model: Path, **more: object) -> Encoder:
    return load_encoder(EncoderSettings(model=str(model), **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "bar"), [("auto", 0.999), ("float16", 0.999), ("float32", 0.99999)]
)
def test_vectors_are_those_of_the_cpu_in_float32(
    noinstruct_model: Path, on_cpu: Encoder, dtype: str, bar: float
) -> None:
    encoder = on_gpu(noinstruct_model, dtype=DtypeName(dtype))
    given = texts(200)

    assert encoder.provenance["device"].startswith("cuda")
    mixed = encoder.encode_tokenized(encoder.tokenize(given, Role.QUERY), roles(len(given)))
    has_padding = mixed.padded_tokens > encoder.tokenize(given, Role.QUERY).total_tokens
    assert has_padding == (dtype == "float32")
    assert lowest(vectors(encoder, given), vectors(on_cpu, given)) >= bar
    documents = encoder.encode_documents(given)
    assert lowest(documents, on_cpu.encode_documents(given)) >= bar


def test_recorded_forwards_give_the_vectors_of_the_others(
    noinstruct_model: Path, on_cpu: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    # Small forwards one after the other: each graph is replayed while others are under way.
    encoder = on_gpu(noinstruct_model, max_batch_tokens=256)
    with caplog.at_level("WARNING"):
        encoder.expect_short_texts()
    assert "not recorded" not in caplog.text

    for count in (1, 2, 5, 40, 200, 1, 700, 3):
        given = texts(count, longest=30)
        assert lowest(vectors(encoder, given), vectors(on_cpu, given)) >= 0.999
    long = texts(40)
    assert lowest(vectors(encoder, long), vectors(on_cpu, long)) >= 0.999


@contextmanager
def memory_left(mebibytes: int) -> Iterator[None]:
    """Allow this process so much more memory than it has."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + mebibytes * 2**20
    try:
        torch.cuda.set_per_process_memory_fraction(allowed / total)
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_runs_out_costs_batches_in_halves_and_no_row(
    noinstruct_model: Path, on_cpu: Encoder
) -> None:
    given = texts(1_500)
    encoder = on_gpu(noinstruct_model, max_batch_tokens=1_000_000)
    with memory_left(200):
        found = vectors(encoder, given)

    assert encoder.max_batch_tokens < 1_000_000
    assert lowest(found, vectors(on_cpu, given)) >= 0.999


def test_the_budget_is_what_fits_in_memory(noinstruct_model: Path) -> None:
    with memory_left(600):
        small = on_gpu(noinstruct_model).max_batch_tokens

    assert small < on_gpu(noinstruct_model).max_batch_tokens


@pytest.mark.parametrize("share", ["1", "0.5"])
def test_a_job_embeds_on_the_gpu_and_its_output_verifies(
    tmp_path: Path, noinstruct_model: Path, share: str
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(4):
        lines = [
            json.dumps({"id": f"{number}-{row}", "text": text})
            for row, text in enumerate(texts(500))
        ]
        (source / f"{number}.jsonl").write_text("\n".join(lines))

    done = run_module(
        tmp_path,
        MODULE,
        *("--input", str(source), "--output", str(output), "--model", str(noinstruct_model)),
        *("--num-gpus-per-actor", share, "--rows-per-shard", "200"),
        timeout_s=180,
    )
    assert done.returncode == 0, done.stderr

    report = json.loads((output / "_report.json").read_text())
    assert report["rows"] == 2_000
    assert report["provenance"]["device"].startswith("cuda")
    checked = run_module(
        tmp_path, "pipelines.verify", "--output", str(output), "--sample", "50", timeout_s=180
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
