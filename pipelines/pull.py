"""`twofold pull`: mirror a model to a folder or a bucket.

    twofold pull --model org/name --to s3://bucket/models/name

On machines that reach no hub, `--model s3://bucket/models/name` then loads the same embedding
space: the mirror's `embedding_space.json` says which.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from encoder.errors import InvalidInputError, TwofoldError
from encoder.model.mirror import MirroredModel, mirror
from encoder.settings import EncoderSettings
from encoder.space import Pooling
from pipelines.errors import exit_code

__all__ = ["main"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "query_pooling": {"choices": [pooling.value for pooling in Pooling]},
    "document_pooling": {"choices": [pooling.value for pooling in Pooling]},
    "query_prompt": {},
    "document_prompt": {},
    "normalize": {"action": argparse.BooleanOptionalAction},
    "max_seq_length": {"type": int},
    "truncate_dim": {"type": int},
}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Args:
        argv: Arguments after `twofold pull`.
    """
    arguments = vars(_parser().parse_args(argv))
    destination = arguments.pop("to")
    try:
        mirrored = mirror(_settings(arguments), destination)
    except TwofoldError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    sys.stdout.write(_summary(mirrored, destination) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twofold pull",
        description="Mirror a model, with a record of its embedding space, to a folder or a bucket",
    )
    fields = EncoderSettings.model_fields
    parser.add_argument(
        "--model", default=fields["model"].default, help=fields["model"].description
    )
    parser.add_argument(
        "--to", required=True, metavar="URI", help="Destination: a folder or any fsspec URI"
    )
    for name, options in _OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=None, help=fields[name].description, **options)
    return parser


def _settings(arguments: dict[str, Any]) -> EncoderSettings:
    try:
        return EncoderSettings(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + "-".join(map(str, first["loc"])).replace("_", "-")
        raise InvalidInputError(f"{flag}: {first['msg']}, found {first['input']!r}") from error


def _summary(mirrored: MirroredModel, destination: str) -> str:
    space = mirrored.space
    roles = f"query {space.query.pooling.value}, document {space.document.pooling.value}"
    done = (
        f"copied {len(mirrored.copied)} files" if mirrored.copied else "nothing to do: same model"
    )
    return f"{destination}: {done}; embedding space {space.fingerprint} ({roles})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
