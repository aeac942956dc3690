"""Which names a request may give as `model`, and how they are listed."""

from __future__ import annotations

from support.replica_app import NAME, V1, WIDE, App, refusal


def test_a_model_that_is_not_served_is_404_and_told_what_is(app: App):
    message = refusal(app.post(V1, input="a", model="text-embedding-3-small"), 404)

    assert "'text-embedding-3-small'" in message
    assert f"{NAME}, {NAME}-query, {NAME}-document" in message
    refusal(app.post(V1, input="a", model="text-embedding-3-small-query"), 404)


def test_every_served_name_is_answered_by_its_own_name():
    app = App(served_model_name=["a", "b"])

    assert app.post(V1, input="x").json()["model"] == "a"
    assert app.post(V1, input="x", model="b").json()["model"] == "b"
    assert app.post(V1, input="x", model="b-document").json()["model"] == "b-document"
    refusal(app.post(V1, input="x", model=NAME), 404)


def test_a_served_name_that_ends_like_a_role_is_taken_as_it_is():
    app = App(served_model_name="our-document")

    assert app.post(V1, input="x", model="our-document").headers["x-embedding-role"] == "query"
    refusal(app.post(V1, input="x", model="our"), 404)


def test_models_are_listed_with_their_roles(app: App):
    body = app.get("/v1/models").json()

    assert body["object"] == "list"
    assert {item["id"]: item["role"] for item in body["data"]} == {
        NAME: "query",
        f"{NAME}-query": "query",
        f"{NAME}-document": "document",
    }
    for item in body["data"]:
        assert item["object"] == "model"
        assert (item["max_model_len"], item["dimensions"]) == (8, 16)
        assert item["embedding_space"] == WIDE.fingerprint
        assert app.get(f"/v1/models/{item['id']}").json() == item


def test_a_model_that_is_not_there_is_404(app: App):
    assert "'org/other'" in refusal(app.get("/v1/models/org/other"), 404)


def test_a_name_that_cannot_be_written_is_not_served(app: App):
    message = refusal(app.post_text(V1, r'{"input": "a", "model": "\ud800"}'), 404)
    assert "\\ud800" in message
