"""The image is built from what is pinned, runs as nobody, and holds what KubeRay calls."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from support.manifests import K8S, tool

REPOSITORY = K8S.parent
DOCKERFILE = (K8S / "Dockerfile").read_text(encoding="utf-8")
SCRIPTS = sorted(K8S.rglob("*.sh"))


def project() -> dict:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {re.match(r"\S+ AS (\S+)", part)[1]: part for part in parts}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_hadolint_finds_nothing():
    finished = run(tool("hadolint"), str(K8S / "Dockerfile"))
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path):
    finished = run(tool("shellcheck"), str(script))
    assert finished.returncode == 0, finished.stdout
    assert script.stat().st_mode & 0o111, "it cannot be executed"


def test_the_end_to_end_script_says_that_it_was_not_run_and_what_it_needs():
    text = (K8S / "e2e.sh").read_text(encoding="utf-8")
    assert "NOT RUN" in text
    assert "needs Docker" in text


def test_there_is_a_target_for_cpus_and_one_for_cuda_and_both_are_small_copies():
    for target in ("cpu", "cuda"):
        body = stages()[target]
        assert body.startswith("runtime AS")
        assert f"COPY --from=build-{target} /install /usr/local" in body


def test_the_container_is_nobody_by_number():
    # By number, so that Kubernetes can check runAsNonRoot without the image's files.
    assert re.search(r"^USER 1000:1000$", stages()["runtime"], re.MULTILINE)


@pytest.mark.parametrize("command", ["bash", "wget"])
def test_what_kuberays_probes_call_is_installed(command: str):
    assert re.search(rf"apt-get install .*\b{command}=\d", stages()["runtime"])


def test_every_package_is_constrained_or_pinned():
    for line in re.findall(r"pip install[^&\n]*(?:\\\n[^&\n]*)*", DOCKERFILE):
        assert "-c constraints.txt" in line or "--no-deps" in line, line
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    assert not re.search(r"https?://|:latest", DOCKERFILE)


def test_torchs_index_is_asked_for_torch_alone_and_not_beside_another():
    asked = re.findall(r"pip [^;&\n]*(?:\\\n[^;&\n]*)*", DOCKERFILE)
    assert "extra-index-url" not in DOCKERFILE
    (of_torch,) = [line for line in asked if "TORCH_INDEX" in line]
    assert of_torch.endswith('--index-url "$TORCH_INDEX" torch')
    assert "--no-deps" in of_torch
    assert "-c constraints.txt" in of_torch


@pytest.mark.parametrize("index", ["", "https://index"])
def test_what_comes_of_torchs_index_is_installed_and_without_one_torch_comes_as_all_do(
    index: str, tmp_path: Path
):
    (command,) = re.findall(
        r"^RUN .*\n((?:.*\\\n)* .*cli-bin\S*)$", stages()["build-cpu"], re.MULTILINE
    )
    wheel = tmp_path / "torch" / "torch-2+cpu-none-any.whl"
    pip = f'pip() {{ echo "$@"; mkdir -p {wheel.parent}; touch {wheel}; }}; '
    script = pip + command.replace("/torch", str(wheel.parent))
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={"TORCH_INDEX": index, "PATH": "/usr/bin:/bin"},
    )
    assert finished.returncode == 0, finished.stderr

    *before, last = finished.stdout.splitlines()
    assert len(before) == bool(index)
    assert (str(wheel) in last) is bool(index)


def test_no_model_is_inside():
    assert "demo" not in re.findall(r'optional-dependencies"\]\["(\w+)"\]', DOCKERFILE)
    assert not re.search(r"twofold pull|hf download|snapshot", DOCKERFILE)


def test_the_build_context_is_what_the_package_is_made_of():
    first, *allowed = [
        line
        for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    named = {line[1:] for line in allowed if line.startswith("!")}
    patterns = project()["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {
        folder.name
        for folder in REPOSITORY.iterdir()
        if (folder / "__init__.py").exists() and any(fnmatch(folder.name, p) for p in patterns)
    }
    modules = {f"{name}.py" for name in project()["tool"]["setuptools"]["py-modules"]}
    documents = {project()["project"]["readme"], *project()["project"]["license-files"]}
    assert named == packages | modules | documents | {"pyproject.toml", "constraints.txt"}
    assert all((REPOSITORY / name).exists() for name in named)
