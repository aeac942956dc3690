"""Sentence Transformers behind FastAPI, as one writes it in an afternoon: the plain alternative.

    ST_SERVER_MODEL=FOLDER uvicorn st_server:app --app-dir benchmarks/peers

Runs in an environment of its own (see sentence-transformers.txt) and so imports nothing of this
repository. One worker thread encodes, one request after the other.
"""

from __future__ import annotations

import asyncio
import base64
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(os.environ["ST_SERVER_MODEL"], device="cpu")
worker = ThreadPoolExecutor(1, thread_name_prefix="encoder")
app = FastAPI()


class EmbeddingsRequest(BaseModel):
    """What an OpenAI client sends."""

    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = "float"


@app.post("/v1/embeddings")
async def embeddings(request: EmbeddingsRequest) -> dict[str, Any]:
    """Embed one or more texts."""
    texts = [request.input] if isinstance(request.input, str) else request.input
    loop = asyncio.get_running_loop()
    vectors = np.asarray(
        await loop.run_in_executor(worker, lambda: model.encode(texts, show_progress_bar=False)),
        dtype="<f4",
    )  # (N, D)
    is_base64 = request.encoding_format == "base64"
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.tobytes()).decode("ascii")
                if is_base64
                else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ],
        "model": request.model,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
