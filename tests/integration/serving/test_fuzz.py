"""schemathesis against /openapi.json: no input breaks the endpoint, and it is as it says it is.

Bounded and derandomized, so that two runs send the same requests.
"""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.answers import assert_ours_is_shaped
from support.endpoints import Endpoint

pytestmark = pytest.mark.integration

OPERATIONS = [
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/embed"),
    ("POST", "/v2/embed"),
    ("POST", "/embed"),
    ("POST", "/"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/info"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
]
WITH_A_BODY = [path for method, path in OPERATIONS if method == "POST"]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
bounded = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(endpoint: Endpoint) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{endpoint.url}/openapi.json")


def fuzz(schema: BaseSchema, endpoint: Endpoint, method: str, path: str, mode: str) -> set[int]:
    """Send what fits the schema, or what does not; return the statuses that came back."""
    found = set()

    @bounded
    @given(case=schema[path][method].as_strategy(generation_mode=GenerationMode(mode)))
    def send(case: Case) -> None:
        response = case.call(base_url=endpoint.url, timeout=30)
        case.validate_response(response, checks=CHECKS)
        headers = {name: values[0] for name, values in response.headers.items()}
        assert_ours_is_shaped(response.status_code, headers, response.content)
        found.add(response.status_code)

    send()
    return found


def test_every_operation_of_the_schema_is_fuzzed(schema):
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {(each.method.upper(), each.path) for each in operations} == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_fits_the_schema_is_answered_as_the_schema_says(schema, endpoint, method, path):
    statuses = fuzz(schema, endpoint, method, path, "positive")
    assert 200 in statuses or path == "/v1/models/{model}"


@pytest.mark.parametrize("path", WITH_A_BODY)
def test_what_does_not_fit_the_schema_is_refused_as_the_schema_says(schema, endpoint, path):
    statuses = fuzz(schema, endpoint, "POST", path, "negative")
    assert statuses <= set(range(400, 500)), statuses
