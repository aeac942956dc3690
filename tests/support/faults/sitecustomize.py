"""Faults for tests: Python imports this at start where the folder is on PYTHONPATH.

Only where TWOFOLD_FAULT_PLAN names a file. When the job's modules are imported, its steps (the
creation of a file, the reading of a unit, a forward) are wrapped, so that a plan written by a test
(`support.fault_plan`) can kill a process just there. Production code knows nothing of it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from pathlib import Path

_PLAN = os.environ.get("TWOFOLD_FAULT_PLAN", "")
_TREE = "TWOFOLD_TEST_TREE"
_MEETING_S = 60


def _fire(step: str, subject: str) -> None:
    """Do what the plan says for a step, so many times as it says, over all processes."""
    try:
        faults = json.loads(Path(_PLAN).read_text())
    except FileNotFoundError:
        return
    for fault in faults:
        if fault["step"] == step and fault["match"] in subject and _claim(fault):
            with Path(_PLAN).with_name(f"{fault['name']}-subjects").open("a") as noted:
                noted.write(f"{subject}\n")
            _ACTIONS[fault["action"]](fault)


def _claim(fault: dict) -> bool:
    """Take one of the fault's times; each is taken by one process."""
    for number in range(fault["times"]):
        with contextlib.suppress(FileExistsError):
            _marker(fault, f"{number}").touch(exist_ok=False)
            return True
    return False


def _marker(fault: dict, name: str) -> Path:
    return Path(_PLAN).with_name(f"{fault['name']}-{name}")


def _kill_actor(fault: dict) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_driver(fault: dict) -> None:
    os.kill(int(Path(_PLAN).with_name("driver.pid").read_text()), signal.SIGKILL)
    # Ray ends this actor when it notices; until then it must not get beyond the step.
    time.sleep(60)


def _kill_cluster(fault: dict) -> None:
    """Kill Ray's own processes, leaving the driver alone with a cluster that is gone."""
    _kill_tree_but({int(Path(_PLAN).with_name("driver.pid").read_text())})


def _kill_tree_but(spared: set[int]) -> None:
    mine = f"{_TREE}={os.environ[_TREE]}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) in spared | {os.getpid()}:
            continue
        with contextlib.suppress(OSError):
            if mine in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _rewrite(fault: dict) -> None:
    """Replace a source file, as somebody who writes a new version does."""
    target = Path(fault["path"])
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(fault["text"])
    fresh.replace(target)


def _meet(fault: dict) -> None:
    """Wait until another process has come to the same step, so that both go on together."""
    _marker(fault, f"here-{os.getpid()}").touch()
    deadline = time.monotonic() + _MEETING_S
    while time.monotonic() < deadline:
        if len(list(Path(_PLAN).parent.glob(f"{fault['name']}-here-*"))) > 1:
            return
        time.sleep(0.01)


def _sleep(fault: dict) -> None:
    time.sleep(fault["seconds"])


def _note(fault: dict) -> None:
    """Nothing but what every fault does: the subject is written down."""


def _raise(fault: dict) -> None:
    raise RuntimeError(fault["message"])


def _break_device(fault: dict) -> None:
    """Let this process' model give other vectors from now on, without a word."""
    module = sys.modules["encoder.encoder"]
    finish = module.finish_vectors
    module.finish_vectors = lambda pooled, space: -finish(pooled, space)


_ACTIONS = {
    "break-device": _break_device,
    "kill-actor": _kill_actor,
    "kill-driver": _kill_driver,
    "kill-cluster": _kill_cluster,
    "rewrite": _rewrite,
    "meet": _meet,
    "note": _note,
    "sleep": _sleep,
    "raise": _raise,
}


def _around(owner, name, before=None, after=None):
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        for step, subject in (before or _nothing)(*args, **kwargs):
            _fire(step, subject)
        result = original(*args, **kwargs)
        for step, subject in (after or _nothing)(*args, **kwargs):
            _fire(step, subject)
        return result

    setattr(owner, name, wrapped)


def _nothing(*args, **kwargs):
    return ()


def _before_create(storage, relative, data):
    steps = {"_rejects": "before-rejects", "data": "before-data"}
    folder = relative.partition("/")[0]
    return [(steps[folder], relative)] if folder in steps else []


def _after_create(storage, relative, data):
    return [("after-data", relative)] if relative.startswith("data/") else []


def _before_replace(storage, relative, data):
    return [("before-index", relative)] if relative == "_index.json" else []


def _tokens(encoder, tokenized, *args, **kwargs):
    texts = ("," + ",".join(map(str, ids)) + "," for ids in tokenized.input_ids)
    return [("encode", ";".join(texts))]


def _patch_storage(module):
    _around(module.Storage, "create", _before_create, _after_create)
    _around(module.Storage, "replace", _before_replace)


def _patch_embedder(module):
    _around(module.UnitEmbedder, "__init__", lambda _, job: [("start", job.run_id)])
    _around(module.UnitEmbedder, "events", lambda _, unit: [("unit", unit.label)])
    _around(module, "check_version", lambda source: [("before-read", source.uri)])
    _around(module, "documents_of", lambda unit, *_, **__: [("read", unit.label)])


def _patch_encoder(module):
    _around(module.Encoder, "encode_tokenized", _tokens)


_PATCHES = {
    "pipelines.storage": _patch_storage,
    "pipelines.actor.unit_embedder": _patch_embedder,
    "encoder.encoder": _patch_encoder,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules to patch where everybody does, and patches them once they are executed."""

    def find_spec(self, fullname, path=None, target=None):
        patch = _PATCHES.get(fullname)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if patch else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_and_patch(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_and_patch
        return spec


if _PLAN:
    sys.meta_path.insert(0, _Finder())
    if "pipelines.embed_corpus" in sys.orig_argv:
        Path(_PLAN).with_name("driver.pid").write_text(str(os.getpid()))
