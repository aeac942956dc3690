"""How fast this machine multiplies matrices of a model's shapes, and does nothing else.

One step is the products of one layer, one after the other, on a batch of M tokens: the model
without attention, norms and activations. Two ways, since which is faster depends on the CPU: torch
with all threads on one product, OpenVINO with a stream of one thread on a batch each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["DTYPES", "gemm_rates"]

DTYPES = ("float32", "bfloat16", "int8")
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
_STEPS_IN_A_GRAPH = 4
"""Layers in a row: what goes in and out of a graph is a small part of it."""
_LEVELS = 256
_SEED = 0

_Weight = npt.NDArray[np.float32]

Step = Callable[[], int]
"""Does some products and returns how many FLOPs they were."""


def gemm_rates(
    products: Sequence[tuple[int, int]], *, tokens: int, threads: int, seconds: float, dtype: str
) -> dict[str, float]:
    """Return GFLOP/s by engine; an engine that lacks the precision is left out.

    Args:
        products: Weights (K, N) of a layer, in order; each N is the next one's K.
        tokens: M, of a batch.
        threads: Of all together.
        seconds: How long each engine is measured.
        dtype: One of `DTYPES`.
    """
    rates = {}
    for engine, make in {"torch": _torch_step, "openvino": _openvino_step}.items():
        step = make(products, tokens, threads, dtype)
        if step is not None:
            rates[engine] = round(_rate(step, seconds) / 1e9, 1)
    return rates


def _rate(step: Step, seconds: float) -> float:
    """Return the FLOPs a second of the better half: the limit is what it can, not what it did."""
    step()
    rates: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(rates) < 2:
        started = time.perf_counter()
        rates.append(step() / (time.perf_counter() - started))
    return float(np.median(sorted(rates)[len(rates) // 2 :]))


def _flops(products: Sequence[tuple[int, int]], tokens: int) -> int:
    return 2 * tokens * sum(inner * outer for inner, outer in products)


def _weights(products: Sequence[tuple[int, int]]) -> list[_Weight]:
    """Return random weights (N, K) that keep a vector's size as it is."""
    chosen = np.random.default_rng(_SEED)
    return [
        (chosen.standard_normal((outer, inner)) / np.sqrt(inner)).astype(np.float32)
        for inner, outer in products
    ]


def _torch_step(
    products: Sequence[tuple[int, int]], tokens: int, threads: int, dtype: str
) -> Step | None:
    if dtype == "int8":
        # torch has no public int8 product on a CPU.
        return None
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    weights = [torch.from_numpy(weight).to(kind) for weight in _weights(products)]
    batch = torch.randn(tokens, products[0][0], dtype=kind)  # (M, K)

    def step() -> int:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            values = batch
            for weight in weights:
                values = torch.nn.functional.linear(values, weight)
        return _flops(products, tokens)

    return step


def _openvino_step(
    products: Sequence[tuple[int, int]], tokens: int, threads: int, dtype: str
) -> Step | None:
    # Importing OpenVINO would report itself; None makes it fall back to a silent stand-in.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # fails the import
    try:
        import openvino
        from openvino import opset13 as ops
    except ImportError:
        return None

    batch = ops.parameter([tokens, products[0][0]], np.float32)  # (M, K)
    node = batch
    for weight in _weights(products) * _STEPS_IN_A_GRAPH:
        multiply = _int8_product if dtype == "int8" else _product
        node = multiply(ops, node, weight)  # (M, N)
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[dtype],
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(openvino.Model([node], [batch]), "CPU", options)
    requests = [compiled.create_infer_request() for _ in range(threads)]
    values = np.random.default_rng(_SEED).standard_normal((tokens, products[0][0]))
    inputs = [values.astype(np.float32)]

    def step() -> int:
        for request in requests:
            request.start_async(inputs)
        for request in requests:
            request.wait()
        return threads * _STEPS_IN_A_GRAPH * _flops(products, tokens)

    return step


def _product(ops: Any, node: Any, weight: _Weight) -> Any:  # noqa: ANN401 - OpenVINO has no types
    return ops.matmul(node, ops.constant(weight), False, True)


def _int8_product(ops: Any, node: Any, weight: _Weight) -> Any:  # noqa: ANN401 - as above
    """Return the product as quantized models have it: int8 weights, values made int8 before it."""
    scale = np.float32(np.abs(weight).max() / 127)
    whole = ops.constant(np.round(weight / scale).astype(np.int8))
    fixed = ops.multiply(ops.convert(whole, np.float32), ops.constant(scale))
    low, high = np.float32(-4), np.float32(4)
    values = ops.fake_quantize(node, low, high, low, high, _LEVELS)
    return ops.matmul(values, fixed, False, True)
