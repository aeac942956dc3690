"""The runbook says of every command whether it was run, and names what there is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.manifests import K8S, OVERLAYS, rendered, the, tool

TEXT = (K8S / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_every_block_says_whether_it_was_run():
    first_lines = [block.splitlines()[0] for block in BLOCKS]
    assert len(BLOCKS) > 10
    assert [line for line in first_lines if not line.startswith(("# was run", "# needs "))] == []


def test_what_asks_a_cluster_is_in_a_block_that_says_so():
    for block in BLOCKS:
        asks = re.search(r"^(helm|docker|kubectl(?! kustomize))\b", block, re.MULTILINE)
        assert bool(asks) == block.startswith("# needs ")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_in_the_tree(overlay: str):
    folder, _, variant = overlay.partition("/")
    tree = TEXT[TEXT.index("overlays/") : TEXT.index("Dockerfile")]
    assert folder in tree
    assert variant in tree


def test_every_path_and_component_exists():
    for name in re.findall(r"-k k8s/overlays/(\S+)", TEXT):
        assert name.rstrip("`,") in OVERLAYS
    for name in re.findall(r"components/([\w-]+\w)", TEXT):
        assert (K8S / "components" / name).is_dir(), name
    tree = TEXT[TEXT.index("components/") : TEXT.index("overlays/")]
    for folder in (K8S / "components").iterdir():
        assert folder.name in tree


def test_every_alert_has_a_line_that_says_what_to_do():
    groups = the("PrometheusRule", rendered("monitoring"))["spec"]["groups"]
    table = TEXT[TEXT.index("## Watch") : TEXT.index("## Scale")]
    for group in groups:
        for rule in group["rules"]:
            assert rule["alert"] in table


def test_what_renders_without_a_cluster_does_so_here():
    (block,) = [block for block in BLOCKS if "kubectl kustomize" in block]
    path = f"{Path(tool('kubectl')).parent}:{os.environ['PATH']}"
    finished = subprocess.run(
        ["bash", "-euc", block],
        cwd=K8S.parent,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    assert "kind: RayService" in finished.stdout
    assert "k8s/base/embed-job/rayjob.yaml" in finished.stdout
