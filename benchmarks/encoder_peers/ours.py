"""This project's encoder as a process that obeys the same orders as the peers'.

    python -m benchmarks.encoder_peers.ours ENGINE DTYPE FOLDER THREADS queries|documents

For queries it is prepared for short texts, as an endpoint's encoder is; for documents it is as a
job's. What is timed is `Encoder.encode`: tokenizing, batching, the forward and the order of the
input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.peers.encode_worker import CANNOT_RUN, serve, take_stdout
from encoder.encoder import load_encoder
from encoder.errors import ModelLoadError
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.space import Role

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Load the encoder and obey orders until stdin ends; return `CANNOT_RUN` where it cannot."""
    answers = take_stdout()
    engine, dtype, folder, threads, kind = argv
    settings = EncoderSettings(
        model=folder,
        backend=BackendName(engine),
        dtype=DtypeName(dtype),
        # As the peers.
        device="cpu",
        num_threads=int(threads),
    )
    try:
        encoder = load_encoder(settings)
    except ModelLoadError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_RUN
    if kind == "queries":
        encoder.expect_short_texts()

    def encode(texts: list[str], pooling: str) -> npt.NDArray[np.float32]:
        return encoder.encode(texts, Role.DOCUMENT if pooling == "cls" else Role.QUERY).vectors

    serve(answers, encode)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
