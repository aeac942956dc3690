"""What stands before every route: ids, keys, the body's limits, overload, one shape of errors.

Pure ASGI. The body is read here, whole and bounded in size and time, so that routes never meet a
slow or an endless client. Whatever happens inside, the client gets OpenAI-shaped JSON.

Where `before_serve.py` is in place, what is refused for load is refused before Serve looks at it.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encoder.errors import InvalidInputError, TwofoldError, one_line
from serving.body import BodyReader, announced_bytes
from serving.buffered_bytes import BufferedBytes
from serving.dialects.health import HEALTH_PATHS
from serving.error_response import error_response, shortened
from serving.errors import (
    OverloadedError,
    RequestTimeoutError,
    RequestTooLargeError,
    SlowClientError,
    UnauthorizedError,
    UnsupportedMediaError,
    http_status,
)
from serving.failure_log import FailureLog
from serving.one_write import ABORT, PEER
from serving.request_record import RequestRecord, keep_record
from serving.response_sender import REQUEST_ID, ResponseSender
from serving.settings import ServingSettings
from serving.turns import Turns

if TYPE_CHECKING:
    from serving.access_log import AccessLog
    from serving.metrics import Metrics

__all__ = ["Gate"]

_logger = logging.getLogger("ray.serve")
"""Ray's logger: its records reach the replica's log file and, where configured, stderr."""
_MAX_ID_CHARACTERS = 128
_ADDRESS_CHARACTERS = 100
_REASONS: dict[type[TwofoldError], str] = {
    OverloadedError: "overloaded",
    RequestTooLargeError: "too_large",
    SlowClientError: "slow_client",
    RequestTimeoutError: "timeout",
}
"""Why a request is refused for load, size or time, as the metrics name it."""


class Gate:
    """Answers every request, by the routes or by an error.

    Args:
        settings: Limits and keys.
        metrics: Is told of every response.
        access_log: Gets a line for each request but those for health; None writes none.
        check_room: Raises where a body of so many bytes has to be refused for load.
        guarded_paths: Of the routes that it is asked for.

    Attributes:
        buffered: What is held of all requests.
        unread: What is held of large answers. Apart, so that who reads slowly keeps no
            request and no small answer from being served.
    """

    def __init__(
        self,
        settings: ServingSettings,
        metrics: Metrics,
        access_log: AccessLog | None,
        check_room: Callable[[int], None],
        guarded_paths: frozenset[str],
    ) -> None:
        self._check_room = check_room
        self._guarded_paths = guarded_paths
        self._limits = settings.limits
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
        self._access_log = access_log
        self._metrics = metrics
        self.buffered = BufferedBytes(settings.limits.max_buffered_bytes)
        self.unread = BufferedBytes(settings.limits.max_buffered_bytes)
        self._refusals = Turns()
        self._failures = FailureLog(_logger)
        self._root_path = ""

    def before(self, routes: ASGIApp) -> ASGIApp:
        """Return the application that passes on to the routes what it does not refuse."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await routes(scope, receive, send)
                return
            # Serve puts its route prefix here, which what comes before Serve cannot know.
            self._root_path = scope.get("root_path", "")
            path = scope["path"]
            if path.endswith("/") or "//" in path or path == self._root_path:
                # The framework would send the client away, to an address that may leave its TLS, or
                # know no such path: a client whose base URL ends in a slash posts to //embed.
                scope = {**scope, "path": self._root_path + _path(scope, self._root_path)}
            visit = self._visit(scope, receive, send, is_within_serve=True)
            await self._answer(visit, self._pass_on(visit, routes))

        return gated

    def check_early(self, scope: Scope) -> None:
        """Refuse what is to be embedded, by its announced size alone, before Serve sees it.

        What has no valid key is passed over: it gets its 401 behind Serve, and is no load.

        Raises:
            OverloadedError: There is no room; `refuse` answers it.
        """
        path = _path(scope, self._root_path)
        if scope["method"] != "POST" or path not in self._guarded_paths:
            return
        headers = Headers(scope=scope)
        announced = announced_bytes(headers)
        if announced is not None and announced <= self._limits.max_body_bytes:
            with contextlib.suppress(UnauthorizedError):
                self._check_key(headers)
                self._check_room(announced)

    async def refuse(
        self, refusal: OverloadedError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer what `check_early` has refused: neither Serve nor a route will see it."""
        visit = self._visit(scope, receive, send, is_within_serve=False)
        await self._answer(visit, self._turn_away(visit, refusal))

    def _visit(
        self, scope: Scope, receive: Receive, send: Send, *, is_within_serve: bool
    ) -> _Visit:
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")[:_MAX_ID_CHARACTERS]
        record = RequestRecord(given or uuid.uuid4().hex)
        keep_record(scope, record)
        # Serve puts an id where there is none, and gives it back.
        is_given_back = is_within_serve and bool(given)
        response = ResponseSender(
            send,
            None if is_given_back else record.request_id,
            self.unread.holding,
            self._limits.body_timeout_s,
            scope.get(ABORT),
        )
        body = BodyReader(self._limits, self.buffered)
        return _Visit(scope, receive, response, headers, body, record)

    async def _answer(self, visit: _Visit, answering: Awaitable[None]) -> None:
        """Await what answers a request; answer with the error where it raises one."""
        started = time.monotonic()
        scope, receive, response, record = visit.scope, visit.receive, visit.response, visit.record
        try:
            await answering
        except TwofoldError as error:
            # Its frames hold the request, and some of them the error: a cycle, which would be left
            # to the garbage collector.
            error.__traceback__ = None
            record.error = str(error)
            if reason := _REASONS.get(type(error)):
                self._metrics.rejected(record.role, reason)
            if (failure := http_status(error)) >= 500:
                self._failures.add(failure, record.request_id, shortened(record.error))
            if isinstance(error, OverloadedError):
                visit.body.close()  # many may wait, and nobody will look at what they hold
                await self._refusals.wait()
            # What is still on its way would be read and thrown away, however long it takes.
            response.closes = visit.has_body and not visit.body.is_whole
            await error_response(error)(scope, receive, response)
        except ClientDisconnect as error:
            record.error = str(error) or "the client went away before its request was complete"
        except Exception as error:
            record.error = one_line(error)
            _logger.exception("request %s met a defect", record.request_id)
            if not response.has_started:
                defect = TwofoldError(_DEFECT.format(record.request_id))
                await error_response(defect)(scope, receive, response)
        finally:
            visit.body.close()
            self._note(scope, record, response.status, time.monotonic() - started)

    async def _pass_on(self, visit: _Visit, routes: ASGIApp) -> None:
        path = _path(visit.scope, self._root_path)
        is_open = path in HEALTH_PATHS
        if not is_open:
            self._check_key(visit.headers)
        if is_open or not visit.has_body:
            # Without a key nobody gets room for a body: its method is refused (405), unread.
            visit.response.closes = visit.has_body
            await routes(visit.scope, visit.receive, visit.response)
            return
        await visit.body.read(visit.receive, visit.headers)
        _check_media_type(visit.headers)
        _check_not_upgraded(visit)
        if path in self._guarded_paths:
            self._check_room(visit.body.size)
        await routes(visit.scope, _replay(visit.body.content(), visit.receive), visit.response)

    async def _turn_away(self, visit: _Visit, refusal: OverloadedError) -> None:
        await visit.body.read(visit.receive, visit.headers)
        _check_media_type(visit.headers)
        raise refusal

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Of blanks and tabs alone: as latin-1, bytes of a UTF-8 key are white space, too.
        offered = given.strip(" \t").encode("latin-1")
        # Every key is compared, each in constant time: how long it takes says nothing of them.
        matches = [hmac.compare_digest(offered, key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise UnauthorizedError(
                "expected a valid key in `Authorization: Bearer KEY`, found "
                f"{'another one' if given else 'none'}; ask the operator for one"
            )

    def _note(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        if _path(scope, self._root_path) in HEALTH_PATHS:
            return
        embedding = record.embedding
        self._metrics.answered(record.role, record.dialect, status)
        if embedding:
            self._metrics.serialized(embedding.role, record.serialize_s)
        if self._access_log is None:
            return
        line: dict[str, object] = {
            "request_id": record.request_id,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1e3, 2),
            "client": _client(scope),
            **_forwarded_for(scope),
            "dialect": record.dialect,
            "role": record.role,
        }
        if embedding:
            line |= {
                "space": embedding.space.fingerprint,
                "inputs": len(embedding.n_tokens),
                "tokens": embedding.total_tokens,
                "truncated": len(embedding.truncated_inputs),
                "cached": embedding.cached,
                "tokenize_ms": round(embedding.tokenize_s * 1e3, 2),
                "queue_ms": round(embedding.queue_s * 1e3, 2),
                "forward_ms": round(embedding.forward_s * 1e3, 2),
                "serialize_ms": round(record.serialize_s * 1e3, 2),
            }
        if record.error is not None:
            line["error"] = shortened(record.error)
        self._access_log.add(line)


@dataclass(frozen=True)
class _Visit:
    """One request, as ASGI gives it, and what is known of it."""

    scope: Scope
    receive: Receive
    response: ResponseSender
    headers: Headers
    body: BodyReader
    record: RequestRecord

    @property
    def has_body(self) -> bool:
        return self.scope["method"] in ("POST", "PUT", "PATCH")


_MODELS = re.compile("/+v1/+models/")
_SLASHES = re.compile("//+")
_DEFECT = "a defect in the endpoint; its log has the details under request id {}"


def _path(scope: Scope, root_path: str) -> str:
    """Return what a request asks for below Serve's route prefix, without slashes too many.

    Those of a model's name (s3://bucket, /folder) are its own.
    """
    path: str = scope["path"].removeprefix(root_path)
    if "//" in path:
        models = _MODELS.match(path)
        name_at = models.end() if models else len(path)
        path = _SLASHES.sub("/", path[:name_at]) + path[name_at:]
    return path.rstrip("/") or "/"


def _check_media_type(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "identity").strip()
    if encoding.lower() not in ("identity", ""):
        raise UnsupportedMediaError(
            f"content-encoding: expected none, found {encoding!r}; send the body uncompressed"
        )
    media_type = headers.get("content-type", "application/json").partition(";")[0].strip()
    if media_type.lower() != "application/json":
        raise UnsupportedMediaError(
            f"content-type: expected application/json, found {media_type!r}; send JSON"
        )


def _check_not_upgraded(visit: _Visit) -> None:
    """Name the cause where uvicorn's parser has left a body out: no message says it otherwise."""
    if not visit.body.size and "upgrade" in visit.headers:
        raise InvalidInputError(
            "expected a body, found none behind an Upgrade header, with which the server reads "
            "none; send HTTP/1.1 without it (Java: HttpClient.Builder.version(HTTP_1_1))"
        )


def _client(scope: Scope) -> str:
    """Return who is connected; without `before_serve.py`, what the server takes for it."""
    client: Sequence[object] = scope.get("client") or "-"
    return str(scope.get(PEER, client[0]))[:_ADDRESS_CHARACTERS]


def _forwarded_for(scope: Scope) -> dict[str, str]:
    """Return the end of what X-Forwarded-For says, where gateways add whom they know."""
    given = ", ".join(Headers(scope=scope).getlist("x-forwarded-for"))
    return {"forwarded_for": given[-_ADDRESS_CHARACTERS:]} if given else {}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once more, then whatever comes after it (that the client went away)."""
    is_given = False

    async def replayed() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
