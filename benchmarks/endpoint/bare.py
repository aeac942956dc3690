"""The encoder alone on the same queries: no HTTP, no Ray, no queue.

    python -m benchmarks.endpoint.bare QUERIES.json FLAGS...

reads lines of JSON from stdin (`{"texts": 64, "seconds": 2, "warm_up_s": 1, "first": 0}`) and
answers each with what it measured, so that the model is loaded once. `texts` go into each call: as
many as that many connections could have under way at once. Flags are those of `twofold serve`, so
that model, precision and threads are a replica's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.endpoint.samples import OK, Load, Sample, describe
from benchmarks.lines import Line
from benchmarks.ordered_process import OrderedProcess

__all__ = ["BareEncoder", "main"]

_WARM_UP_CALLS = (1, 16, 64)
_WARM_UP_S = 1.5


class BareEncoder(OrderedProcess):
    """The process that does it.

    Args:
        flags: Of `twofold serve`.
        queries: A JSON list of texts.
        log: Takes what it says.
    """

    def __init__(self, flags: Sequence[str], queries: Path, log: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.endpoint.bare", str(queries), *flags]
        super().__init__(command, {}, log)

    def measure(self, texts: int, seconds: float, warm_up_s: float, first: int) -> Line:
        """Encode queries, `texts` a call.

        Args:
            texts: Of each call.
            seconds: How long is measured.
            warm_up_s: What comes before that.
            first: Index of the first query.

        Raises:
            BenchmarkError: The process has ended.
        """
        return self.order(
            {"texts": texts, "seconds": seconds, "warm_up_s": warm_up_s, "first": first}
        )


def main(argv: Sequence[str]) -> int:
    """Load the model, then do what stdin says until it ends."""
    from command_line.parse import parse_settings
    from serving.app import alive_nodes
    from serving.replica_size import replica_size
    from serving.serve import ServeCommandSettings

    texts, *flags = argv
    settings = parse_settings(ServeCommandSettings, flags, prog="bare", description=str(__doc__))
    threads = replica_size(settings.scaling, settings.encoder, alive_nodes()).threads
    # Ray sets the same for a replica.
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
    from encoder.encoder import load_encoder
    from encoder.space import Role

    encoder = load_encoder(settings.encoder.model_copy(update={"num_threads": threads}))
    queries: list[str] = json.loads(Path(texts).read_text())
    calls = _Calls(lambda texts: encoder.encode(texts, Role.QUERY), queries)
    # As the endpoint does before it is ready: a backend prepares each shape when it first meets it.
    encoder.expect_short_texts()
    for count in _WARM_UP_CALLS:
        calls.run(count, _WARM_UP_S, 0)
    model = Path(settings.encoder.model).name
    _say({"threads": threads, **encoder.provenance, "model": model})
    for line in sys.stdin:
        order = json.loads(line)
        count, first = order["texts"], order["first"]
        calls.run(count, order["warm_up_s"], first)
        figures = describe(calls.run(count, order["seconds"], first))
        figures["requests"] *= count
        figures["requests_per_s"] = round(figures["requests_per_s"] * count, 2)
        del figures["client_share"]
        _say(figures)
    return 0


class _Calls:
    def __init__(self, encode: Callable[[list[str]], object], queries: Sequence[str]) -> None:
        self._encode = encode
        self._queries = queries

    def run(self, count: int, seconds: float, first: int) -> Load:
        """Encode `count` queries a call, at least one call."""
        samples: list[Sample] = []
        began = time.perf_counter()
        while not samples or time.perf_counter() - began < seconds:
            position = first + len(samples) * count
            texts = [
                self._queries[i % len(self._queries)] for i in range(position, position + count)
            ]
            started = time.perf_counter()
            self._encode(texts)
            samples.append(Sample(started - began, time.perf_counter() - started, OK))
        return Load(samples, time.perf_counter() - began)


def _say(result: Line) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
