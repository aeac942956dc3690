"""A model folder's files: what is found, what is measured, what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from encoder.errors import ModelLoadError
from encoder.model.files import ModelFiles, read_model_files


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def _change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _shard(folder: Path) -> list[str]:
    """Split the weights into two shards with an index, as transformers does."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, part in zip(files, (names[:5], names[5:]), strict=True):
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: files[0] if name in names[:5] else files[1] for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return files


def test_a_whole_folder_is_described(folder: Path) -> None:
    files = read_model_files(folder)
    assert files.weights == (folder / "model.safetensors",)
    assert files.tokenizer == folder / "tokenizer.json"
    assert (files.hidden_size, files.position_limit, files.tokenizer_limit) == (32, 128, 128)


def test_the_digest_of_one_weights_file_is_the_file_s_own(folder: Path) -> None:
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert read_model_files(folder).weights_sha256() == expected


def test_the_digest_of_sharded_weights_is_over_the_shards_digests_in_name_order(
    folder: Path,
) -> None:
    names = _shard(folder)
    digests = "".join(hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names)
    files = read_model_files(folder)
    assert [path.name for path in files.weights] == names
    assert files.weights_sha256() == hashlib.sha256(digests.encode()).hexdigest()


def test_a_shard_that_is_missing_is_named(folder: Path) -> None:
    (folder / _shard(folder)[1]).unlink()
    with pytest.raises(ModelLoadError, match=r"missing are \['model-00002-of-00002"):
        read_model_files(folder)


def test_an_index_that_points_outside_the_folder_is_refused(folder: Path) -> None:
    _shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(ModelLoadError, match="secret"):
        read_model_files(folder)


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("config.json", "no transformers model"),
        ("model.safetensors", "expected model.safetensors, found none"),
        ("tokenizer.json", r"AutoTokenizer\.from_pretrained"),
    ],
)
def test_a_missing_file_is_named_with_what_to_do(folder: Path, missing: str, advice: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelLoadError, match=advice):
        read_model_files(folder)


def test_pickle_weights_are_refused_with_how_to_convert_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"only pickle \(pytorch_model.bin\).*save_pretrained"):
        read_model_files(folder)


def test_a_model_with_code_of_its_own_is_refused(folder: Path) -> None:
    _change(folder / "config.json", auto_map={"AutoModel": "modeling_x.X"})
    with pytest.raises(ModelLoadError, match="auto_map"):
        read_model_files(folder)


def test_an_adapter_is_refused_because_it_would_be_left_out(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="merge_and_unload"):
        read_model_files(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[]"])
def test_broken_json_names_the_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=name):
        read_model_files(folder)


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_cut_weights_are_refused_as_damaged(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelLoadError, match="not a whole safetensors file"):
        read_model_files(folder)


def test_a_git_lfs_pointer_is_refused_and_called_by_its_name(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:53aa\nsize 90868376\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(ModelLoadError, match="LFS pointer"):
        read_model_files(folder)


def test_a_model_without_hidden_size_is_refused_when_it_is_asked_for(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="hidden_size"):
        _ = read_model_files(folder).hidden_size


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "t5"}, None),
    ],
)
def test_the_position_limit_leaves_out_positions_that_are_kept_for_padding(
    config: dict[str, object], limit: int | None
) -> None:
    files = ModelFiles(Path("nowhere"), config, (), Path("nowhere/tokenizer.json"))
    assert files.position_limit == limit


def test_a_roberta_really_has_no_position_beyond_that_limit() -> None:
    torch = pytest.importorskip("torch")
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=12,
    )
    model = RobertaModel(config).eval()
    limit = ModelFiles(Path("x"), config.to_dict(), (), Path("y")).position_limit
    assert limit == 10
    with torch.no_grad():
        model(torch.full((1, limit), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, limit + 1), 5))


def test_a_distilbert_s_hidden_size_is_its_dim() -> None:
    files = ModelFiles(Path("x"), {"model_type": "distilbert", "dim": 768}, (), Path("y"))
    assert files.hidden_size == 768


def test_no_limit_in_the_tokenizer_s_words_is_none(folder: Path) -> None:
    _change(folder / "tokenizer_config.json", model_max_length=10**30)
    assert read_model_files(folder).tokenizer_limit is None


def test_weights_in_the_root_win_over_an_index_as_in_transformers(folder: Path) -> None:
    single = (folder / "model.safetensors").read_bytes()
    _shard(folder)
    (folder / "model.safetensors").write_bytes(single)
    assert read_model_files(folder).weights == (folder / "model.safetensors",)


def test_one_changed_weight_changes_the_digest(folder: Path) -> None:
    before = read_model_files(folder).weights_sha256()
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + np.float32(1e-3)
    save_file(tensors, folder / "model.safetensors")
    assert read_model_files(folder).weights_sha256() != before
