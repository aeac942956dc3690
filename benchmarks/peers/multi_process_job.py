"""Embed Parquet files with Sentence Transformers' own pool of processes, without Ray.

    python benchmarks/peers/multi_process_job.py MODEL INPUT OUTPUT PROCESSES

Its documentation's way to use several cores: `encode` with a pool of processes. One file at a time,
so that memory stays small. Runs in an environment of its own (see sentence-transformers.txt). INPUT
and OUTPUT are local folders.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer


def main(model: str, source: Path, output: Path, processes: int) -> None:
    """Run the job."""
    # Ended, it ends its pool, which would wait for ever.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Inherited by the processes: together they use the machine once.
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    encoder = SentenceTransformer(model, device="cpu")
    output.mkdir(parents=True)
    pool = encoder.start_multi_process_pool(["cpu"] * processes)
    try:
        for file in sorted(source.iterdir()):
            table = pq.read_table(file)
            texts = table["text"].to_pylist()
            vectors = encoder.encode(texts, pool=pool)  # (N, D)
            column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
            pq.write_table(
                table.drop_columns("text").append_column("embedding", column), output / file.name
            )
    finally:
        encoder.stop_multi_process_pool(pool)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
