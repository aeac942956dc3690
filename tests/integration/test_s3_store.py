"""The store and the proxy that other tests rest on do what those tests assume."""

from __future__ import annotations

import errno
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from support.lossy_proxy import LossyProxy
from support.s3_store import S3Store

pytestmark = pytest.mark.integration


def split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def create(uri: str, data: bytes) -> None:
    with fsspec.open(uri, "xb") as file:
        file.write(data)


def test_the_environment_alone_leads_s3fs_to_the_store(s3_store: S3Store):
    uri = f"{s3_store.fresh_prefix()}/hello.txt"
    with fsspec.open(uri, "wb") as file:
        file.write(b"hello")
    bucket, key = split(uri)
    assert s3_store.client().get_object(Bucket=bucket, Key=key)["Body"].read() == b"hello"


def test_an_exclusive_create_that_loses_raises_and_changes_nothing(s3_store: S3Store):
    uri = f"{s3_store.fresh_prefix()}/data/shard.parquet"
    create(uri, b"first")
    with pytest.raises(OSError, match=r".") as caught:
        create(uri, b"second")
    assert isinstance(caught.value, FileExistsError) or caught.value.errno == errno.EINVAL
    with fsspec.open(uri, "rb") as file:
        assert file.read() == b"first"


def test_a_wrong_secret_is_refused(s3_store: S3Store):
    client = s3_store.client()
    client._request_signer._credentials.secret_key = "another"
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket=s3_store.bucket)


def test_a_made_bucket_takes_objects(s3_store: S3Store):
    uri = f"{s3_store.make_bucket('another-bucket')}/x"
    create(uri, b"x")
    with fsspec.open(uri, "rb") as file:
        assert file.read() == b"x"


def test_a_paused_store_makes_clients_time_out_and_answers_again_when_resumed(s3_store: S3Store):
    client = s3_store.client(connect_timeout=1, read_timeout=1)
    s3_store.pause()
    try:
        with pytest.raises(ReadTimeoutError):
            client.list_objects_v2(Bucket=s3_store.bucket)
    finally:
        s3_store.resume()
    assert s3_store.client().list_objects_v2(Bucket=s3_store.bucket)["KeyCount"] >= 0


def test_what_was_put_survives_a_kill_of_the_store(s3_store: S3Store):
    bucket, key = split(f"{s3_store.fresh_prefix()}/kept")
    s3_store.client().put_object(Bucket=bucket, Key=key, Body=b"kept")
    s3_store.kill()
    s3_store.restart()
    assert s3_store.client().get_object(Bucket=bucket, Key=key)["Body"].read() == b"kept"


def test_through_the_proxy_signatures_stay_valid_in_both_directions(
    s3_store: S3Store, lossy_proxy: LossyProxy
):
    bucket, key = split(f"{s3_store.fresh_prefix()}/big")
    body = bytes(range(256)) * 40_000
    client = s3_store.client(lossy_proxy.endpoint)
    client.put_object(Bucket=bucket, Key=key, Body=body)
    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert client.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(body)
    client.delete_object(Bucket=bucket, Key=key)
    assert lossy_proxy.requests == {"PUT": 1, "GET": 1, "HEAD": 1, "DELETE": 1}


def test_s3fs_works_through_the_proxy(s3_store: S3Store, lossy_proxy: LossyProxy):
    uri = f"{s3_store.fresh_prefix()}/data/a b+c.txt"
    filesystem = fsspec.filesystem(
        "s3", endpoint_url=lossy_proxy.endpoint, skip_instance_cache=True
    )
    with filesystem.open(uri, "xb") as file:
        file.write(b"hello")
    assert filesystem.cat(uri) == b"hello"
    assert [Path(name).name for name in filesystem.ls(uri.rsplit("/", 1)[0])] == ["a b+c.txt"]


def test_a_put_whose_reply_is_lost_has_arrived(s3_store: S3Store, lossy_proxy: LossyProxy):
    bucket, key = split(f"{s3_store.fresh_prefix()}/data/shard.parquet")
    lossy_proxy.drop_reply("PUT", path_contains="data/")
    client = s3_store.client(lossy_proxy.endpoint)
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key=key, Body=b"written", IfNoneMatch="*")
    assert s3_store.client().get_object(Bucket=bucket, Key=key)["Body"].read() == b"written"
    assert lossy_proxy.dropped == [("PUT", f"/{bucket}/{key}")]


def test_a_client_that_retries_after_a_lost_reply_finds_its_own_object(
    s3_store: S3Store, lossy_proxy: LossyProxy
):
    uri = f"{s3_store.fresh_prefix()}/data/shard.parquet"
    lossy_proxy.drop_reply("PUT", path_contains="data/")
    filesystem = fsspec.filesystem(
        "s3", endpoint_url=lossy_proxy.endpoint, skip_instance_cache=True
    )
    with pytest.raises(OSError, match=r"."), filesystem.open(uri, "xb") as file:
        file.write(b"mine")
    assert lossy_proxy.requests["PUT"] == 2
    assert filesystem.cat(uri) == b"mine"
