"""Which files an input names, with which version, format and partition."""

from __future__ import annotations

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from aiohttp import ClientPayloadError

from encoder.errors import InvalidInputError, StorageError
from pipelines.source import sources as sources_module
from pipelines.source.sources import current_version, list_sources, normalised
from pipelines.source.units import Format
from pipelines.storage import Storage


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(folder: Path, *inputs: str, input_format: Format | None = None) -> list[str]:
    sources = list_sources([str(folder / name) for name in inputs], input_format)
    return [str(Path(source.uri).relative_to(folder)) for source in sources]


@pytest.fixture
def memory():
    """A store that is not local, in this process."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True) if fs.exists("/bucket") else None


def test_a_folder_is_read_recursively_and_sorted_by_path(tmp_path):
    for name in ("b.jsonl", "a/z.parquet", "a/b/c.csv", "c.txt"):
        write(tmp_path / name)
    assert names(tmp_path, "") == ["a/b/c.csv", "a/z.parquet", "b.jsonl", "c.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[a].jsonl", ["a.jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"]),
        ("de*", ["deep/er/c.jsonl"]),
    ],
)
def test_a_pattern_names_files_and_folders(tmp_path, pattern, expected):
    for name in ("a.jsonl", "b.jsonl", "deep/er/c.jsonl", "other.csv"):
        write(tmp_path / name)
    assert names(tmp_path, pattern) == expected


def test_a_file_under_two_inputs_is_read_once_under_the_first(tmp_path):
    write(tmp_path / "d" / "a.jsonl")
    write(tmp_path / "d" / "b.jsonl")
    sources = list_sources([f"{tmp_path}/d/*.jsonl", f"{tmp_path}/d/"], None)
    assert len(sources) == 2
    assert {source.root for source in sources} == {f"{tmp_path}/d/*.jsonl"}


def test_a_relative_input_becomes_an_absolute_path(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    (source,) = list_sources(["./a.jsonl"], None)
    assert source.uri == source.root == str(tmp_path / "a.jsonl")


@pytest.fixture
def web(tmp_path):
    """A folder behind HTTP, whose listings say neither types nor sizes."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": 1}\n')
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["a.jsonl", "", "*.jsonl"])
def test_files_behind_http_are_found_with_their_size(web, name):
    (source,) = list_sources([f"{web}/{name}"], None)
    assert (source.uri, source.size_bytes) == (f"{web}/a.jsonl", 10)


def test_a_file_uri_is_the_same_file_as_its_path(tmp_path):
    path = write(tmp_path / "a.jsonl")
    assert list_sources([f"file://{path}"], None) == list_sources([str(path)], None)


@pytest.mark.parametrize("name", ["a[1].jsonl", "a*.jsonl", "a::b.jsonl", "a b#c?.jsonl"])
def test_a_file_with_pattern_characters_in_its_name_is_that_file(tmp_path, name):
    path = write(tmp_path / name)
    write(tmp_path / "a1.jsonl")
    assert [source.uri for source in list_sources([str(path)], None)] == [str(path)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.parquet", (Format.PARQUET, None)),
        ("a.pq", (Format.PARQUET, None)),
        ("A.PARQUET", (Format.PARQUET, None)),
        ("a.jsonl", (Format.JSONL, None)),
        ("a.ndjson", (Format.JSONL, None)),
        ("a.json.gz", (Format.JSONL, "gzip")),
        ("a.jsonl.gz", (Format.JSONL, "gzip")),
        ("a.v2.jsonl.zst", (Format.JSONL, "zstd")),
        ("a.csv", (Format.CSV, None)),
        ("a.csv.gz", (Format.CSV, "gzip")),
        ("a.txt", (Format.TEXT, None)),
        ("a.text.zst", (Format.TEXT, "zstd")),
    ],
)
def test_the_name_tells_format_and_compression(tmp_path, name, expected):
    (source,) = list_sources([str(write(tmp_path / name))], None)
    assert (source.format, source.compression) == expected


@pytest.mark.parametrize("name", ["a.tsv", "a.json", "a", "a.gz", "a.parquet.gz", "a.jsonl.bz2"])
def test_a_name_that_tells_no_format_is_refused_and_named(tmp_path, name):
    write(tmp_path / name)
    write(tmp_path / "good.jsonl")
    with pytest.raises(InvalidInputError, match="--input-format") as error:
        list_sources([str(tmp_path)], None)
    assert str(tmp_path / name) in str(error.value)


def test_many_unknown_names_make_one_short_line(tmp_path):
    for number in range(50):
        write(tmp_path / f"{number:02d}.tsv")
    with pytest.raises(InvalidInputError, match="and 47 more") as error:
        list_sources([str(tmp_path)], None)
    assert "\n" not in str(error.value)


def test_input_format_overrides_names_and_keeps_their_compression(tmp_path):
    write(tmp_path / "a.log.gz")
    write(tmp_path / "b.csv")
    sources = list_sources([str(tmp_path)], Format.TEXT)
    assert [(source.format, source.compression) for source in sources] == [
        (Format.TEXT, "gzip"),
        (Format.TEXT, None),
    ]


def test_hidden_and_underscored_names_are_passed_over_below_a_folder_or_pattern(tmp_path):
    visible = write(tmp_path / "a.jsonl")
    for name in ("_SUCCESS", ".a.jsonl.crc", "_temporary/0/b.jsonl", ".git/c.jsonl", "_d.jsonl"):
        write(tmp_path / name)
    assert names(tmp_path, "") == names(tmp_path, "*") == names(tmp_path, "**") == [visible.name]


def test_a_hidden_name_that_the_input_spells_out_is_read(tmp_path):
    write(tmp_path / "_staging" / ".b.jsonl")
    assert names(tmp_path, "_staging/.b.jsonl") == ["_staging/.b.jsonl"]
    assert names(tmp_path, "_staging/.b*") == ["_staging/.b.jsonl"]


def test_a_folder_inside_a_hidden_folder_can_be_the_input(tmp_path):
    write(tmp_path / ".cache" / "a.jsonl")
    assert names(tmp_path, ".cache") == [".cache/a.jsonl"]


@pytest.fixture
def linked(tmp_path):
    """A folder with a link to a file and one to a folder, as model and data caches have them."""
    write(tmp_path / "blobs" / "a.jsonl")
    write(tmp_path / "blobs" / "more" / "b.jsonl")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").symlink_to("../blobs/a.jsonl")
    (tmp_path / "in" / "sub").symlink_to("../blobs/more")
    return tmp_path


@pytest.mark.parametrize("name", ["in", "in/*", "in/**"])
def test_links_are_followed(linked, name):
    assert names(linked, name) == ["in/a.jsonl", "in/sub/b.jsonl"]


def test_a_link_to_a_file_can_be_the_input(linked):
    assert names(linked, "in/a.jsonl") == ["in/a.jsonl"]


def test_a_loop_of_links_ends(linked):
    (linked / "in" / "loop").symlink_to(".")
    (linked / "blobs" / "more" / "back").symlink_to("../../in")
    assert names(linked, "in") == ["in/a.jsonl", "in/sub/b.jsonl"]


def test_a_file_and_links_to_it_or_its_folder_are_one_file_with_its_own_name(tmp_path):
    for folder in ("2024", "deep/er", "zz"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        write(tmp_path / "in" / folder / "a.jsonl")
    (tmp_path / "in" / "a-link").symlink_to("zz")
    (tmp_path / "in" / "er").symlink_to("deep/er")
    (tmp_path / "in" / "deep" / "a.jsonl").symlink_to("../zz/a.jsonl")
    (tmp_path / "in" / "latest.jsonl").symlink_to("2024/a.jsonl")
    write(tmp_path / "else" / "b.jsonl")
    (tmp_path / "in" / "b.jsonl").symlink_to("../else/b.jsonl")
    (tmp_path / "in" / "deep" / "else").symlink_to("../../else")
    own = ["in/2024/a.jsonl", "in/deep/er/a.jsonl", "in/zz/a.jsonl"]
    for given in ("in", "in/*", "in/*/*"):
        assert names(tmp_path, given) == [*own[:1], "in/deep/else/b.jsonl", *own[1:]]
    assert names(tmp_path, "*/*") == ["else/b.jsonl", *own]
    (tmp_path / "in" / "2024" / "b.jsonl").symlink_to("a.jsonl")
    assert names(tmp_path, "in/2024/*.jsonl") == ["in/2024/a.jsonl"]


def test_links_to_one_file_that_is_not_listed_itself_are_files_of_their_own(tmp_path):
    """As git-annex and DVC store what is there twice, in two partitions perhaps."""
    write(tmp_path / "in" / ".objects" / "k")
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).symlink_to(".objects/k")
    assert names(tmp_path, "in") == ["in/a.txt", "in/b.txt"]


def test_a_table_below_a_hidden_folder_is_passed_over(tmp_path, memory):
    write(tmp_path / "in" / ".trash" / "_delta_log" / "0.json")
    write(tmp_path / "in" / "a.jsonl")
    memory.pipe_file("/bucket/in/.trash/_delta_log/0.json", b"{}")
    memory.pipe_file("/bucket/in/a.jsonl", b"{}\n")
    for root in (str(tmp_path / "in"), "memory:///bucket/in"):
        assert len(list_sources([root], None)) == 1


def test_a_file_right_below_the_root_is_no_output_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not sources_module._Below(str(tmp_path))("/docs.jsonl")
    assert sources_module._Below(str(tmp_path))(f"{tmp_path}/docs.jsonl")


def test_a_link_to_what_is_hidden_is_read(tmp_path):
    """As Kubernetes mounts a ConfigMap."""
    (tmp_path / "in" / "..2024").mkdir(parents=True)
    write(tmp_path / "in" / "..2024" / "a.jsonl")
    write(tmp_path / "in" / "_b.jsonl")
    (tmp_path / "in" / "..data").symlink_to("..2024")
    (tmp_path / "in" / "a.jsonl").symlink_to("..data/a.jsonl")
    (tmp_path / "in" / "b.jsonl").symlink_to("_b.jsonl")
    assert names(tmp_path, "in") == ["in/a.jsonl", "in/b.jsonl"]


@pytest.mark.parametrize("log", ["_delta_log/0.json", ".hoodie/hoodie.properties"])
@pytest.mark.parametrize("below", ["", "/tables/one"])
def test_a_table_with_a_log_is_refused_unless_a_pattern_names_its_files(
    tmp_path, memory, log, below
):
    (tmp_path / f"in{below}/{log}").parent.mkdir(parents=True)
    write(tmp_path / f"in{below}/{log}")
    write(tmp_path / f"in{below}/a.jsonl")
    memory.pipe_file(f"/bucket/in{below}/{log}", b"{}")
    memory.pipe_file(f"/bucket/in{below}/a.jsonl", b"{}\n")
    for root in (str(tmp_path / "in"), "memory:///bucket/in"):
        with pytest.raises(InvalidInputError, match=rf"in{below}: .*found a table with a log"):
            list_sources([root], None)
        assert len(list_sources([f"{root}{below}/*.jsonl"], None)) == 1


@pytest.mark.parametrize("name", ["in", "in/*"])
def test_a_link_to_nothing_is_refused(linked, name):
    (linked / "in" / "broken.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(InvalidInputError, match=r"broken\.jsonl"):
        list_sources([str(linked / name)], None)


@pytest.mark.parametrize("name", ["missing.jsonl", "missing", "missing/*.jsonl", "*.parquet"])
def test_an_input_that_names_nothing_is_one_clear_line(tmp_path, name):
    write(tmp_path / "a.jsonl")
    with pytest.raises(InvalidInputError) as error:
        list_sources([str(tmp_path / name)], None)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="holds no files"):
        list_sources([str(tmp_path)], None)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(InvalidInputError, match="nosuch://bucket/a"):
        list_sources(["nosuch://bucket/a"], None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_refused(tmp_path):
    tmp_path.chmod(0)
    try:
        with pytest.raises(StorageError, match="check that it may be read"):
            list_sources([str(tmp_path)], None)
    finally:
        tmp_path.chmod(0o700)


class Refusing:
    """A store that answers every listing with one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def invalidate_cache(self) -> None:
        pass

    def find(self, path: str, detail: bool) -> dict[str, dict[str, object]]:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("Access\nDenied"),
        OSError(5, "InvalidAccessKeyId"),
        ClientPayloadError("the response is not complete"),
        Exception("Service Unavailable, 503"),  # so says gcsfs
    ],
)
def test_a_store_that_refuses_is_one_line_that_says_what_to_check(monkeypatch, error):
    monkeypatch.setattr(
        "pipelines.source.listing.open_filesystem", lambda uri: (Refusing(error), "bucket/a")
    )
    with pytest.raises(StorageError, match=r"check .* the credentials or the role") as caught:
        list_sources(["s3://bucket/a"], None)
    assert "s3://bucket/a" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_that_does_not_tell_a_files_version_says_nothing_of_the_file(monkeypatch, memory):
    memory.pipe_file("/in/a.jsonl", b"{}")

    def refuse(*_: object, **__: object) -> None:
        raise Exception("Service Unavailable, 503")

    monkeypatch.setattr(type(memory), "info", refuse)
    with pytest.raises(StorageError, match=r"look up memory://in/a\.jsonl: .*503; check"):
        current_version("memory://in/a.jsonl")


def test_hive_folders_give_partition_values(tmp_path):
    write(tmp_path / "date=2024-01-01" / "lang=en%2FUS" / "a.jsonl")
    write(tmp_path / "date=2024-01-02" / "lang=" / "a.jsonl")
    first, second = list_sources([str(tmp_path)], None)
    assert first.partition == (("date", "2024-01-01"), ("lang", "en/US"))
    assert second.partition == (("date", "2024-01-02"), ("lang", ""))


def test_partition_values_do_not_depend_on_how_the_file_was_named(tmp_path):
    path = write(tmp_path / "lang=en" / "a.jsonl")
    inputs = (tmp_path, path.parent, path, tmp_path / "lang=*")
    assert {list_sources([str(name)], None)[0].partition for name in inputs} == {(("lang", "en"),)}


def test_files_with_different_partition_folders_are_refused(tmp_path):
    write(tmp_path / "lang=en" / "a.jsonl")
    write(tmp_path / "b.jsonl")
    with pytest.raises(InvalidInputError, match="same partition folders"):
        list_sources([str(tmp_path)], None)


def test_a_local_version_is_size_and_time_in_nanoseconds(tmp_path):
    path = write(tmp_path / "a.jsonl", b"12345")
    status = path.stat()
    assert current_version(str(path)) == (f"5-{status.st_mtime_ns}", 5)
    (source,) = list_sources([str(path)], None)
    assert (source.version, source.size_bytes) == current_version(str(path))


def test_a_rewritten_file_has_another_version(tmp_path):
    path = write(tmp_path / "a.jsonl", b"12345")
    before = current_version(str(path))
    path.write_bytes(b"54321")
    os.utime(path, ns=(1, 1))
    assert current_version(str(path)) != before


def test_a_vanished_file_has_no_version(tmp_path):
    with pytest.raises(FileNotFoundError):
        current_version(str(tmp_path / "gone.jsonl"))


class Tagged:
    """A store whose listing cache is stale."""

    def __init__(self) -> None:
        self.stale = True

    def invalidate_cache(self, path: str) -> None:
        self.stale = False

    def info(self, path: str) -> dict[str, object]:
        return {"ETag": '"old"' if self.stale else '"new-2"', "size": 7, "name": path}


def test_a_version_is_the_etag_without_quotes_and_never_from_a_cache(monkeypatch):
    monkeypatch.setattr("pipelines.source.sources.open_filesystem", lambda uri: (Tagged(), "b/k"))
    assert current_version("s3://b/k") == ("new-2", 7)


def test_a_remote_folder_keeps_full_uris(memory):
    memory.pipe_file("/bucket/docs/a.jsonl", b"{}\n")
    memory.pipe_file("/bucket/docs/_SUCCESS", b"")
    (source,) = list_sources(["memory://bucket/docs/"], None)
    assert source.uri == "memory:///bucket/docs/a.jsonl"
    assert (source.version, source.size_bytes) == current_version(source.uri)


def test_two_colons_in_a_key_are_part_of_its_name(memory):
    memory.pipe_file("/bucket/docs/std", b"another file\n")
    memory.pipe_file("/bucket/docs/std::vec.jsonl", b"{}\n")
    for given in ("memory:///bucket/docs/std::vec.jsonl", "memory:///bucket/docs/std::*.jsonl"):
        (source,) = list_sources([given], None)
        assert source.uri == "memory:///bucket/docs/std::vec.jsonl"
        assert current_version(source.uri)[1] == 3


def test_what_a_job_wrote_below_its_input_is_no_input(tmp_path, memory):
    for folder in ("in", "in/vectors/data", "in/vectors/data2"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to(tmp_path / "in/vectors")

    def folders(given: Path, output: Path) -> list[str]:
        found = list_sources([str(given)], None, f"{output}/data")
        return [Path(each.uri).parent.name for each in found]

    (tmp_path / "linked").symlink_to(tmp_path / "in")
    for output in (tmp_path / "in/vectors", tmp_path / "link", tmp_path / "linked/vectors"):
        for given in (tmp_path / "in", tmp_path / "linked"):
            assert folders(given, output) == ["in" if given.name == "in" else "linked", "data2"]
    # What an input names is one, wherever the output is.
    assert folders(tmp_path / "in/vectors/data", tmp_path / "in/vectors") == ["data"]
    assert folders(tmp_path / "in/vectors/data/a.jsonl", tmp_path / "in/vectors") == ["data"]
    assert folders(tmp_path / "in/vectors", tmp_path / "in") == ["data", "data2"]
    (tmp_path / "in/vectors/data2/a.jsonl").unlink()
    with pytest.raises(InvalidInputError, match="found what an earlier run has written alone"):
        folders(tmp_path / "in/vectors", tmp_path / "in/vectors")

    memory.pipe_file("/bucket/docs/a.jsonl", b"{}\n")
    memory.pipe_file("/bucket/docs/out/data/x.parquet", b"{}\n")
    (source,) = list_sources(["memory:///bucket/docs"], None, "memory:///bucket/docs/out/data")
    assert source.uri.endswith("/a.jsonl")


def test_another_name_of_a_protocol_names_the_same_files():
    assert normalised("s3a://lake/docs/") == "s3://lake/docs"
    assert normalised("s3a://s3a-lake/docs") == "s3://s3a-lake/docs"
    assert Storage("s3a://lake/docs/vectors").below("data") == "s3://lake/docs/vectors/data"
    for other in ("nothing://lake/docs", "https://host/docs", "memory://lake", "s3://s3a/docs"):
        assert normalised(other) == other


def test_a_folder_in_the_place_of_a_file_is_no_version_of_it(tmp_path, memory):
    (tmp_path / "docs.parquet").mkdir()
    memory.pipe_file("/bucket/docs.parquet/part-0.parquet", b"")
    for uri in (str(tmp_path / "docs.parquet"), "memory:///bucket/docs.parquet"):
        with pytest.raises(FileNotFoundError):
            current_version(uri)


@pytest.mark.skipif(os.name != "posix", reason="bytes as file names")
def test_a_file_name_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.jsonl")).touch()
    with pytest.raises(InvalidInputError, match="UTF-8"):
        list_sources([str(tmp_path)], None)
