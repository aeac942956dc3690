"""What the API server would say of a KubeRay object: the CRDs' schemas, defaults and CEL rules.

Unknown fields are refused, where a cluster would only warn: a misspelt field is lost in silence.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

__all__ = ["crd_problems"]

_CRDS = Path(__file__).resolve().parents[3] / "shared" / "kuberay" / "v1.7.0"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Schema = dict[str, Any]


def crd_problems(item: dict[str, Any]) -> list[str]:
    """Return what is wrong with a RayService, RayJob, ...; skip the test where no CRDs are."""
    raw, validator = _schema(item["kind"], item["apiVersion"])
    whole = copy.deepcopy(item)
    _fill_defaults(whole, raw)
    problems = [
        f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(whole)
    ]
    # As in the API server, rules are asked only of an object that has the right shape.
    return problems or list(_broken_rules(whole, raw, "$"))


@functools.cache
def _schema(kind: str, api_version: str) -> tuple[Schema, jsonschema.Draft202012Validator]:
    file = _CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.exists():
        pytest.skip("KubeRay's CRDs are not beside this repository (../shared/kuberay)")
    crd = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    version = api_version.removeprefix(crd["spec"]["group"] + "/")
    (raw,) = [
        v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version
    ]
    strict = _strict(raw)
    strict["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    return raw, jsonschema.Draft202012Validator(strict)


def _strict(schema: Any) -> Any:
    """Turn a structural schema into JSON Schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain: Schema = {
        key: {name: _strict(part) for name, part in value.items()}
        if key == "properties"
        else _strict(value)
        for key, value in schema.items()
        if key != "description"
    }
    _translate(plain)
    is_open = any(
        plain.get(f"x-kubernetes-{mark}")
        for mark in ("preserve-unknown-fields", "embedded-resource")
    )
    if "properties" in plain and not is_open:
        plain.setdefault("additionalProperties", False)
    return plain


def _translate(schema: Schema) -> None:
    """Say in JSON Schema's words what OpenAPI says in its own."""
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.pop("nullable", False) and "type" in schema:
        schema["type"] = [schema["type"], "null"]


def _fill_defaults(value: Any, schema: Schema) -> None:
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        for name, field in fields.items():
            if value.get(name) is None and "default" in field and not field.get("nullable"):
                value[name] = copy.deepcopy(field["default"])
    for part, below, _ in _parts(value, schema):
        _fill_defaults(part, below)


def _broken_rules(value: Any, schema: Schema, path: str) -> Iterator[str]:
    import cel

    for rule in schema.get("x-kubernetes-validations", []):
        # A rule over `oldSelf` speaks of a change, not of an object.
        if "oldSelf" not in rule["rule"] and not cel.evaluate(rule["rule"], {"self": value}):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    for part, below, name in _parts(value, schema):
        yield from _broken_rules(part, below, f"{path}.{name}")


def _parts(value: Any, schema: Schema) -> Iterator[tuple[Any, Schema, str]]:
    """Yield the fields or items of a value that the schema knows, each with its own schema."""
    if isinstance(value, dict):
        for name, part in value.items():
            below = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(below, dict):
                yield part, below, str(name)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, part in enumerate(value):
            yield part, schema["items"], str(index)
