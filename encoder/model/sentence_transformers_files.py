"""What a model folder's Sentence Transformers files say about its embedding space.

Read are `modules.json`, the Pooling module's `config.json` (or a Router's, one Pooling for each
role), `config_sentence_transformers.json` (prompts, truncate_dim, similarity) and
`sentence_bert_config.json` (max_seq_length), as sentence-transformers 2 to 6 write them. What
cannot be reproduced exactly is refused. A missing Normalize module is no `normalize=False`: that
the dot product is the cosine is our contract, and only settings or an `embedding_space.json` lift
it. A model that says its vectors are compared otherwise leaves it to the user.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from encoder.errors import ModelLoadError
from encoder.model.declarations import SpaceDeclaration
from encoder.model.folder import read_json, read_json_object, read_json_object_if_there
from encoder.space import Pooling, Role

__all__ = ["read_sentence_transformers"]

_LEGACY_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ROUTERS = ("Router", "Asym")
_WITHOUT_EFFECT = ("Normalize", "Dropout")
_ARGUMENTS = (
    "model_args",
    "model_kwargs",
    "config_args",
    "config_kwargs",
    "tokenizer_args",
    "processor_kwargs",
)
_ARGUMENTS_WITHOUT_EFFECT = {
    "add_pooling_layer",
    "attn_implementation",
    "cache_dir",
    "clean_up_tokenization_spaces",
    "device_map",
    "dtype",
    "local_files_only",
    "low_cpu_mem_usage",
    "padding_side",
    "reference_compile",
    "revision",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_cache",
    "use_fast",
    "use_safetensors",
}
_NOT_DONE = (
    "processing_kwargs",
    "query_length",
    "document_length",
    "query_expansion",
    "tokenizer_name_or_path",
)
"""Of the Transformer module: what changes the tokens that a text becomes."""
_PROMPT_NAMES = {Role.QUERY: ("query",), Role.DOCUMENT: ("document", "passage", "corpus")}


def read_sentence_transformers(folder: Path) -> SpaceDeclaration:
    """Return what the files say; every field is None where there are none.

    Raises:
        ModelLoadError: The files ask for something that the encoder does not do.
    """
    poolings, problem = _poolings(folder)
    saved = read_json_object_if_there(folder / "config_sentence_transformers.json")
    truncate_dim = saved.get("truncate_dim")
    return SpaceDeclaration(
        origin="Sentence Transformers files",
        query_pooling=poolings.get(Role.QUERY),
        document_pooling=poolings.get(Role.DOCUMENT),
        query_prompt=_prompt(saved, Role.QUERY, folder),
        document_prompt=_prompt(saved, Role.DOCUMENT, folder),
        max_seq_length=_max_seq_length(folder),
        truncate_dim=None
        if truncate_dim is None
        else _integer(truncate_dim, "truncate_dim", folder),
        pooling_problem=problem,
        normalize_problem=_normalize_problem(saved, folder),
    )


def _normalize_problem(saved: dict[str, Any], folder: Path) -> str | None:
    """Return why unit length would change a model's rankings, or None."""
    similarity = saved.get("similarity_fn_name")
    if similarity in (None, "cosine"):
        return None
    modules = _modules(folder) if (folder / "modules.json").is_file() else []
    if any(kind == "Normalize" for kind, _ in modules):
        return None
    return (
        f"its vectors are compared by {similarity} (config_sentence_transformers.json, "
        "similarity_fn_name) and have lengths of their own; give --normalize to compare by cosine, "
        "which ranks otherwise than the model was trained to, or --no-normalize to store them as "
        "the model makes them"
    )


def _poolings(folder: Path) -> tuple[dict[Role, Pooling], str | None]:
    if not (folder / "modules.json").is_file():
        return {}, None
    (first, *_), *rest = modules = _modules(folder)
    if first != "Transformer" or modules[0][1] not in ("", "."):
        raise ModelLoadError(
            f"{folder}/modules.json: expected a Transformer in the folder itself as first module, "
            f"found {first} in {modules[0][1] or '.'!r}; save the model with Sentence Transformers "
            "as Transformer, then Pooling (or a Router with one Pooling for each role)"
        )
    reducers = [(kind, path) for kind, path in rest if _has_effect(kind, folder / path)]
    unknown = [kind for kind, _ in reducers if kind != "Pooling" and kind not in _ROUTERS]
    if unknown or len(reducers) > 1:
        raise ModelLoadError(
            f"{folder}/modules.json: expected Transformer, Pooling (or Router) and Normalize, "
            f"found {', '.join(kind for kind, _ in modules)}; twofold does not apply "
            f"{', '.join(unknown) or 'two poolings'}: use another model"
        )
    if not reducers:
        return {}, "modules.json has no Pooling"
    kind, path = reducers[0]
    routes = _routes(folder / path) if kind in _ROUTERS else dict.fromkeys(Role, folder / path)
    found = {role: _pooling(pooling_folder) for role, pooling_folder in routes.items()}
    problem = next((p for _, p in found.values() if p), None)
    return {role: pooling for role, (pooling, _) in found.items() if pooling}, problem


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return the modules as (class name, folder)."""
    path = folder / "modules.json"
    listed = read_json(path)
    if not isinstance(listed, list) or not listed:
        raise ModelLoadError(f"{path}: expected a list of modules, found {listed!r}; copy it again")
    try:
        modules = [(str(module["type"]), str(module["path"])) for module in listed]
    except (TypeError, KeyError) as error:
        raise ModelLoadError(
            f"{path}: expected a type and a path for each module ({error!r}); copy it again"
        ) from error
    return [(_class_name(kind, path), module_path) for kind, module_path in modules]


def _has_effect(kind: str, folder: Path) -> bool:
    """Whether a module does more than to scale the pooled vector; refuse to scale each token's."""
    path = folder / "config.json"
    if kind == "Normalize":
        scaled = read_json_object_if_there(path).get("module_input_name", "sentence_embedding")
        if scaled != "sentence_embedding":
            raise ModelLoadError(
                f"{path}: expected module_input_name sentence_embedding, found {scaled!r}; twofold "
                "normalizes pooled vectors only: use another model"
            )
    return kind not in _WITHOUT_EFFECT


def _class_name(kind: str, path: Path) -> str:
    if not kind.startswith("sentence_transformers."):
        raise ModelLoadError(
            f"{path}: module {kind} is code of the model's own, which twofold never runs; use "
            "another model"
        )
    return kind.rpartition(".")[2]


def _routes(folder: Path) -> dict[Role, Path]:
    """Return the folder of each role's Pooling below a Router's."""
    path = folder / "router_config.json"
    if not path.is_file():
        path = folder / "config.json"
    config = read_json_object(path)
    try:
        return {role: folder / _route_pooling(config, role, path) for role in Role}
    except (TypeError, KeyError, AttributeError, ValueError, SyntaxError) as error:
        raise ModelLoadError(
            f"{path}: not a Router's configuration ({error!r}); copy it again"
        ) from error


def _route_pooling(config: dict[str, Any], role: Role, path: Path) -> str:
    structure, types = config["structure"], config["types"]
    route = _route_of(config, role)
    if route not in structure:
        raise ModelLoadError(
            f"{path}: expected routes for query and document, found {sorted(structure)}; give "
            "--query-pooling and --document-pooling with a copy of the model without the Router"
        )
    kinds = [_class_name(types[module], path) for module in structure[route]]
    poolings = [
        module
        for module, kind in zip(structure[route], kinds, strict=True)
        if _has_effect(kind, path.parent / module)
    ]
    if len(poolings) != 1 or "Pooling" not in kinds:
        raise ModelLoadError(
            f"{path}: expected one Pooling on the route of {role.value}, found "
            f"{', '.join(kinds) or 'nothing'}; twofold runs one model for both roles: use another"
        )
    return str(poolings[0])


def _route_of(config: dict[str, Any], role: Role) -> str:
    """Return the route that a text takes: the order of sentence-transformers' own Router."""
    mappings = {
        ast.literal_eval(key): str(route)
        for key, route in (config.get("parameters", {}).get("route_mappings") or {}).items()
    }
    for key in ((role.value, "text"), (role.value, None), (None, "text"), (None, None)):
        if key in mappings:
            return mappings[key]
    return role.value if role.value in config["structure"] else "text"


def _pooling(folder: Path) -> tuple[Pooling | None, str | None]:
    """Return a Pooling module's pooling, or why it is none that the encoder has."""
    path = folder / "config.json"
    config = read_json_object(path)
    if not config.get("include_prompt", True):
        raise ModelLoadError(
            f"{path}: include_prompt is false (the prompt's tokens are left out of the pooling), "
            "which twofold does not do; use another model"
        )
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING_KEYS.items() if config.get(key) is True]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if modes in (["cls"], ["mean"]):
        return Pooling(modes[0]), None
    named = " and ".join(map(str, modes)) if modes else "none"
    return None, f"{folder.name}/config.json says pooling {named}, twofold has cls and mean"


def _prompt(saved: dict[str, Any], role: Role, folder: Path) -> str | None:
    """Return a role's prompt, or None where the file names none.

    The first that is not empty counts: sentence-transformers 6 writes an empty "document" beside
    the "passage" prompt of models saved before it knew roles. A default that is named as the other
    role's is not this one's.
    """
    prompts = saved.get("prompts") or {}
    path = folder / "config_sentence_transformers.json"
    if not isinstance(prompts, dict):
        raise ModelLoadError(f"{path}: prompts must be an object, found {prompts!r}")
    listed = [prompts[name] or "" for name in _PROMPT_NAMES[role] if name in prompts]
    default = saved.get("default_prompt_name")
    if not listed and default is not None:
        if default not in prompts:
            raise ModelLoadError(
                f"{path}: default_prompt_name is {default!r}, prompts are {sorted(prompts)}; give "
                "--query-prompt and --document-prompt with a corrected copy"
            )
        if not any(default in names for names in _PROMPT_NAMES.values()):
            listed = [prompts[default] or ""]
    if not all(isinstance(prompt, str) for prompt in listed):
        raise ModelLoadError(f"{path}: prompts must be texts, found {listed!r}")
    return next((prompt for prompt in listed if prompt), "") if listed else None


def _max_seq_length(folder: Path) -> int | None:
    """Return the Transformer module's max_seq_length; refuse what changes its output."""
    # Named after the architecture by early releases: sentence_roberta_config.json.
    path = next(iter(sorted(folder.glob("sentence_*_config.json"))), None)
    if path is None:
        return None
    config = read_json_object(path)
    if config.get("do_lower_case"):
        raise ModelLoadError(
            f"{path}: do_lower_case is true, which is not in tokenizer.json; put a Lowercase "
            "normalizer into tokenizer.json and set do_lower_case to false"
        )
    _check_arguments(path, config)
    if asked := sorted(name for name in _NOT_DONE if config.get(name)):
        raise ModelLoadError(
            f"{path}: expected none of {', '.join(_NOT_DONE)}, found {asked}: they change the "
            "tokens of a text, which twofold does not do; use another model"
        )
    modalities = config.get("modality_config") or {}
    if "message" in modalities:
        raise ModelLoadError(
            f"{path}: modality_config has message (texts are put into a chat template), which "
            "twofold does not do; use another model"
        )
    output = modalities.get("text", {}).get("method_output_name")
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction" or output not in (None, "last_hidden_state"):
        raise ModelLoadError(
            f"{path}: expected feature-extraction from last_hidden_state, found {task} from "
            f"{output}; use another model"
        )
    length = config.get("max_seq_length")
    return None if length is None else _integer(length, "max_seq_length", path)


def _check_arguments(path: Path, config: dict[str, Any]) -> None:
    """Refuse what Sentence Transformers gives to the loading of model, tokenizer or config."""
    for name in _ARGUMENTS:
        given = config.get(name) or {}
        if acting := sorted(set(given) - _ARGUMENTS_WITHOUT_EFFECT):
            raise ModelLoadError(
                f"{path}: expected {name} without effect on vectors, found {acting}; write what "
                "they say into config.json and the tokenizer's files, and take them out"
            )


def _integer(value: object, name: str, path: Path) -> int:
    if type(value) is not int or value < 1:
        raise ModelLoadError(f"{path}: {name} must be a positive integer, found {value!r}")
    return value
