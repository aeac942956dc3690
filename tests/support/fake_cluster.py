"""RayJobs behind as much of the Kubernetes API as kubectl asks for, on 127.0.0.1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["FakeCluster"]

_GROUP = "/apis/ray.io/v1"
_JOBS = f"{_GROUP}/namespaces/default/rayjobs"
_VERSION = {"groupVersion": "ray.io/v1", "version": "v1"}
_KIND = {"name": "rayjobs", "singularName": "rayjob", "namespaced": True, "kind": "RayJob"}
_PATCH = {
    "parameters": [{"name": "fieldValidation", "in": "query"}],
    "x-kubernetes-group-version-kind": {"group": "ray.io", "version": "v1", "kind": "RayJob"},
}
_DISCOVERY: dict[str, dict[str, Any]] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [{"name": "ray.io", "versions": [_VERSION], "preferredVersion": _VERSION}],
    },
    _GROUP: {
        "kind": "APIResourceList",
        "groupVersion": "ray.io/v1",
        "resources": [{**_KIND, "verbs": ["get", "list", "create", "delete"]}],
    },
    # Says that the server checks fields itself, so that kubectl does not ask for every schema.
    "/openapi/v3": {"paths": {_GROUP[1:]: {"serverRelativeURL": f"/openapi/v3{_GROUP}"}}},
    f"/openapi/v3{_GROUP}": {
        "openapi": "3.0.0",
        "info": {"title": "", "version": ""},
        "paths": {f"{_JOBS}/{{name}}": {"patch": _PATCH}},
    },
}


class FakeCluster:
    """An API server, used as a context manager.

    Attributes:
        jobs: What there is, by name.
        created: What was posted, in its order; not added to `jobs`.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []

    def __enter__(self) -> FakeCluster:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(
        self,
        name: str,
        status: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        day: int = 1,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a RayJob of a day of November 2026."""
        self.jobs[name] = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": labels or {},
                "creationTimestamp": f"2026-11-{day:02}T02:17:00Z",
                "resourceVersion": "7",
                "uid": name,
            },
            "spec": spec or {},
            "status": {"jobDeploymentStatus": status} if status else {},
        }

    def write_config(self, folder: Path) -> Path:
        """Write a file for KUBECONFIG and return its path."""
        address = f"http://127.0.0.1:{self._server.server_port}"
        file = folder / "kubeconfig.json"
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "fake", "cluster": {"server": address}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake"}}],
                    "current-context": "fake",
                }
            )
        )
        return file

    def read(self, path: str, query: str) -> dict[str, Any] | None:
        """Answer a GET."""
        if path == _JOBS:
            wanted = dict(part.split("=") for part in parse_qs(query).get("labelSelector", []))
            items = [
                j for j in self.jobs.values() if wanted.items() <= j["metadata"]["labels"].items()
            ]
            return {"apiVersion": "ray.io/v1", "kind": "RayJobList", "items": items}
        return _DISCOVERY.get(path) or self.jobs.get(path.removeprefix(f"{_JOBS}/"))


def _handler(cluster: FakeCluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def reply(self, status: int, body: Mapping[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            found = cluster.read(address.path, address.query)
            missing = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            self.reply(404 if found is None else 200, missing if found is None else found)

        def do_POST(self) -> None:
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cluster.created.append(job)
            name = f"{job['metadata']['generateName']}x7k2p"
            self.reply(201, {**job, "metadata": {**job["metadata"], "name": name}})

        def do_DELETE(self) -> None:
            del cluster.jobs[urlsplit(self.path).path.removeprefix(f"{_JOBS}/")]
            self.reply(200, {"kind": "Status", "status": "Success"})

    return Handler
