"""What a module offers is what it says in `__all__`; what others build on is pinned here."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGED = sorted(
    ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for package in ("command_line", "encoder", "pipelines", "serving")
    for file in (REPOSITORY / package).rglob("*.py")
    if file.name != "__init__.py" or "__all__" in file.read_text(encoding="utf-8")
)
MODULES = [*PACKAGED, "twofold"]

PINNED = {
    "command_line.fields": "AUTO_IS_UNSET CommaSeparated Location Locations OneOrMore",
    "command_line.boundary": "interruptible keeping_sigterm run_command shown",
    "command_line.parse": "parse_settings",
    "encoder": """BackendError BackendName DtypeName EmbeddingSpace Encoded EncodedVectors Encoder
        EncoderSettings InvalidInputError ModelLoadError NonFiniteVectorsError Pooling
        Role RoleEncoding SpaceMismatchError Tokenized TwofoldError load_encoder""",
    "encoder.errors": """BackendError InvalidInputError ModelLoadError NewerFormatError
        NonFiniteVectorsError SpaceMismatchError StorageError TwofoldError one_line""",
    "encoder.settings": "DEFAULT_MODEL BackendName DtypeName EncoderSettings",
    "encoder.space": "EmbeddingSpace Pooling Role RoleEncoding",
    "pipelines.columns": """CHAR_END CHAR_START CHUNK_INDEX EMBEDDING N_TOKENS REJECTS_SCHEMA
        RESERVED TEXT_HASH TEXT_HASH_BYTES TRUNCATED shard_schema""",
    "pipelines.errors": """ClusterError ConservationError CorpusError DuplicateIdError
        LayoutMismatchError PruneLimitError SourceChangedError StorageError
        TooManyRejectedError UnitFailedError UnreadableSourceError VerificationError exit_code""",
    "pipelines.source.units": "Format RangeKind Source WorkUnit",
    "serving.errors": """OverloadedError RequestError RequestTimeoutError RequestTooLargeError
        ServeError SlowClientError TextFailedError UnauthorizedError UnknownModelError
        UnsupportedMediaError error_code error_type exit_code http_status""",
    "serving.settings": "LimitSettings ScalingSettings ServingSettings",
    "command_line.commands": "Command load_command run_one_of",
    "twofold": "COMMANDS main",
}


def source(module: str) -> ast.Module:
    path = REPOSITORY.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def declared(module: str) -> list[str] | None:
    for node in source(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_offers(module: str):
    names = declared(module)
    assert names is not None, f"{module} has no __all__"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("module", MODULES)
def test_every_name_that_is_offered_exists(module: str):
    loaded = import_module(module)
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("module", MODULES)
def test_only_what_is_offered_is_imported_from_another_module(module: str):
    taken = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(source(module))
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
        for alias in node.names
        if alias.name not in declared(node.module) and f"{node.module}.{alias.name}" not in MODULES
    ]
    assert taken == []


@pytest.mark.parametrize("module", PINNED)
def test_what_others_build_on_keeps_its_names(module: str):
    assert sorted(declared(module)) == sorted(PINNED[module].split())
