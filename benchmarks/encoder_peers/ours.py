"""This project's encoder as a process that obeys the same orders as the peers'.

    python -m benchmarks.encoder_peers.ours ENGINE DTYPE FOLDER THREADS queries|documents

For queries it is prepared for short texts, as an endpoint's encoder is; for documents it is as a
job's. What is timed is `Encoder.encode`: tokenizing, batching, the forward and the order of the
input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.peers.encode_worker import serve, take_stdout
from encoder.encoder import load_encoder
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.space import Role

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Load the encoder and obey orders until stdin ends."""
    answers = take_stdout()
    engine, dtype, folder, threads, kind = argv
    started = time.perf_counter()
    encoder = load_encoder(
        EncoderSettings(
            model=folder,
            backend=BackendName(engine),
            dtype=DtypeName(dtype),
            num_threads=int(threads),
        )
    )

    if kind == "queries":
        encoder.expect_short_texts()

    def encode(texts: list[str], pooling: str) -> npt.NDArray[np.float32]:
        return encoder.encode(texts, Role.DOCUMENT if pooling == "cls" else Role.QUERY).vectors

    serve(answers, encode, load_s=time.perf_counter() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
