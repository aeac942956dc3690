"""Embed Parquet files with Sentence Transformers' own pool of processes, without Ray.

    python benchmarks/peers/multi_process_job.py MODEL INPUT OUTPUT PROCESSES

Its documentation's way to use several cores: `encode` with a pool of processes. All texts in one
call: it gives a process a tenth of its share at a time, sorted and padded by itself, which of one
small file would be 25 texts. Runs in an environment of its own (see sentence-transformers.txt).
INPUT and OUTPUT are folders or s3:// URIs.
"""

from __future__ import annotations

import os
import signal
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector
from sentence_transformers import SentenceTransformer
from stores import filesystem


def main(model: str, source: str, output: str, processes: int) -> None:
    """Run the job."""
    # Ended, it ends its pool, which would wait for ever.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Inherited by the processes: together they use the machine once.
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    encoder = SentenceTransformer(model, device="cpu")
    source, inputs = filesystem(source)
    output, outputs = filesystem(output)
    outputs.create_dir(output)
    files = sorted(inputs.get_file_info(FileSelector(source)), key=lambda file: file.path)
    pool = encoder.start_multi_process_pool(["cpu"] * processes)
    try:
        tables = [pq.read_table(file.path, filesystem=inputs) for file in files]
        texts = [text for table in tables for text in table["text"].to_pylist()]
        vectors = encoder.encode(texts, pool=pool)  # (N, D)
        first = 0
        for file, table in zip(files, tables, strict=True):
            part = vectors[first : first + len(table)]
            first += len(table)
            column = pa.FixedSizeListArray.from_arrays(part.ravel(), part.shape[1])
            pq.write_table(
                table.drop_columns("text").append_column("embedding", column),
                f"{output}/{file.base_name}",
                filesystem=outputs,
            )
    finally:
        encoder.stop_multi_process_pool(pool)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
