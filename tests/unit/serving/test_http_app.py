"""The web application as a whole: its docs."""

from __future__ import annotations

from support.replica_app import App


def test_the_docs_describe_every_route_and_the_shape_of_errors(app: App):
    schema = app.get("/openapi.json").json()

    assert {
        "/v1/embeddings",
        "/v1/models",
        "/v1/embed",
        "/v2/embed",
        "/embed",
        "/",
        "/info",
    } <= set(schema["paths"])
    assert schema["info"]["version"] == "1.2.3"
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert {"4XX", "5XX"} <= set(operation["responses"])
    assert app.get("/docs").status_code == 200
    assert "security" not in schema
    assert "securitySchemes" not in schema["components"]


def test_the_docs_say_where_a_key_is_asked_for():
    app = App(api_keys=("right",))
    schema = app.get("/openapi.json", headers={"authorization": "Bearer right"}).json()

    assert schema["components"]["securitySchemes"] == {
        "bearerAuth": {"type": "http", "scheme": "bearer"}
    }
    assert schema["security"] == [{"bearerAuth": []}]
    operations = {
        path: operation for path, each in schema["paths"].items() for operation in each.values()
    }
    open_to_all = {
        path for path, operation in operations.items() if operation.get("security") == []
    }
    assert open_to_all == {"/health", "/health/live", "/health/ready"}
