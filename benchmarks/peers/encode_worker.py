"""One peer as a process: loads the model once, then encodes what it is ordered to.

    ENVIRONMENT/bin/python benchmarks/peers/encode_worker.py SYSTEM FOLDER THREADS LENGTH

Run by that environment's Python, and so imports nothing of this repository. `benchmarks/encode.py`
starts it and speaks with it by lines of JSON, orders on stdin and answers on stdout:

    {"texts": FILE, "count": 64, "pooling": "mean", "least_s": 2,
     "vectors": FILE or null, "each": false}
    {"seconds": [2.1, 2.0], "others_cores": 0.02, "peak_rss_bytes": 700000000}

`texts` names a JSON list of strings, `pooling` is "mean" or "cls". They are encoded in one call,
again and again until `least_s` is over; with `each`, one call a text, and `seconds` has one entry a
text. `others_cores` is how many cores other processes kept busy meanwhile. Every system is used as
its documentation shows it, with its own batches; what is not its default stands below, with the
reason.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

Encode = Callable[[list[str], str], Any]
"""Texts and how they are pooled in, vectors (N, D) out, unit length. Libraries pool one way, by the
mean here; they compute as much for the other."""

CANNOT_RUN = 3
"""Exit code of a system that says itself that it does not run here."""

_CARD_BATCH = 32
_PR_SET_PDEATHSIG = 1
_RESET_PEAK = "5"


def main(argv: list[str]) -> int:
    """Load a system and obey orders until stdin ends."""
    answers = take_stdout()
    system, folder, threads, length = argv[0], argv[1], int(argv[2]), int(argv[3])
    with _SYSTEMS[system](folder, threads, length) as encode:
        encode(["Is it loaded?"], "mean")
        serve(answers, encode)
    return 0


def take_stdout() -> TextIO:
    """Return stdout for answers; what libraries print from now on goes to stderr.

    From now on this process ends with its parent, also while it is stopped between orders.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(answers: TextIO, encode: Encode) -> None:
    """Say that the system is loaded, then obey orders until stdin ends.

    Args:
        answers: Of `take_stdout`.
        encode: The system.
    """
    _answer(answers, {"loaded": True})
    for line in sys.stdin:
        _answer(answers, obey(json.loads(line), encode))


def obey(order: dict[str, Any], encode: Encode) -> dict[str, Any]:
    """Encode what an order names and return what it took."""
    import numpy as np

    texts, pooling = json.loads(Path(order["texts"]).read_text()), order["pooling"]
    texts = texts[: order["count"]]
    calls = [[text] for text in texts] if order["each"] else [texts]
    _reset_peak()
    if order["vectors"] is not None:
        # Also what warms the system up: later rounds find the shapes prepared.
        np.save(order["vectors"], np.asarray(encode(texts, pooling), dtype=np.float32))
        if order["each"]:
            for call in calls:
                encode(call, pooling)
    seconds: list[float] = []
    busy_s, own_s = _busy_s()
    began = time.perf_counter()
    while not seconds or time.perf_counter() - began < order["least_s"]:
        for call in calls:
            started = time.perf_counter()
            encode(call, pooling)
            seconds.append(time.perf_counter() - started)
    wall_s = time.perf_counter() - began
    busy_after_s, own_after_s = _busy_s()
    others_s = (busy_after_s - busy_s) - (own_after_s - own_s)
    return {
        "seconds": [round(value, 6) for value in seconds],
        "others_cores": round(max(0.0, others_s / wall_s), 3),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def peak_rss_bytes() -> int | None:
    """Return the most memory that this process held; None on systems without /proc.

    Not `ru_maxrss`, which begins with what the parent held when it started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def _reset_peak() -> None:
    """Let the peak begin with what is held now: the next order's is its own."""
    file = Path("/proc/self/clear_refs")
    # Containers may forbid it: then the peak is that of all orders until now.
    with suppress(OSError):
        if file.exists():
            file.write_text(_RESET_PEAK)


def _busy_s() -> tuple[float, float]:
    """Return the seconds that all cores worked since boot, and those of this process.

    What the hypervisor took counts as work. On systems without /proc both are 0.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0, 0.0
    # proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    ticks = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return busy / os.sysconf("SC_CLK_TCK"), time.process_time()


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


@contextmanager
def _card(folder: str, threads: int, length: int) -> Iterator[Encode]:
    """The model card's usage: AutoModel in float32, batches of 32 as the texts come."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=length)

    def encode(texts: list[str], pooling: str) -> Any:  # noqa: ANN401 - a peer has no types here
        found = []
        for first in range(0, len(texts), _CARD_BATCH):
            part = texts[first : first + _CARD_BATCH]
            inp = tokenizer(part, return_tensors="pt", padding=True, truncation=True)
            with torch.no_grad():
                output = model(**inp)
            if pooling == "mean":
                vectors = output.last_hidden_state * inp["attention_mask"].unsqueeze(2)  # (B, T, H)
                vectors = vectors.sum(dim=1) / inp["attention_mask"].sum(dim=-1).view(-1, 1)
            else:
                vectors = output.last_hidden_state[:, 0, :]  # (B, H)
            found.append(torch.nn.functional.normalize(vectors, dim=1))  # (B, H)
        return torch.cat(found).numpy()

    yield encode


def _sentence_transformers(
    backend: Literal["torch", "onnx", "openvino"], dtype: str | None = None
) -> Any:  # noqa: ANN401 - a peer has no types here
    @contextmanager
    def load(folder: str, threads: int, _length: int) -> Iterator[Encode]:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        asked = None if dtype is None else {"dtype": dtype}
        model = SentenceTransformer(folder, device="cpu", backend=backend, model_kwargs=asked)

        def encode(texts: list[str], _pooling: str) -> Any:  # noqa: ANN401 - a peer has no types here
            # Its default batch is 32; it sorts by length itself. bfloat16 has no numpy type.
            return model.encode(texts, show_progress_bar=False, convert_to_tensor=True).float()

        yield encode

    return load


def _infinity(engine_name: str) -> Any:  # noqa: ANN401 - a peer has no types here
    @contextmanager
    def load(folder: str, threads: int, _length: int) -> Iterator[Encode]:
        import asyncio

        import numpy as np
        import torch
        from infinity_emb import (  # type: ignore[import-not-found]  # its own environment
            AsyncEmbeddingEngine,
            EngineArgs,
        )

        torch.set_num_threads(threads)
        # Its ONNX engine finds the file of a local model only where the model is ".".
        os.chdir(folder)
        arguments = EngineArgs(
            model_name_or_path=".",
            engine=engine_name,
            device="cpu",
            pooling_method="mean",
            # The worker's first orders warm it up.
            model_warmup=False,
        )
        loop = asyncio.new_event_loop()
        engine = AsyncEmbeddingEngine.from_args(arguments)
        loop.run_until_complete(engine.astart())

        def encode(texts: list[str], _pooling: str) -> Any:  # noqa: ANN401 - a peer has no types here
            vectors, _ = loop.run_until_complete(engine.embed(sentences=texts))
            return np.stack(vectors)

        try:
            yield encode
        finally:
            loop.run_until_complete(engine.astop())

    return load


@contextmanager
def _fastembed(folder: str, threads: int, _length: int) -> Iterator[Encode]:
    import numpy as np
    from fastembed import TextEmbedding  # type: ignore[import-not-found]
    from fastembed.common.model_description import (  # type: ignore[import-not-found]
        ModelSource,
        PoolingType,
    )

    TextEmbedding.add_custom_model(
        model="bench/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="bench/model"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("bench/model", specific_model_path=folder, threads=threads)

    def encode(texts: list[str], _pooling: str) -> Any:  # noqa: ANN401
        return np.stack(list(model.embed(texts)))

    yield encode


_SYSTEMS = {
    "card": _card,
    "sentence-transformers-float32": _sentence_transformers("torch"),
    "sentence-transformers-bfloat16": _sentence_transformers("torch", dtype="bfloat16"),
    "sentence-transformers-onnx": _sentence_transformers("onnx"),
    "sentence-transformers-openvino": _sentence_transformers("openvino"),
    "infinity-torch": _infinity("torch"),
    "infinity-onnx": _infinity("optimum"),
    "fastembed": _fastembed,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
