"""Which embedding space a folder spans: who says it, who wins, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from encoder.errors import ModelLoadError, NewerFormatError
from encoder.model.declarations import render_space_file
from encoder.model.declared_space import load_space
from encoder.model.files import read_model_files
from encoder.model.reference import ModelReference, resolve
from encoder.settings import DEFAULT_MODEL, EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, RoleEncoding

MEAN, CLS = RoleEncoding(Pooling.MEAN), RoleEncoding(Pooling.CLS)
BOTH_CLS = {"query_pooling": Pooling.CLS, "document_pooling": Pooling.CLS}
TRANSFORMER = ("", "sentence_transformers.models.Transformer")
POOLING = ("1_Pooling", "sentence_transformers.models.Pooling")


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _change(path: Path, **changes: object) -> None:
    _write(path, {**json.loads(path.read_text()), **changes})


@pytest.fixture
def noinstruct(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder whose config.json names NoInstruct."""
    return Path(shutil.copytree(tiny_model, tmp_path / "noinstruct"))


@pytest.fixture
def silent(noinstruct: Path) -> Path:
    """A folder that says nothing of its pooling."""
    _change(noinstruct / "config.json", _name_or_path="someone/model")
    return noinstruct


@pytest.fixture
def saved(silent: Path) -> Path:
    """A folder with Sentence Transformers files: mean pooling, 64 tokens."""
    return _with_modules(silent)


def _with_modules(folder: Path, *modules: tuple[str, str], **pooling: object) -> Path:
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(modules or (TRANSFORMER, POOLING))
    ]
    _write(folder / "modules.json", listed)
    _write(folder / "1_Pooling/config.json", pooling or {"pooling_mode_mean_tokens": True})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    return folder


def _space(folder: Path, reference: str = "", **settings: Any) -> EmbeddingSpace:
    parsed = ModelReference.parse(reference or str(folder))
    return load_space(read_model_files(folder), EncoderSettings(**settings), parsed)


def _mirror(folder: Path, space: EmbeddingSpace) -> Path:
    record = render_space_file(space, reference="org/name", revision=None)
    (folder / "embedding_space.json").write_bytes(record)
    return folder


# Who says it


def test_the_packaged_minilm_is_mean_for_both_roles_and_256_tokens(minilm: str) -> None:
    folder = resolve(ModelReference.parse(minilm)).folder
    space = _space(folder, minilm)
    assert space.weights_sha256 == (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
    assert (space.query, space.document) == (MEAN, MEAN)
    assert (space.max_seq_length, space.dimension, space.normalize) == (256, 384, True)


def test_a_folder_that_names_noinstruct_has_its_asymmetry(noinstruct: Path) -> None:
    space = _space(noinstruct)
    assert (space.query, space.document, space.normalize) == (MEAN, CLS, True)
    assert space.max_seq_length == 128


def test_the_hub_s_noinstruct_is_built_in_whatever_its_files_say(saved: Path) -> None:
    space = _space(saved, DEFAULT_MODEL)
    assert (space.query, space.document) == (MEAN, CLS)


def test_another_model_of_the_hub_is_what_its_own_files_say(saved: Path) -> None:
    space = _space(saved, "org/other")
    assert (space.query, space.document, space.max_seq_length) == (MEAN, MEAN, 64)


@pytest.mark.parametrize(
    "front", [f"base_model: {DEFAULT_MODEL}", f"base_model: [{DEFAULT_MODEL}]"]
)
def test_a_folder_saved_by_sentence_transformers_is_known_by_its_readme(
    saved: Path, front: str
) -> None:
    # transformers 5 no longer writes the name into config.json.
    transformer = AutoModel.from_pretrained(saved)
    transformer.config._name_or_path = DEFAULT_MODEL
    transformer.save_pretrained(saved)
    assert "_name_or_path" not in json.loads((saved / "config.json").read_text())
    assert _space(saved).document == MEAN

    (saved / "README.md").write_text(f"---\n{front}\n---\n# SentenceTransformer\n")
    with pytest.raises(ModelLoadError, match=r"README\.md, base_model\), but its files contradict"):
        _space(saved)
    settled = _space(saved, query_pooling=Pooling.MEAN, document_pooling=Pooling.CLS)
    assert (settled.query, settled.document) == (MEAN, CLS)


@pytest.mark.parametrize(
    "front",
    [
        f"base_model: {DEFAULT_MODEL}\ntags: [sentence-transformers, generated_from_trainer]",
        f"base_model: [someone/else, {DEFAULT_MODEL}]",
    ],
)
def test_what_was_trained_or_merged_from_it_is_what_its_own_files_say(
    silent: Path, front: str
) -> None:
    (silent / "README.md").write_text(f"---\n{front}\n---\n")
    with pytest.raises(ModelLoadError, match="nothing says the pooling"):
        _space(silent)
    assert _space(_with_modules(silent)).document == MEAN


@pytest.mark.parametrize(
    "readme", [b"---\nbase_model: [\n---\n", b"---\n- a\n---\n", b"\xff", b"---\nx: " + b"[" * 5000]
)
def test_a_readme_that_nobody_can_read_says_nothing(saved: Path, readme: bytes) -> None:
    (saved / "README.md").write_bytes(readme + b"\n---\n")
    assert _space(saved).document == MEAN


E5_NAMES = ["e5-small-v2", "multilingual_E5_large", "e5-base", "models--x--e5-large/snapshots/0f"]


@pytest.mark.parametrize("name", E5_NAMES)
def test_e5_is_refused_until_its_prompts_are_given(saved: Path, name: str) -> None:
    (saved.parent / name).parent.mkdir(parents=True, exist_ok=True)
    folder = saved.rename(saved.parent / name)
    prompts = folder / "config_sentence_transformers.json"
    for empty in ({}, {"prompts": {"query": "", "document": ""}}):
        _write(prompts, empty)
        with pytest.raises(ModelLoadError, match="give --query-prompt and --document-prompt as"):
            _space(folder)
    given = {"query_prompt": "query: ", "document_prompt": "passage: "}
    assert _space(folder, **given).document == RoleEncoding(Pooling.MEAN, "passage: ")
    for name, prompt in given.items():
        with pytest.raises(ModelLoadError, match="give --query-prompt and --document-prompt as"):
            _space(folder, **{name: prompt})
    assert _space(folder, query_prompt="", document_prompt="").query == MEAN
    # Instruct models have one for queries alone.
    _write(prompts, {"prompts": {"query": "Instruct: find\nQuery: "}})
    assert _space(folder).document == MEAN


@pytest.mark.parametrize("name", ["bge5-small", "e5ish-small", "trained-on-e5"])
def test_another_model_whose_name_only_contains_e5_needs_no_prompt(saved: Path, name: str) -> None:
    front = "base_model: intfloat/e5-base-v2\ntags: [generated_from_trainer]"
    (saved / "README.md").write_text(f"---\n{front}\n---\n")
    assert _space(saved.rename(saved.parent / name)).document == MEAN


def test_e5_that_was_saved_under_another_name_is_known_by_its_readme(saved: Path) -> None:
    (saved / "README.md").write_text("---\nbase_model: intfloat/e5-base-v2\n---\n")
    with pytest.raises(ModelLoadError, match="E5 family"):
        _space(saved)


def test_a_mirror_that_was_settled_is_not_asked_again(saved: Path) -> None:
    (saved / "README.md").write_text(f"---\nbase_model: {DEFAULT_MODEL}\n---\n")
    settled = _space(saved, query_pooling=Pooling.MEAN, document_pooling=Pooling.MEAN)
    assert _space(_mirror(saved, settled)) == settled


def test_the_name_is_compared_without_case(noinstruct: Path) -> None:
    _change(noinstruct / "config.json", _name_or_path=DEFAULT_MODEL.upper())
    assert _space(noinstruct).document == CLS


def test_another_model_s_name_that_only_contains_noinstruct_is_not_it(noinstruct: Path) -> None:
    _change(noinstruct / "config.json", _name_or_path=f"{DEFAULT_MODEL}-tuned")
    with pytest.raises(ModelLoadError, match="--query-pooling and --document-pooling"):
        _space(noinstruct)


def test_a_model_that_says_nothing_is_refused_until_both_poolings_are_given(silent: Path) -> None:
    for settings in ({}, {"query_pooling": Pooling.MEAN}, {"document_pooling": Pooling.CLS}):
        with pytest.raises(ModelLoadError, match="nothing says the pooling"):
            _space(silent, **settings)
    assert _space(silent, **BOTH_CLS).query == CLS


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, CLS),
        ({"pooling_mode_mean_tokens": True}, MEAN),
        ({"pooling_mode": "cls", "include_prompt": True}, CLS),
        ({"pooling_mode": ["mean"]}, MEAN),
    ],
)
def test_sentence_transformers_pooling_is_read_in_its_old_and_new_form(
    saved: Path, config: dict[str, Any], pooling: RoleEncoding
) -> None:
    space = _space(_with_modules(saved, **config))
    assert (space.query, space.document) == (pooling, pooling)


def test_sentence_transformers_length_and_dimensions_are_read(saved: Path) -> None:
    _write(saved / "config_sentence_transformers.json", {"truncate_dim": 16})
    space = _space(saved)
    assert (space.max_seq_length, space.truncate_dim, space.dimension) == (64, 16, 16)


@pytest.mark.parametrize(
    ("said", "query", "document"),
    [
        ({}, "", ""),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"query": "q: ", "document": "d: ", "passage": "p: "}}, "q: ", "d: "),
        ({"prompts": {"query": "q: ", "document": "", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"query": "q: "}}, "q: ", ""),
        ({"prompts": {"all": "a: "}, "default_prompt_name": "all"}, "a: ", "a: "),
        ({"prompts": {"query": "", "x": "a: "}, "default_prompt_name": "x"}, "", "a: "),
        ({"prompts": {"query": None}, "default_prompt_name": None}, "", ""),
        ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, "q: ", ""),
        ({"prompts": {"passage": "p: "}, "default_prompt_name": "passage"}, "", "p: "),
    ],
)
def test_prompts_are_read_for_each_role(
    saved: Path, said: dict[str, Any], query: str, document: str
) -> None:
    _write(saved / "config_sentence_transformers.json", said)
    space = _space(saved)
    assert (space.query.prompt, space.document.prompt) == (query, document)


@pytest.mark.parametrize(
    ("said", "acting"),
    [
        ({"tokenizer_args": {"model_max_length": 20}}, r"tokenizer_args .*\['model_max_length'\]"),
        *(
            ({name: {"torch_dtype": "float16", "num_hidden_layers": 1}}, rf"{name} .*\['num_h")
            for name in ("model_args", "model_kwargs", "config_args", "config_kwargs")
        ),
        ({"processor_kwargs": {"do_lower_case": True}}, "processor_kwargs"),
        (
            {"model_args": {"torch_dtype": "float16"}, "config_kwargs": {}, "config_args": None},
            None,
        ),
    ],
)
def test_arguments_that_would_change_vectors_are_refused(
    saved: Path, said: dict[str, Any], acting: str | None
) -> None:
    path = saved / "sentence_bert_config.json"
    _write(path, {"max_seq_length": 64, **said})
    if acting is None:
        assert _space(saved).max_seq_length == 64
        return
    with pytest.raises(ModelLoadError, match=acting):
        _space(saved)


def test_a_default_prompt_that_is_not_there_is_refused(saved: Path) -> None:
    said = {"prompts": {"query": "q: "}, "default_prompt_name": "gone"}
    _write(saved / "config_sentence_transformers.json", said)
    with pytest.raises(ModelLoadError, match=r"'gone'.*\['query'\]"):
        _space(saved)


def test_a_missing_normalize_module_does_not_turn_normalization_off(saved: Path) -> None:
    assert _space(saved).normalize is True


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_a_model_that_compares_lengths_too_is_refused_until_the_user_says_which(
    saved: Path, similarity: str
) -> None:
    _write(saved / "config_sentence_transformers.json", {"similarity_fn_name": similarity})
    with pytest.raises(ModelLoadError, match=f"compared by {similarity}.*--no-normalize"):
        _space(saved)
    assert _space(saved, normalize=True).normalize is True
    assert _space(saved, normalize=False).normalize is False


def test_vectors_of_unit_length_may_be_compared_in_any_way(saved: Path) -> None:
    _with_modules(
        saved, TRANSFORMER, POOLING, ("2_Normalize", "sentence_transformers.models.Normalize")
    )
    _write(saved / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    assert _space(saved).normalize is True


def test_without_files_the_length_is_the_smaller_of_tokenizer_and_positions(silent: Path) -> None:
    _change(silent / "tokenizer_config.json", model_max_length=100)
    assert _space(silent, **BOTH_CLS).max_seq_length == 100
    _change(silent / "tokenizer_config.json", model_max_length=10**30)
    assert _space(silent, **BOTH_CLS).max_seq_length == 128


# Who wins


def test_explicit_settings_win_over_every_file(saved: Path) -> None:
    _write(saved / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    changed = {
        "query_pooling": Pooling.CLS,
        "query_prompt": "",
        "document_prompt": "d: ",
        "normalize": False,
        "max_seq_length": 32,
        "truncate_dim": 8,
    }
    expected = (CLS, RoleEncoding(Pooling.MEAN, "d: "), False, 32, 8, 8)
    for folder in (saved, _mirror(saved, _space(saved))):
        space = _space(folder, **changed)
        assert expected == (
            space.query,
            space.document,
            space.normalize,
            space.max_seq_length,
            space.truncate_dim,
            space.dimension,
        )


def test_a_mirror_s_record_wins_over_sentence_transformers_files(saved: Path) -> None:
    prompts = {"query_prompt": "q: ", "document_prompt": "d: "}
    recorded = _space(
        saved, normalize=False, max_seq_length=20, truncate_dim=16, **prompts, **BOTH_CLS
    )
    assert _space(_mirror(saved, recorded)) == recorded


def test_keeping_all_dimensions_is_the_same_space_as_truncating_none(saved: Path) -> None:
    assert _space(saved, truncate_dim=32).fingerprint == _space(saved).fingerprint


# What is refused


def test_sentence_transformers_files_that_contradict_noinstruct_are_shown_beside_it(
    noinstruct: Path,
) -> None:
    _with_modules(noinstruct)
    with pytest.raises(ModelLoadError) as caught:
        _space(noinstruct)
    message = str(caught.value)
    assert "Sentence Transformers files: query mean, document mean" in message
    assert "the model card: query mean, document cls" in message
    assert "--document-pooling" in message
    assert "\n" not in message
    assert _space(noinstruct, document_pooling=Pooling.CLS).document == CLS
    assert _space(noinstruct, document_pooling=Pooling.MEAN).document == MEAN


def test_a_record_that_contradicts_noinstruct_is_refused(noinstruct: Path) -> None:
    _mirror(noinstruct, _space(noinstruct, document_pooling=Pooling.MEAN))
    with pytest.raises(ModelLoadError, match=r"embedding_space\.json: query mean, document mean"):
        _space(noinstruct)


def test_a_prompt_contradicts_noinstruct_too(noinstruct: Path) -> None:
    _write(noinstruct / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    with pytest.raises(ModelLoadError, match=r"with prompt 'q: '.*--query-prompt"):
        _space(noinstruct)


def test_unusable_pooling_files_of_a_noinstruct_do_not_fall_back_silently(noinstruct: Path) -> None:
    _with_modules(noinstruct, pooling_mode="max")
    with pytest.raises(ModelLoadError, match="no usable pooling"):
        _space(noinstruct)


def test_a_noinstruct_folder_whose_files_agree_is_accepted(noinstruct: Path) -> None:
    assert _space(_mirror(noinstruct, _space(noinstruct))).document == CLS


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling max"),
        ({"pooling_mode": "lasttoken"}, "pooling lasttoken"),
        ({"pooling_mode_weightedmean_tokens": True}, "pooling weightedmean"),
        ({"pooling_mode": ["cls", "mean"]}, "pooling cls and mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "pooling cls and max"),
        ({"pooling_mode_mean_tokens": False}, "pooling none"),
    ],
)
def test_a_pooling_that_the_encoder_lacks_is_refused_unless_both_are_given(
    saved: Path, config: dict[str, Any], shown: str
) -> None:
    _with_modules(saved, **config)
    with pytest.raises(ModelLoadError, match=f"{shown}.*--query-pooling and --document-pooling"):
        _space(saved)
    assert _space(saved, **BOTH_CLS).query == CLS


@pytest.mark.parametrize(
    ("modules", "shown"),
    [
        ((TRANSFORMER, POOLING, ("2_Dense", "sentence_transformers.models.Dense")), "Dense"),
        ((TRANSFORMER, POOLING, ("2_LN", "sentence_transformers.models.LayerNorm")), "LayerNorm"),
        ((TRANSFORMER, POOLING, POOLING), "two poolings"),
        ((("", "modeling_x.MyTransformer"), POOLING), "code of the model's own"),
        ((("0_Transformer", TRANSFORMER[1]), POOLING), "0_Transformer"),
        ((("", "sentence_transformers.models.BoW"), POOLING), "BoW"),
    ],
)
def test_modules_that_the_encoder_does_not_apply_are_refused_even_with_poolings_given(
    saved: Path, modules: tuple[tuple[str, str], ...], shown: str
) -> None:
    _with_modules(saved, *modules)
    with pytest.raises(ModelLoadError, match=shown):
        _space(saved, **BOTH_CLS)


def test_a_prompt_left_out_of_the_pooling_is_refused(saved: Path) -> None:
    _with_modules(saved, pooling_mode="mean", include_prompt=False)
    with pytest.raises(ModelLoadError, match="include_prompt"):
        _space(saved)


def test_tokens_that_are_normalized_before_they_are_pooled_are_refused(saved: Path) -> None:
    normalize = ("1_Normalize", "sentence_transformers.models.Normalize")
    _with_modules(saved, TRANSFORMER, normalize, POOLING)
    assert _space(saved).query == MEAN
    _write(saved / "1_Normalize/config.json", {"module_input_name": "token_embeddings"})
    with pytest.raises(ModelLoadError, match=r"1_Normalize.*'token_embeddings'"):
        _space(saved)


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"do_lower_case": True}, "do_lower_case"),
        ({"transformer_task": "fill-mask"}, "fill-mask"),
        ({"modality_config": {"text": {"method_output_name": "pooler_output"}}}, "pooler_output"),
        ({"modality_config": {"message": {"method": "forward"}}}, "message"),
        ({"processing_kwargs": {"text": {"max_length": 16}}}, "processing_kwargs"),
        ({"query_length": 16}, "query_length"),
        ({"document_length": 16}, "document_length"),
        ({"query_expansion": {"length": 32}}, "query_expansion"),
        ({"tokenizer_name_or_path": "org/name"}, "tokenizer_name_or_path"),
        ({"max_seq_length": "64"}, "max_seq_length"),
        ({"max_seq_length": 0}, "max_seq_length"),
    ],
)
def test_transformer_options_that_change_the_vectors_are_refused(
    saved: Path, config: dict[str, Any], shown: str
) -> None:
    _write(saved / "sentence_bert_config.json", config)
    with pytest.raises(ModelLoadError, match=shown):
        _space(saved)


@pytest.mark.parametrize(
    "name",
    ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "embedding_space.json"],
)
@pytest.mark.parametrize("content", ["{", "[1]", "3", "null"])
def test_broken_declarations_name_their_file(saved: Path, name: str, content: str) -> None:
    (saved / name).write_text(content)
    with pytest.raises(ModelLoadError, match=name):
        _space(saved)


def test_truncating_beyond_the_model_s_dimensions_shows_both_numbers(saved: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"truncate_dim 33 .* 32 dimensions"):
        _space(saved, truncate_dim=33)


def test_a_length_beyond_the_positions_shows_both_numbers(saved: Path) -> None:
    assert _space(saved, max_seq_length=128).max_seq_length == 128
    with pytest.raises(ModelLoadError, match=r"max_seq_length 129 .* 128 tokens"):
        _space(saved, max_seq_length=129)
    _write(saved / "sentence_bert_config.json", {"max_seq_length": 130})
    with pytest.raises(ModelLoadError, match=r"max_seq_length 130 .* 128 tokens"):
        _space(saved)


def test_a_model_without_any_limit_is_refused_until_a_length_is_given(silent: Path) -> None:
    _change(silent / "config.json", max_position_embeddings=None)
    (silent / "tokenizer_config.json").unlink()
    with pytest.raises(ModelLoadError, match="--max-seq-length"):
        _space(silent, **BOTH_CLS)
    assert _space(silent, max_seq_length=40, **BOTH_CLS).max_seq_length == 40


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_mirror_whose_files_changed_is_refused_with_both_digests(saved: Path, name: str) -> None:
    recorded = _space(saved)
    _mirror(saved, recorded)
    path = saved / name
    if name == "tokenizer.json":
        path.write_bytes(path.read_bytes() + b"\n")
        digest = recorded.tokenizer_sha256
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        digest = recorded.weights_sha256
    with pytest.raises(ModelLoadError, match=name) as caught:
        _space(saved)
    assert digest in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 0},
        {"space": None},
        {"space": {}},
        {"space": {"max_seq_length": "64"}},
        {"space": {"normalize": 1}},
        {"space": {"dimension": 31}},
        {"space": {"query": {"pooling": "max", "prompt": ""}}},
    ],
)
def test_a_record_that_was_edited_is_refused(saved: Path, changes: dict[str, Any]) -> None:
    path = _mirror(saved, _space(saved)) / "embedding_space.json"
    record = json.loads(path.read_text())
    if changes.get("space"):
        changes = {"space": {**record["space"], **changes["space"]}}
    _write(path, {**record, **changes})
    with pytest.raises(ModelLoadError, match=r"embedding_space\.json"):
        _space(saved)


def test_a_mirror_of_a_newer_twofold_is_left_as_it_is(saved: Path) -> None:
    path = _mirror(saved, _space(saved)) / "embedding_space.json"
    _write(path, {**json.loads(path.read_text()), "format": 2})
    with pytest.raises(NewerFormatError, match=r"embedding_space\.json .* newer .* upgrade"):
        _space(saved)


# Routers, as sentence-transformers really saves them


@pytest.fixture(scope="module")
def st() -> Any:
    return pytest.importorskip("sentence_transformers")


def test_a_saved_router_gives_each_role_its_pooling(st: Any, silent: Path, tmp_path: Path) -> None:
    modules = st.sentence_transformer.modules
    transformer = modules.Transformer(str(silent))
    routes = {"query": [modules.Pooling(32, "mean")], "document": [modules.Pooling(32, "cls")]}
    model = st.SentenceTransformer(
        modules=[transformer, modules.Router(routes), modules.Normalize()],
        prompts={"query": "q: "},
        device="cpu",
    )
    model.save(str(tmp_path / "routed"))
    space = _space(tmp_path / "routed")
    assert space.query == RoleEncoding(Pooling.MEAN, "q: ")
    assert space.document == CLS


def test_a_router_in_front_of_the_transformer_is_refused(
    st: Any, silent: Path, tmp_path: Path
) -> None:
    modules = st.sentence_transformer.modules
    transformer = modules.Transformer(str(silent))
    routes = {
        "query": [transformer, modules.Pooling(32, "mean")],
        "document": [transformer, modules.Pooling(32, "cls")],
    }
    st.SentenceTransformer(modules=[modules.Router(routes)], device="cpu").save(
        str(tmp_path / "routed")
    )
    with pytest.raises(ModelLoadError, match="Router in front"):
        _space(tmp_path / "routed")


def _with_router(folder: Path, structure: dict[str, list[str]], **parameters: Any) -> Path:
    router = ("1_Router", "sentence_transformers.base.modules.router.Router")
    _with_modules(folder, TRANSFORMER, router)
    modules = {module for route in structure.values() for module in route}
    kind = "sentence_transformers.sentence_transformer.modules.pooling.{}"
    config = {
        "types": {module: kind.format(module.rpartition("_")[2]) for module in modules},
        "structure": structure,
        "parameters": parameters,
    }
    _write(folder / "1_Router/router_config.json", config)
    for module in modules:
        mode = "cls" if "cls" in module else "mean"
        _write(folder / "1_Router" / module / "config.json", {"pooling_mode": mode})
    return folder


def test_route_mappings_decide_the_route_of_a_role(silent: Path) -> None:
    mappings = {"('query', None)": "short", "(None, 'text')": "long"}
    folder = _with_router(
        silent, {"short": ["a_cls_Pooling"], "long": ["b_Pooling"]}, route_mappings=mappings
    )
    space = _space(folder)
    assert (space.query, space.document) == (CLS, MEAN)


def test_a_router_without_a_route_for_documents_is_refused(silent: Path) -> None:
    folder = _with_router(silent, {"query": ["a_Pooling"], "image": ["b_Pooling"]})
    with pytest.raises(ModelLoadError, match=r"found \['image', 'query'\]"):
        _space(folder)


def test_a_route_with_a_module_of_its_own_is_refused(silent: Path) -> None:
    folder = _with_router(
        silent, {"query": ["a_Pooling", "c_Dense"], "document": ["b_cls_Pooling"]}
    )
    with pytest.raises(ModelLoadError, match="route of query, found Pooling, Dense"):
        _space(folder)
