"""A real server: what it answers to good and bad requests."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from served import Answer, Server, form, post, request, run_server
from stub_judge import stub_judge


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server(max_pictures=4, max_body=200_000) as running:
        yield running


def test_verdicts_are_those_of_the_judge(server: Server, picture: Callable[..., bytes]) -> None:
    content = picture(200)
    answer = server.judge(("봄.png", content), ("<b>.jpg", b"no picture"), ("c", picture(10)))
    assert answer.status == 200
    alone = stub_judge()(content)
    first, second, third = answer.json()["verdicts"]
    assert first["image"] == "봄.png"
    assert first["score"] == pytest.approx(alone.score, abs=1e-5)
    assert first["interval"] == pytest.approx(alone.interval, abs=1e-5)
    assert (first["comment"], first["alternatives"]) == ("A bright picture.", ["A dark picture."])
    light = first["attributes"]["light"]
    assert light["label"] == "bright" and set(light) == {"label", "probability"}
    assert list(first["probabilities"]["light"]) == ["bright", "dark"]
    assert second == {
        "image": "<b>.jpg",
        "error": {
            "code": "not_a_picture",
            "message": "The file is not a picture of a known format.",
        },
    }
    assert third["comment"] == "A dark picture."


def test_a_request_without_a_usable_picture_is_unprocessable(server: Server) -> None:
    answer = server.judge(("a.png", b""), ("b.png", b"text"))
    assert answer.status == 422
    assert [entry["error"]["code"] for entry in answer.json()["verdicts"]] == [
        "empty",
        "not_a_picture",
    ]


def test_a_decompression_bomb_is_refused_from_its_header(server: Server) -> None:
    stream = io.BytesIO()
    PIL.Image.new("1", (30_000, 30_000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 200_000
    (verdict,) = server.judge(("bomb.png", stream.getvalue())).json()["verdicts"]
    assert verdict["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "multipart/form-data; boundary=x", 400, "no_picture"),
        (b"", "application/json", 400, "no_picture"),
        (b"pictures=a", "application/x-www-form-urlencoded", 400, "no_picture"),
        (b"--y\r\n", "multipart/form-data; boundary=x", 400, "request"),
        (b"--x\r\nrubbish", "multipart/form-data", 400, "request"),
    ],
)
def test_bad_forms_are_told(server: Server, body: bytes, kind: str, status: int, code: str) -> None:
    response = asyncio.run(
        request(server.port, "POST", "/v1/verdicts", body, {"Content-Type": kind})
    )
    assert (response.status, response.json()["error"]["code"]) == (status, code)


def test_ten_thousand_files_are_too_many(server: Server) -> None:
    files = [("pictures", "a", b"") for _ in range(1000)]
    answer = asyncio.run(post(server.port, form(files)))
    assert answer.status == 400
    assert "4" in answer.json()["error"]["message"]
    files = [("pictures", "a", b"") for _ in range(10_000)]
    assert asyncio.run(post(server.port, form(files))).status == 413


def test_an_explanation_is_a_picture(server: Server, picture: Callable[..., bytes]) -> None:
    content = picture(200, 48)
    body = form([("picture", "a.png", content)], {"opinion": "light", "label": "dark"})
    answer = asyncio.run(post(server.port, body, "/v1/explanations"))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    with PIL.Image.open(io.BytesIO(answer.body)) as shown:
        assert shown.size == (48, 48)
        expected = stub_judge().explain(PIL.Image.open(io.BytesIO(content)), "light", label="dark")
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(expected.overlay()))


@pytest.mark.parametrize(
    ("fields", "content", "status", "code"),
    [
        ({"opinion": "weight"}, b"", 400, "opinion"),
        ({}, b"", 400, "opinion"),
        ({"opinion": "light", "label": "purple"}, b"", 400, "judge"),
        ({"opinion": "score"}, b"text", 422, "not_a_picture"),
        ({"opinion": "x" * 5000}, b"", 400, "request"),
    ],
)
def test_bad_questions_are_told(
    server: Server, fields: dict[str, str], content: bytes, status: int, code: str
) -> None:
    body = form([("picture", "a.png", content)], fields)
    answer = asyncio.run(post(server.port, body, "/v1/explanations"))
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)


def test_the_server_fails_politely(server: Server, picture: Callable[..., bytes]) -> None:
    answer = server.judge(("a.png", picture(100)))  # breaks the stub's network
    assert (answer.status, answer.json()["error"]["code"]) == (500, "internal")
    assert "network" not in answer.json()["error"]["message"]
    assert server.get("/health").status == 200


def test_what_it_tells_of_itself(server: Server, picture: Callable[..., bytes]) -> None:
    assert server.get("/health").json() == {"status": "ok"}
    assert server.get("/ready").json() == {"status": "ready"}
    about = server.get("/v1/judge").json()
    assert about == {
        "score_range": [0.0, 100.0],
        "coverage": 0.9,
        "comments": True,
        "attributes": {"light": ["dark", "bright"]},
        "multi_label": [],
        "explains": ["light", "score"],
        "limits": {"max_body": 200_000, "max_pictures": 4},
    }
    server.judge(("a.png", picture(10)), ("b", b""))
    server.get("/no/such/path/1"), server.get("/no/such/path/2")
    text = server.get("/metrics").body.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    values = dict(line.rsplit(" ", 1) for line in lines)
    assert float(values['beholder_pictures_total{outcome="judged"}']) >= 1
    assert float(values['beholder_pictures_total{outcome="empty"}']) >= 1
    assert float(values['beholder_requests_total{path="/v1/verdicts",status="200"}']) >= 1
    assert float(values['beholder_requests_total{path="other",status="404"}']) >= 2
    assert float(values["beholder_pictures_under_way"]) == 0
    assert "# TYPE beholder_batches_total counter" in text
    assert float(values["beholder_batches_total"]) >= 1
    judged = float(values['beholder_pictures_total{outcome="judged"}'])
    assert float(values["beholder_batched_pictures_total"]) >= judged
    assert not any("such/path" in line for line in lines)


def test_unknown_places_and_methods(server: Server) -> None:
    assert server.get("/v1/models").json()["error"]["code"] == "not_found"
    assert server.get("/v1/verdicts").json()["error"]["code"] == "method"
    assert server.get("/docs").status == 404  # their page loads from elsewhere


def test_browsers_are_told_to_load_nothing_from_elsewhere(server: Server) -> None:
    for path in ("/", "/page.js", "/words.js", "/page.css", "/icon.svg", "/health", "/nothing"):
        answer = server.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff"
        for word in (b"http://", b"https://", b"//cdn"):
            assert word not in answer.body.replace(b'xmlns="http://www.w3.org/2000/svg"', b"")


def test_the_description_is_openapi_with_examples(server: Server) -> None:
    description = server.get("/openapi.json").json()
    assert description["openapi"].startswith("3.")
    body = description["paths"]["/v1/verdicts"]["post"]["requestBody"]["content"][
        "multipart/form-data"
    ]
    assert body["schema"]["properties"]["pictures"]["maxItems"] == 4
    answer = description["paths"]["/v1/verdicts"]["post"]["responses"]["200"]
    example = answer["content"]["application/json"]["example"]["verdicts"][0]
    verdict = stub_judge()(PIL.Image.new("RGB", (8, 8)))
    assert set(verdict.to_dict()) <= set(example)
    refused = description["paths"]["/v1/verdicts"]["post"]["responses"]["503"]["content"]
    assert refused["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_the_page_knows_the_same_words_in_both_languages() -> None:
    page = Path(__file__).parents[2] / "src" / "beholder" / "serve" / "page"
    text = (page / "words.js").read_text("utf-8")
    english, korean = text.split("  ko: {")[0], text.split("  ko: {")[1].split("\n  },")[0]

    def names(part: str) -> set[str]:
        lines = [line.strip() for line in part.splitlines()]
        return {line.partition(":")[0] for line in lines if line.endswith('",')}

    assert names(english) == names(korean) != set()
    used = (page / "page.js").read_text("utf-8") + (page / "index.html").read_text("utf-8")
    errors = text.split("ERRORS = {")[1]
    unused = [name for name in names(english) if name not in used and name not in errors]
    assert unused == []


def test_a_box_is_judged_alone(server: Server) -> None:
    half = PIL.Image.new("RGB", (40, 20), (0, 0, 0))
    half.paste((250, 250, 250), (20, 0, 40, 20))
    stream = io.BytesIO()
    half.save(stream, "PNG")
    files = [("pictures", f"{index}.png", stream.getvalue()) for index in range(3)]

    def ask(*boxes: str) -> Answer:
        body = form([*files, *(("box", "", box.encode()) for box in boxes)])
        return asyncio.run(post(server.port, body.replace(b'; filename=""', b"")))

    judged = ask("0,0,20,20", "", " 20, 0, 40, 20.0").json()["verdicts"]
    whole = stub_judge()(half).score
    assert [row["score"] for row in judged] == pytest.approx([0, whole, 250 / 2.55], abs=1e-3)
    assert [row["score"] for row in ask().json()["verdicts"]] == pytest.approx([whole] * 3)
    outside = ask("", "100,100,120,120", "").json()["verdicts"]
    assert [row.get("error", {}).get("code") for row in outside] == [None, "box", None]
    for wrong in (["0,0,20,20"], ["0,0,20", "", ""], ["9,0,2,20", "", ""], ["x", "", ""]):
        answer = ask(*wrong)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "box"), wrong
