"""The words of every dialect for the two roles.

"Everything else is a document" is the model card's own rule: queries are pooled by the mean, and
what is classified, clustered or compared is pooled as documents are.
"""

from __future__ import annotations

from encoder.errors import InvalidInputError
from encoder.space import Role

__all__ = ["ROLE_SUFFIXES", "ROLE_WORDS", "agreed_role", "role_of"]

ROLE_WORDS: dict[str, Role] = {
    "query": Role.QUERY,  # OpenAI-style input_type (NIM, Voyage), prompt_name
    "search_query": Role.QUERY,  # Cohere, Nomic
    "retrieval.query": Role.QUERY,  # Jina
    "web_search_query": Role.QUERY,  # prompt_name of some Sentence Transformers models
    "document": Role.DOCUMENT,
    "passage": Role.DOCUMENT,  # NIM
    "search_document": Role.DOCUMENT,
    "retrieval.passage": Role.DOCUMENT,
    "sentence": Role.DOCUMENT,  # the model card's
    "classification": Role.DOCUMENT,
    "clustering": Role.DOCUMENT,
    "separation": Role.DOCUMENT,  # Jina
    "text-matching": Role.DOCUMENT,
}
ROLE_SUFFIXES: dict[str, Role] = {
    "-query": Role.QUERY,
    "-document": Role.DOCUMENT,
    "-passage": Role.DOCUMENT,
}


def role_of(word: str | None, field: str) -> Role | None:
    """Return the role that a dialect's word means; None where the request says nothing.

    Args:
        word: What the request says.
        field: The request's field, for the error.

    Raises:
        InvalidInputError: The word is none of those known; never guessed.
    """
    if word is None:
        return None
    role = ROLE_WORDS.get(word.strip().lower())
    if role is None:
        raise InvalidInputError(f"{field}: expected one of {', '.join(ROLE_WORDS)}, found {word!r}")
    return role


def agreed_role(said: dict[str, Role | None], default: Role) -> Role:
    """Return the role on which all that name one agree.

    Args:
        said: Role that a field of the request names, by the field's name; None where it is silent.
        default: Role of a request that names none.

    Raises:
        InvalidInputError: Two fields name different roles.
    """
    named = {field: role for field, role in said.items() if role is not None}
    roles = set(named.values())
    if len(roles) > 1:
        words = " and ".join(f"{field} says {role.value}" for field, role in named.items())
        raise InvalidInputError(f"expected one role, found two: {words}; leave one of them out")
    return roles.pop() if roles else default
