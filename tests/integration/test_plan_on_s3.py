"""`twofold plan` reads a bounded part of a corpus in an object store."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from encoder.settings import EncoderSettings
from pipelines.capacity.settings import PlanSettings
from pipelines.plan_capacity import plan_capacity
from support.lossy_proxy import LossyProxy
from support.s3_store import S3Store

pytestmark = pytest.mark.integration

ROWS = 40_000
_MIB = 2**20


def lines() -> bytes:
    """Return rows of 1 to 19 words that compress as prose does, not as one word does."""
    chooser = random.Random(0)
    words = [f"{chooser.randrange(16**6):x}" for _ in range(5_000)]
    rows = (
        {"id": str(n), "text": " ".join(chooser.choices(words, k=n % 19 + 1))} for n in range(ROWS)
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_documents_are_estimated_from_a_part_of_the_bytes(
    s3_store: S3Store,
    lossy_proxy: LossyProxy,
    fresh_clients: None,
    monkeypatch: pytest.MonkeyPatch,
    minilm: str,
    suffix: str,
):
    root = s3_store.fresh_prefix()
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    data = gzip.compress(lines()) if suffix.endswith(".gz") else lines()
    assert len(data) > 1.2 * _MIB
    s3_store.client().put_object(Bucket=bucket, Key=f"{prefix}/in/a.{suffix}", Body=data)
    monkeypatch.setenv("AWS_ENDPOINT_URL", lossy_proxy.endpoint)
    plan = plan_capacity(
        PlanSettings(
            input=(f"{root}/in",),
            encoder=EncoderSettings(model=minilm),
            gpus="1xL4",
            tokens_per_s=1e6,
            sample_bytes=_MIB,
            sample_documents=500,
        )
    )
    assert plan.input_bytes == len(data)
    assert not plan.sample.whole
    assert plan.sample.rows_read < ROWS
    assert plan.estimate.documents == pytest.approx(ROWS, rel=0.05)
    assert set(lossy_proxy.requests) <= {"GET", "HEAD"}
