"""Flags, environment and YAML fill one model; problems are lines that name the flag."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from pydantic import BaseModel

from command_line.parse import parse_settings
from command_line.sources import NEARLY, groups
from encoder.errors import InvalidInputError
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.space import Role
from pipelines.capacity.settings import PlanSettings
from pipelines.demo import DemoSettings
from pipelines.evaluation.card import CardSettings
from pipelines.evaluation.classification import ClassificationSettings
from pipelines.evaluation.mteb_tasks import MtebSettings
from pipelines.evaluation.retrieval_settings import RetrievalSettings
from pipelines.evaluation.sts import StsSettings
from pipelines.export import ExportSettings
from pipelines.pull import PullSettings
from pipelines.quantize import QuantizeSettings
from pipelines.search import SearchSettings
from pipelines.settings import Actors, EmbedCorpusSettings
from pipelines.source.units import Format
from pipelines.verify import VerifySettings
from serving.serve import ServeCommandSettings
from serving.settings import ServingSettings

NEEDED = ["--input", "docs/", "--output", "out/"]


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    import os

    for name in list(os.environ):
        if name.upper().startswith("TWOFOLD_"):
            monkeypatch.delenv(name)


def parse(*argv: str, model: type[BaseModel] = EmbedCorpusSettings):
    return parse_settings(model, argv, prog="twofold embed", description="Embed a corpus.")


def problems(*argv: str) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        parse(*argv)
    return str(caught.value).splitlines()


def write_yaml(folder: Path, text: str) -> Sequence[str]:
    (folder / "job.yaml").write_text(text)
    return ["--config", str(folder / "job.yaml")]


def test_without_flags_every_setting_has_its_default():
    assert parse(*NEEDED) == EmbedCorpusSettings(input=("docs/",), output="out/")


def test_several_inputs_follow_one_flag_or_many():
    assert parse("--input", "a", "b", "--input", "c", "--output", "o").input == ("a", "b", "c")


def test_text_columns_are_given_by_repeating_the_flag():
    parsed = parse(*NEEDED, "--text-column", "title", "--text-column", "text")
    assert parsed.text_column == ("title", "text")


def test_passed_through_columns_are_separated_by_commas():
    assert parse(*NEEDED, "--columns", "a,b", "--columns", "c").columns == ("a", "b", "c")


def test_settings_of_the_encoder_are_flags_of_their_own():
    parsed = parse(*NEEDED, "--model", "m", "--backend", "torch", "--max-seq-length", "64")
    assert parsed.encoder == EncoderSettings(
        model="m", backend=BackendName.TORCH, max_seq_length=64
    )


@pytest.mark.parametrize(
    ("flags", "expected"), [([], None), (["--normalize"], True), (["--no-normalize"], False)]
)
def test_an_optional_switch_has_three_states(flags: list[str], expected: bool | None):
    assert parse(*NEEDED, *flags).encoder.normalize is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("auto", None), ("parquet", Format.PARQUET), ("csv", Format.CSV)]
)
def test_the_input_format_takes_auto(value: str, expected: Format | None):
    assert parse(*NEEDED, "--input-format", value).input_format is expected


def test_an_actor_pool_is_one_number_or_two():
    assert parse(*NEEDED, "--actors", "2:8").actors == Actors(min=2, max=8)
    assert parse(*NEEDED, "--actors", "3").actors == Actors(min=3, max=3)


def test_every_setting_can_be_a_flag_and_stands_in_the_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    fields = [*EmbedCorpusSettings.model_fields, *EncoderSettings.model_fields]
    flags = {f"--{name.replace('_', '-')}" for name in fields if name != "encoder"}
    assert flags <= set(re.findall(r"--[a-z-]+", text))


def test_the_help_shows_defaults_and_choices(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 10000)" in text
    assert "--input-format {auto,parquet,jsonl,csv,text}" in text
    assert "(default: document)" in text
    assert text.count("(required)") == 2
    assert not re.search(r"\(default: (None|\(\))?\)", text)
    assert "SUPPRESS" not in text


def test_a_yaml_file_has_the_names_of_the_flags_nested_or_flat(tmp_path: Path):
    text = """
        input: [a, b]
        output: out
        rows-per-shard: 7
        max_seq_length: 64
        encoder: {model: m}
        actors: {min: 1, max: 2}
    """
    parsed = parse(*write_yaml(tmp_path, text))
    assert parsed == EmbedCorpusSettings(
        input=("a", "b"),
        output="out",
        rows_per_shard=7,
        encoder=EncoderSettings(model="m", max_seq_length=64),
        actors=Actors(min=1, max=2),
    )


@pytest.mark.parametrize(
    ("text", "expected"), [("2:8", (2, 8)), ("1:30", (1, 30)), ("4", (4, 4)), ("'3'", (3, 3))]
)
def test_a_range_in_yaml_is_what_it_is_in_a_flag(tmp_path: Path, text: str, expected: object):
    actors = parse(*NEEDED, *write_yaml(tmp_path, f"actors: {text}")).actors
    assert (actors.min, actors.max) == expected
    assert parse(*NEEDED, *write_yaml(tmp_path, "rows_per_shard: 010")).rows_per_shard == 10


def test_a_name_that_is_given_twice_in_yaml_is_refused(tmp_path: Path):
    config = write_yaml(tmp_path, "encoder: {model: m}\ninput: a\ninput: b\n")
    (problem,) = problems(*NEEDED, *config)
    assert "expected each name once, found ['input'] again" in problem


def test_merges_in_yaml_lie_below_what_a_mapping_says_itself(tmp_path: Path):
    text = "encoder: &e {<<: {device: cpu, model: below}, model: m}\ninput: a\noutput: o\n"
    parsed = parse(*write_yaml(tmp_path, text))
    assert (parsed.encoder.model, parsed.encoder.device) == ("m", "cpu")


def test_one_input_in_yaml_needs_no_list(tmp_path: Path):
    assert parse(*write_yaml(tmp_path, "{input: s3://b/docs, output: o}")).input == ("s3://b/docs",)


def test_variables_are_the_names_in_capitals_nested_or_flat(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_ROLE", "query")
    monkeypatch.setenv("TWOFOLD_INPUT", '["a", "b"]')
    monkeypatch.setenv("TWOFOLD_COLUMNS", "x,y")
    monkeypatch.setenv("TWOFOLD_ACTORS", "1:2")
    monkeypatch.setenv("TWOFOLD_DTYPE", "float32")
    monkeypatch.setenv("TWOFOLD_ENCODER__MODEL", "m")
    assert parse("--output", "out") == EmbedCorpusSettings(
        input=("a", "b"),
        output="out",
        role=Role.QUERY,
        columns=("x", "y"),
        actors=Actors(min=1, max=2),
        encoder=EncoderSettings(model="m", dtype=DtypeName.FLOAT32),
    )


def test_a_variable_may_hold_a_mapping_as_json(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_ACTORS", '{"min": 1, "max": 2}')
    assert parse(*NEEDED).actors == Actors(min=1, max=2)


def test_names_by_commas_may_have_blanks_and_are_text(tmp_path: Path):
    assert parse(*NEEDED, "--columns", "x, y,", "z").columns == ("x", "y", "z")
    for value in ("5", "[1, 2]", "[x, 2]", "{x: y}"):
        found = problems(*NEEDED, *write_yaml(tmp_path, f"columns: {value}"))
        assert {line.partition(":")[0] for line in found} == {"--columns"}


def test_flags_win_over_the_environment_and_that_over_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = write_yaml(
        tmp_path, "{rows_per_shard: 1, unit_bytes: 1, chunk_overlap: 1, encoder: {model: yaml}}"
    )
    monkeypatch.setenv("TWOFOLD_ROWS_PER_SHARD", "2")
    monkeypatch.setenv("TWOFOLD_UNIT_BYTES", "2")
    monkeypatch.setenv("TWOFOLD_DEVICE", "cpu")
    parsed = parse(*NEEDED, *config, "--rows-per-shard", "3", "--backend", "torch")
    assert (parsed.rows_per_shard, parsed.unit_bytes, parsed.chunk_overlap) == (3, 2, 1)
    assert parsed.encoder == EncoderSettings(model="yaml", device="cpu", backend="torch")


def test_settings_travel_to_an_actor():
    parsed = parse(*NEEDED, "--actors", "2:8")
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_every_problem_is_one_line_that_names_its_flag():
    found = problems(
        *("--output", "o", "--rows-per-shard", "many", "--backend", "abacus"),
        *("--max-seq-length", "1", "--actors", "4:2", "--prune-max", "2"),
    )
    assert sorted(found) == [
        "--actors: expected MIN[:MAX] with MIN <= MAX, found 4:2",
        "--backend: expected 'auto', 'torch' or 'openvino', found 'abacus'",
        "--input: expected a value, found none; give it as a flag, a variable or in --config",
        "--max-seq-length: expected a value greater than or equal to 3, found '1'",
        "--prune-max: expected a value less than or equal to 1, found '2'",
        "--rows-per-shard: expected a valid integer, unable to parse string as an integer, "
        "found 'many'",
    ]


def test_a_reserved_column_is_refused_by_its_name():
    assert problems(*NEEDED, "--id-column", "embedding") == [
        "columns ['embedding'] are the job's own; rename them in the source"
    ]


@pytest.mark.parametrize("flag", ["--rows-per-shrad", "--rows-per"])
def test_an_unknown_or_shortened_flag_is_refused(flag: str):
    (problem,) = problems(*NEEDED, flag, "3")
    assert flag in problem
    assert "twofold embed --help" in problem


def test_unknown_yaml_keys_are_refused_by_name(tmp_path: Path):
    config = write_yaml(tmp_path, "{rows_per_shrad: 1, encoder: {modell: m}}")
    assert [line.partition(":")[0] for line in problems(*NEEDED, *config)] == [
        "encoder.modell",
        "rows_per_shrad",
    ]


@pytest.mark.parametrize("name", ["UNHEARD_OF", "SERVICE_HOST", "API_KEYS", "MIN_REPLICAS"])
def test_an_unknown_variable_is_somebody_elses(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(f"TWOFOLD_{name}", "1")
    assert parse(*NEEDED).output == "out/"


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("MAX_BATCH_TOKEN", "MAX_BATCH_TOKENS"),
        ("MAX_BATCH__TOKENS", "MAX_BATCH_TOKENS"),
        ("ROWS_PER_SHRD", "ROWS_PER_SHARD"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, misspelt: str, meant: str
):
    monkeypatch.setenv(f"TWOFOLD_{misspelt}", "1")
    monkeypatch.setenv(misspelt, "1")  # without our prefix it is somebody else's
    (problem,) = problems(*NEEDED)
    assert problem.startswith(f"TWOFOLD_{misspelt}: ")
    assert f"write TWOFOLD_{meant}, or unset it" in problem
    monkeypatch.delenv(f"TWOFOLD_{misspelt}")
    assert parse(*NEEDED).output == "out/"


@pytest.mark.parametrize("misspelt", ["API_KEY", "API__KEYS"])
def test_a_key_that_nobody_would_read_does_not_leave_an_endpoint_open(
    monkeypatch: pytest.MonkeyPatch, misspelt: str
):
    monkeypatch.setenv(f"TWOFOLD_{misspelt}", "secret")
    with pytest.raises(InvalidInputError, match="write TWOFOLD_API_KEYS") as caught:
        parse(model=ServingSettings)
    assert "secret" not in str(caught.value)


SETTINGS = [
    CardSettings,
    ClassificationSettings,
    DemoSettings,
    EmbedCorpusSettings,
    ExportSettings,
    MtebSettings,
    PlanSettings,
    PullSettings,
    QuantizeSettings,
    RetrievalSettings,
    SearchSettings,
    ServeCommandSettings,
    StsSettings,
    VerifySettings,
]


def test_no_commands_variable_is_nearly_anothers():
    """Else one environment could not serve both."""
    of_model = {
        model: {name for part in (model, *groups(model).values()) for name in part.model_fields}
        for model in SETTINGS
    }
    below_groups = {
        f"{group}__{name}"
        for model in SETTINGS
        for group, part in groups(model).items()
        for name in part.model_fields
    }
    every = below_groups.union(*of_model.values())
    nearly = {
        (other, name)
        for names in of_model.values()
        for other in every - names
        for name in names
        if SequenceMatcher(None, other, name).ratio() >= NEARLY
    }
    assert nearly == set()


def test_what_kubernetes_says_of_a_service_that_is_called_twofold_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("TWOFOLD_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("TWOFOLD_SERVICE_PORT", "8000")
    assert parse(model=ServeCommandSettings).port == 8000
    monkeypatch.setenv("TWOFOLD_PORT", "8001")
    assert parse(model=ServeCommandSettings).port == 8001


@pytest.mark.parametrize("value", ["null", "2024", "true", '"a phrase"', "1e3"])
def test_text_in_a_variable_is_text(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("TWOFOLD_INPUT", value)
    monkeypatch.setenv("TWOFOLD_API_KEYS", value)
    assert parse("--output", "o").input == (value,)
    keys = parse(model=ServingSettings).api_keys
    assert [key.get_secret_value() for key in keys] == [value]


def test_what_a_variable_says_wrong_is_named_with_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_ROWS_PER_SHARD", "many")
    (problem,) = problems(*NEEDED)
    assert problem.startswith("--rows-per-shard (TWOFOLD_ROWS_PER_SHARD): expected a valid integer")
    (problem,) = problems(*NEEDED, "--rows-per-shard", "many")
    assert problem.startswith("--rows-per-shard: expected a valid integer")
    monkeypatch.setenv("TWOFOLD_ROWS_PER_SHARD", "3")
    monkeypatch.setenv("TWOFOLD_BACKEND", "abacus")
    (problem,) = problems(*NEEDED)
    assert problem.startswith("--backend (TWOFOLD_BACKEND): expected 'auto', 'torch'")


def test_a_pattern_in_a_variable_may_begin_with_a_bracket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_INPUT", "[0-9]*.parquet")
    assert parse("--output", "o").input == ("[0-9]*.parquet",)


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("flag", ["--input", "--output", "--text-column"])
def test_a_shells_variable_that_is_not_set_is_refused(flag: str, value: str):
    (problem,) = problems(*NEEDED, flag, value)
    assert problem == f"{flag}: expected a value, found an empty one; is a variable not set?"


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("s3://", "expected a bucket or folder behind ://"),
        ("s3:///", "expected a bucket or folder behind ://"),
        ("s3:/lake/docs", "with one slash; add the other"),
        ("~nobody-of-that-name/docs", "found no home folder for '~nobody-of-that-name/docs'"),
        ("ftp://me:SECRET@host/docs", "expected an address without a password"),
        ("simplecache::ftp://me:SECRET@host/docs", "expected an address without a password"),
    ],
)
@pytest.mark.parametrize("flag", ["--input", "--output"])
def test_an_address_that_would_be_another_place_is_refused(flag: str, place: str, problem: str):
    (found,) = problems(*NEEDED, flag, place)
    assert found.startswith(f"{flag}: ")
    assert problem in found
    assert "SECRET" not in found


@pytest.mark.parametrize(
    "place",
    [
        *("s3://lake/a:b@c", "sftp://me@host/docs", "sftp://me:@host/x", "c:/docs", "./s3:/x"),
        *("file:///docs", "memory://docs", "github://org:repo@main/docs", "git://path:ref@repo/x"),
        *("az://container@account.dfs.core.windows.net/x", "http://127.0.0.1:8000/x@y:z"),
        *("zip://docs.jsonl::s3://lake/docs.zip", "hf://datasets/org/name@main/docs"),
    ],
)
def test_addresses_that_only_look_so_are_taken(place: str):
    assert parse("--input", place, "--output", "o").input == (place,)


@pytest.mark.parametrize(
    "text",
    [
        "{rows_per_shard: 5, rows-per-shard: 6}",
        "{model: a, encoder: {model: b}}",
        "{encoder: {model: b}, model: a}",
        "{encoder: {max-seq-length: 5, max_seq_length: 6}}",
    ],
)
def test_a_setting_that_is_given_twice_in_two_spellings_is_refused(tmp_path: Path, text: str):
    (problem,) = problems(*NEEDED, *write_yaml(tmp_path, text))
    assert problem.endswith(": expected once, found it twice in --config")


def test_a_group_that_is_no_mapping_is_named(tmp_path: Path):
    config = write_yaml(tmp_path, "encoder: noinstruct")
    assert problems(*NEEDED, *config) == ["encoder: expected settings below it, found 'noinstruct'"]


def test_a_variable_that_is_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_MODEL", "a")
    monkeypatch.setenv("TWOFOLD_ENCODER__MODEL", "b")
    assert problems(*NEEDED) == ["model: expected once, found it twice in TWOFOLD_* variables"]


def test_one_setting_may_be_said_in_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = write_yaml(tmp_path, "encoder: {model: a, dtype: float32}\nbackend: torch")
    monkeypatch.setenv("TWOFOLD_MODEL", "b")
    monkeypatch.setenv("TWOFOLD_DTYPE", "bfloat16")
    parsed = parse(*NEEDED, *config, "--model", "c").encoder
    assert (parsed.model, parsed.dtype.value, parsed.backend.value) == ("c", "bfloat16", "torch")


def test_a_group_with_nothing_below_it_says_nothing(tmp_path: Path):
    assert parse(*NEEDED, *write_yaml(tmp_path, "encoder:\n")) == parse(*NEEDED)


def test_a_config_below_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_yaml(tmp_path, "output: elsewhere/")
    assert parse("--input", "a", "--config=~/job.yaml").output == "elsewhere/"


def test_what_is_wrong_with_a_config_is_said_without_its_text(tmp_path: Path):
    (problem,) = problems(*NEEDED, *write_yaml(tmp_path, 'api_keys: "SECRET\n'))
    assert "SECRET" not in problem
    assert "line 2, column 1" in problem


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--api-key", "SECRET", "--other=SECRET"], "--api-key --other"),
        (["stray", "--api-key", "SECRET"], "stray --api-key"),
        (["stray"], "stray"),
    ],
)
def test_an_unknown_flag_is_named_without_its_value(words: list[str], shown: str):
    (problem,) = problems(*words, *NEEDED) if words[0] == "stray" else problems(*NEEDED, *words)
    assert problem == f"unrecognized arguments: {shown}; see twofold embed --help"


def test_a_device_that_is_none_is_refused_before_anything_is_planned():
    (problem,) = problems(*NEEDED, "--device", "tpu")
    assert problem == "--device: expected auto, cpu, cuda or cuda:N, found 'tpu'"


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "{a: [", "1: 2", "{1: 2, a: 3}"])
def test_a_config_that_is_no_mapping_of_names_is_refused(tmp_path: Path, text: str):
    (problem,) = problems(*NEEDED, *write_yaml(tmp_path, text))
    assert problem.startswith("--config: ")
    assert "job.yaml" in problem


@pytest.mark.parametrize("content", [b"output: \xff", b"output: \x00"])
def test_a_config_that_is_no_text_is_refused(tmp_path: Path, content: bytes):
    config = write_yaml(tmp_path, "")
    (tmp_path / "job.yaml").write_bytes(content)
    (problem,) = problems(*NEEDED, *config)
    assert "job.yaml is not YAML: " in problem


def test_a_config_that_is_missing_is_refused(tmp_path: Path):
    (problem,) = problems(*NEEDED, "--config", str(tmp_path / "none.yaml"))
    assert "none.yaml" in problem
    assert "No such file" in problem


def test_an_empty_config_says_nothing(tmp_path: Path):
    assert parse(*NEEDED, *write_yaml(tmp_path, "")) == parse(*NEEDED)


def test_a_variable_that_begins_as_json_and_is_not_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_INPUT", '["a"')
    (problem,) = problems("--output", "o")
    assert problem.startswith("TWOFOLD_INPUT: expected text or a JSON list")
