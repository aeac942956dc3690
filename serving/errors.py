"""What the endpoint answers when it cannot embed: one table of statuses, one of exit codes.

TwofoldError
├── InvalidInputError          (encoder) 400
│   ├── UnknownModelError      404 `model` is not one that is served
│   └── RequestTooLargeError   413 inputs, bytes, tokens or time beyond a limit
├── RequestError               refusals that are not about the input's content
│   ├── UnauthorizedError      401 no key, or a wrong one
│   ├── SlowClientError        408 the body did not arrive in time
│   ├── UnsupportedMediaError  415 the body is not JSON by its own words
│   ├── OverloadedError        429 too many tokens wait; says when to come again
│   └── RequestTimeoutError    504 no vectors in time
├── TextFailedError            500 a text makes the model raise; its neighbours are answered
├── BackendError               (encoder) 500
└── ServeError                 503 the endpoint cannot be started, or is not ready
"""

from __future__ import annotations

from encoder.errors import (
    BackendError,
    InvalidInputError,
    ModelLoadError,
    SpaceMismatchError,
    StorageError,
    TwofoldError,
)

__all__ = [
    "OverloadedError",
    "RequestError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "ServeError",
    "SlowClientError",
    "TextFailedError",
    "UnauthorizedError",
    "UnknownModelError",
    "UnsupportedMediaError",
    "error_code",
    "error_type",
    "exit_code",
    "http_status",
]


class UnknownModelError(InvalidInputError):
    """A request names a model that is not served here."""


class RequestTooLargeError(InvalidInputError):
    """A request is larger than a limit allows; the message names the limit."""


class RequestError(TwofoldError):
    """A request that was not answered for a reason that its content does not show."""


class UnauthorizedError(RequestError):
    """A request carries no key, or a wrong one."""


class SlowClientError(RequestError):
    """A request's body did not arrive in time."""


class UnsupportedMediaError(RequestError):
    """A request's body is of another content type than JSON."""


class OverloadedError(RequestError):
    """More tokens wait than may wait.

    Attributes:
        retry_after_s: Whole seconds after which there should be room.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RequestTimeoutError(RequestError):
    """The vectors were not there in time."""


class TextFailedError(TwofoldError):
    """A text makes the model raise, by itself and again."""


class ServeError(TwofoldError):
    """The endpoint cannot be started, or did not become ready."""


_STATUSES: tuple[tuple[type[TwofoldError], int, str, str | None], ...] = (
    # The first class that matches counts, so subclasses stand before their bases. The types are
    # OpenAI's, and so are the codes of 401, 404 and 429; it has none for most others.
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (RequestTooLargeError, 413, "invalid_request_error", "request_too_large"),
    (InvalidInputError, 400, "invalid_request_error", None),
    (UnauthorizedError, 401, "authentication_error", "invalid_api_key"),
    (SlowClientError, 408, "timeout_error", "request_timeout"),
    (UnsupportedMediaError, 415, "invalid_request_error", "unsupported_media_type"),
    (OverloadedError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (RequestTimeoutError, 504, "timeout_error", "vectors_timeout"),
    (TextFailedError, 500, "server_error", "text_failed"),
    (ServeError, 503, "server_error", "not_ready"),
    (TwofoldError, 500, "server_error", None),
)

_EXIT_CODES: tuple[tuple[type[TwofoldError], int], ...] = (
    (SpaceMismatchError, 3),
    (ModelLoadError, 4),
    (BackendError, 4),
    (InvalidInputError, 2),
    (StorageError, 5),
    (ServeError, 5),
    (TwofoldError, 1),
)


def http_status(error: TwofoldError) -> int:
    """Return the HTTP status with which an error is answered."""
    return next(status for kind, status, _, _ in _STATUSES if isinstance(error, kind))


def error_type(error: TwofoldError) -> str:
    """Return OpenAI's `error.type` of an error."""
    return next(name for kind, _, name, _ in _STATUSES if isinstance(error, kind))


def error_code(error: TwofoldError) -> str | None:
    """Return OpenAI's `error.code` of an error: a word, or None where its type says enough."""
    return next(code for kind, _, _, code in _STATUSES if isinstance(error, kind))


def exit_code(error: TwofoldError) -> int:
    """Return the process exit code of an error, as the batch commands use them.

    2 bad settings, 3 another space than the corpus', 4 model or backend, 5 storage, Ray or
    Serve, 1 others.
    """
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
