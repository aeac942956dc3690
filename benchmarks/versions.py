"""Which versions another virtual environment has."""

from __future__ import annotations

import json
import subprocess

__all__ = ["versions_in"]

_PACKAGES = (
    "infinity-emb",
    "sentence-transformers",
    "fastembed",
    "torch",
    "transformers",
    "optimum",
    "onnxruntime",
    "openvino",
    "ray",
    "fastapi",
    "uvicorn",
)
_PROGRAM = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions_in(python: str) -> dict[str, str]:
    """Return the versions of what matters here; packages that are absent are left out."""
    done = subprocess.run(
        [python, "-c", _PROGRAM, *_PACKAGES], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found
