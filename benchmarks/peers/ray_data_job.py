"""Embed Parquet files with Ray Data and Sentence Transformers, as one writes it today.

    python benchmarks/peers/ray_data_job.py MODEL INPUT OUTPUT ACTORS

Ray's own example of batch inference: read_parquet, an actor pool that holds the model,
write_parquet. Runs in an environment of its own (see sentence-transformers.txt). INPUT and OUTPUT
are folders or s3:// URIs.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import ray
from sentence_transformers import SentenceTransformer
from stores import filesystem


class Embedder:
    """One actor's model."""

    def __init__(self, model: str, threads: int) -> None:
        import torch

        # Ray sets OMP_NUM_THREADS to an actor's CPUs; said once more, so that it is sure.
        torch.set_num_threads(threads)
        self.model = SentenceTransformer(model, device="cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add a batch's vectors."""
        batch["embedding"] = self.model.encode(list(batch["text"]), show_progress_bar=False)
        del batch["text"]
        return batch


def main(model: str, source: str, output: str, actors: int) -> None:
    """Run the job."""
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    source, store = filesystem(source)
    texts = ray.data.read_parquet(source, filesystem=store)
    vectors = texts.map_batches(
        Embedder,
        fn_constructor_args=(model, max(1, cores // actors)),
        compute=ray.data.ActorPoolStrategy(size=actors),
        # All but one: reading and writing are tasks, which need a CPU of their own.
        num_cpus=max(1, cores // actors - 1),
        batch_size=1024,
    )
    output, store = filesystem(output)
    vectors.write_parquet(output, filesystem=store)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
