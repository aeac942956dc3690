"""Systems take turns, the reference comes first, and one that does not load is left out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.encoder_peers.models import BenchmarkModel
from benchmarks.encoder_peers.rounds import Protocol, least_cosine, run_rounds
from benchmarks.encoder_peers.systems import CARD, System, all_systems
from benchmarks.encoder_peers.texts import TextSet
from benchmarks.errors import BenchmarkError
from benchmarks.flops import ModelShape
from benchmarks.lines import Lines, read_lines

WORKER = """
import sys
sys.path.insert(0, {peers!r})
import numpy as np
from encode_worker import serve, take_stdout
answers = take_stdout()
print("a library says hello")
vectors = {{"mean": [1.0, 1.0], "cls": [1.0, 0.0]}}
serve(answers, lambda texts, pooling: np.array([vectors[pooling]] * len(texts)))
"""
FAILING = {
    "broken": "raise SystemExit('no such model')",
    "elsewhere": "import sys; sys.stderr.write('no bfloat16 here'); sys.exit(3)",
}
PEERS = str(Path(__file__).resolve().parents[4] / "benchmarks/peers")


class Fake(System):
    """A system whose process answers the protocol without a model."""

    def command(self, *_: object, for_documents: bool) -> list[str]:
        program = FAILING.get(self.name, WORKER)
        return [sys.executable, "-c", program.format(peers=PEERS)]


@pytest.fixture
def protocol(tmp_path):
    model = BenchmarkModel("minilm", tmp_path, tmp_path, tmp_path, 256, "cls", None)
    texts = [
        TextSet("queries", "generated", [f"query {i}" for i in range(8)], [10] * 8),
        TextSet("long", "generated", ["long"] * 4, [256] * 4),
    ]
    return Protocol(
        model=model,
        shape=ModelShape(1, 2, 3, 1),
        environments=tmp_path,
        versions={"": {"python": "3"}},
        texts=texts,
        rounds=2,
        least_s=0.0,
        singles=3,
        threads=1,
        work=tmp_path,
    )


def fakes(*names: str) -> list[Fake]:
    return [Fake(name, name, "none", "float32") for name in names]


def test_all_systems_take_a_turn_on_each_kind_then_again(protocol, tmp_path):
    file = tmp_path / "lines.jsonl"
    assert list(run_rounds(protocol, fakes("a", CARD), Lines("encode", file, {}))) == [1, 2]
    lines = read_lines([file])
    each = [(line["round"], line["measures"], line["texts"], line["system"]) for line in lines]
    one = [
        *(("throughput", "queries", CARD), ("throughput", "queries", "a")),
        *(("throughput", "long", CARD), ("throughput", "long", "a")),
        *(("latency", "queries", CARD), ("latency", "queries", "a")),
    ]
    assert each == [(1, *cell) for cell in one] + [(2, *cell) for cell in one]


def test_the_reference_gets_a_quarter_of_the_texts_and_others_are_compared_on_it(
    protocol, tmp_path
):
    file = tmp_path / "lines.jsonl"
    list(run_rounds(protocol, fakes(CARD, "a"), Lines("encode", file, {})))
    card, other = read_lines([file])[:2]
    assert (card["documents"], other["documents"]) == (2, 8)
    assert (card["tokens"], other["tokens"]) == (20, 80)
    assert other["least_cosine"] == 1.0


def test_documents_are_pooled_by_cls_and_compared_with_the_cards_vectors_of_their_pooling(
    protocol, tmp_path
):
    file = tmp_path / "lines.jsonl"
    ours, library = fakes("ours")[0], Fake("library", "library", "none", "float32", "elsewhere")
    protocol.versions["elsewhere"] = {}
    list(run_rounds(protocol, [ours, library, *fakes(CARD)], Lines("encode", file, {})))
    lines = [line for line in read_lines([file]) if line["measures"] == "throughput"]
    assert {(line["texts"], line["system"]): line["pooling"] for line in lines} == {
        **{("queries", name): "mean" for name in ("ours", "library", CARD)},
        **{("long", "ours"): "cls", ("long", CARD): "cls", ("long", "library"): "mean"},
    }
    assert {line["least_cosine"] for line in lines if line["round"] == 1} == {1.0}


def test_a_system_that_does_not_load_is_left_out_with_what_it_said(protocol, tmp_path):
    file = tmp_path / "lines.jsonl"
    broken = Fake("broken", "library", "none", "float32", "its environment")
    list(run_rounds(protocol, [broken, *fakes(CARD)], Lines("encode", file, {})))
    first, *others = read_lines([file])
    assert (first["measures"], first["system"]) == ("left out", "broken")
    assert "no such model" in first["problem"]
    assert {line["system"] for line in others} == {CARD}


def test_ours_may_say_that_it_cannot_run_here_and_fails_the_run_where_it_does_not_load(
    protocol, tmp_path
):
    file = tmp_path / "lines.jsonl"
    list(run_rounds(protocol, fakes("elsewhere", CARD), Lines("encode", file, {})))
    assert "no bfloat16 here" in read_lines([file])[0]["problem"]
    numbers = []
    with pytest.raises(BenchmarkError, match=r"broken: .*no such model"):
        numbers.extend(run_rounds(protocol, fakes("broken", CARD), Lines("encode", file, {})))
    # After the others' rounds, which are not lost.
    assert {line["system"] for line in read_lines([file])[-3:]} == {CARD}


def test_a_systems_peak_of_memory_is_that_of_its_order(protocol, tmp_path):
    """Not what its parent held when it started it, nor what an order before took."""
    held = b"x" * 300_000_000
    file = tmp_path / "lines.jsonl"
    list(run_rounds(protocol, fakes(CARD), Lines("encode", file, {})))
    assert len(held) > max(line["peak_rss_bytes"] for line in read_lines([file]))


def test_a_process_that_is_stopped_ends_with_its_parent(tmp_path):
    starts = f"""
import subprocess, sys, signal, time
worker = subprocess.Popen(
    [sys.executable, "-c", {WORKER.format(peers=PEERS)!r}],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
worker.stdout.readline()
worker.send_signal(signal.SIGSTOP)
print(worker.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "zombie" not in _state(pid):
        assert time.monotonic() < deadline, _state(pid)
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text().split("State:")[1].split("\n")[0]
    except OSError:
        return "zombie"


def test_the_least_cosine_is_the_worst_rows():
    reference = np.array([[1, 0], [1, 0]], dtype=np.float32)
    vectors = np.array([[2, 0], [1, 1], [0, 1]], dtype=np.float32)
    assert least_cosine(reference, vectors) == pytest.approx(0.7071068)


def test_too_few_vectors_for_the_reference_are_refused():
    with pytest.raises(ValueError, match="reference of shape"):
        least_cosine(np.ones((2, 2), dtype=np.float32), np.ones((1, 2), dtype=np.float32))


def test_only_takes_beginnings_of_names_and_keeps_the_reference():
    names = [system.name for system in all_systems(["infinity"])]
    assert names == [CARD, "infinity-torch", "infinity-onnx"]
    with pytest.raises(ValueError, match=r"expected systems among .* found nobody"):
        all_systems(["nobody"])


def test_every_peer_is_known_to_the_worker():
    program = Path(PEERS, "encode_worker.py").read_text()
    for system in all_systems():
        assert system.is_ours or json.dumps(system.name) in program
