"""The file in which a corpus says what its vectors are: `<corpus>/_space.json`.

Written by the corpus job (with more in it than the space), read by whoever must not mix spaces.
"""

from __future__ import annotations

import json

from encoder.errors import InvalidInputError, one_line
from encoder.model.object_store import open_uri
from encoder.space import EmbeddingSpace

__all__ = ["CORPUS_SPACE_FILE", "read_corpus_space"]

CORPUS_SPACE_FILE = "_space.json"


def read_corpus_space(corpus: str) -> EmbeddingSpace:
    """Return the space of a corpus' vectors.

    Args:
        corpus: Output folder of `twofold embed`, local or any fsspec URI.

    Raises:
        InvalidInputError: There is no such corpus, or its file cannot be read.
    """
    where = f"{corpus.rstrip('/')}/{CORPUS_SPACE_FILE}"
    try:
        fs, root = open_uri(corpus)
        data = json.loads(fs.cat_file(f"{root}/{CORPUS_SPACE_FILE}"))
        space = data["space"]
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"{corpus} is no corpus: expected {CORPUS_SPACE_FILE} in it; give the --output of an "
            "earlier `twofold embed`"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{where} does not say what its space is ({one_line(error)}); was it written by "
            "`twofold embed`?"
        ) from error
    except Exception as error:
        # Each store's client raises classes of its own.
        raise InvalidInputError(
            f"{where} cannot be read ({one_line(error)}); check the address, the credentials and "
            "the endpoint (AWS_ENDPOINT_URL)"
        ) from error
    return EmbeddingSpace.from_dict(space)
