"""The API's description for programs, and its pages for people."""

import pytest

from rayreel.config.serving_api import VideoRequest


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def test_every_field_is_described(document):
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description")
    ]
    assert len(document["components"]["schemas"]) > 20
    assert bare == []


def test_every_parameter_and_operation_is_described(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (path, method)
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (path, parameter["name"])


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]

    def check(value):
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/components/schemas/") in schemas
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(document)


def test_bodies_that_are_read_by_hand_are_described(document):
    content = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}
    described = document["components"]["schemas"]["VideoRequest"]
    assert described["properties"].keys() == VideoRequest.model_fields.keys()
    assert described["required"] == ["prompt"]


def test_what_clients_may_not_say_is_not_described(document):
    assert "run" not in document["components"]["schemas"]["Extension"]["properties"]
    path = document["components"]["schemas"]["ImageCondition"]["properties"]["path"]
    assert "upload://NAME" in path["description"]


def test_no_operation_answers_with_fastapis_own_errors(document):
    assert "HTTPValidationError" not in str(document)
    assert all(
        "default" in operation["responses"]
        for path, item in document["paths"].items()
        for operation in item.values()
        if path.startswith("/v1/")
    )


def test_the_page_runs_no_script_but_its_own(client):
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "<title>RayReel</title>" in answer.text
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = client.get("/page/app.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert script.headers["Content-Security-Policy"] == policy
    assert client.get("/docs").status_code == 200


def test_files_beside_the_page_are_not_served(client):
    for path in ("/page/../api/app.py", "/page/%2e%2e/api/app.py", "/page/nothing.js"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
