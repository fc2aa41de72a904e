"""Every error is a problem document that names what was wrong; every answer carries the security headers."""

from __future__ import annotations

import asyncio

import pytest
from httpx import ASGITransport, AsyncClient

from citynet_api.app import create_app
from citynet_api.headers import SECURITY_HEADERS
from citynet_api.problems import KINDS
from citynet_api.settings import ApiSettings
from tests.integration.api_harness import ADMIN, OPERATOR, PATIENT, add_tokens, as_, database, named, problem, running
from tests.patience import DEADLINE_S

AWAY = "postgresql://u@127.0.0.1:1/x"


WRONG: list[tuple[str, dict[str, str], list[str]]] = [
    ("/v1/alerts", {"levle": "3"}, ["levle"]),
    ("/v1/alerts", {"state": "opne", "level_min": "5"}, ["state", "level_min"]),
    ("/v1/alerts", {"limit": "0"}, ["limit"]),
    ("/v1/alerts", {"limit": "501"}, ["limit"]),
    ("/v1/alerts", {"from": "2026-01-01T00:00:00"}, ["from"]),
    ("/v1/alerts", {"from": "yesterday"}, ["from"]),
    ("/v1/alerts", {"cursor": "!!"}, ["cursor"]),
    ("/v1/alerts", {"cursor": "W10"}, ["cursor"]),
    ("/v1/alerts", {"object": "a\x00b"}, ["object"]),
    ("/v1/alerts/a%00b", {}, ["alert_id"]),
    ("/v1/devices", {"registered": "perhaps"}, ["registered"]),
    ("/v1/devices", {"q": "x" * 129}, ["q"]),
    ("/v1/series", {"limit": "many"}, ["limit"]),
    ("/v1/series/0", {}, ["series_id"]),
    ("/v1/series/99999999999", {}, ["series_id"]),
    ("/v1/series/1/readings", {"bucket": "10x"}, ["bucket"]),
    ("/v1/series/1/readings", {"bucket": "1s", "from": "2026-01-01T00:00Z", "to": "2026-02-01T00:00Z"}, ["bucket"]),
    ("/v1/series/1/readings", {"bucket": "1m", "limit": "3"}, ["limit"]),
    ("/v1/series/1/readings", {"bucket": "auto", "points": "5001"}, ["points"]),
    ("/v1/dead-letters", {"cursor": "W10"}, ["cursor"]),
    ("/v1/losses", {"reason": "x" * 200}, ["reason"]),
    ("/v1/alerts/stream", {"after": "-1"}, ["after"]),
]


def test_a_wrong_parameter_is_named(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            for path, parameters, wrong in WRONG:
                answer = problem(await client.get(path, params=parameters), 422, "invalid-request")
                assert named(answer) == wrong, (path, parameters)

    with database(dsn) as connection:
        add_tokens(connection)
        connection.execute("INSERT INTO device (name, source) VALUES ('d', 'd')")
        connection.execute("INSERT INTO series (device_id, metric) SELECT id, 'm' FROM device")
    asyncio.run(scenario())


def test_paths_methods_and_bodies(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, body_bytes_max=2000) as client:
            assert "nothing at this path" in problem(await client.get("/v1/nope"), 404, "not-found")["detail"]
            problem(await client.get("/console/nope.js"), 404, "not-found")
            problem(await client.get("/console/../app.py"), 404, "not-found")
            problem(await client.get("/v1/alerts/abc"), 404, "not-found")
            refused = await client.delete("/v1/alerts")
            problem(refused, 405, "method-not-allowed")
            assert refused.headers["allow"] == "GET"
            ack = "/v1/alerts/abc/ack"
            as_json = {"Content-Type": "application/json"}
            assert named(problem(await client.post(ack, content=b"{", headers=as_json), 400, "unreadable-body")) == [
                "body"
            ]
            assert named(problem(await client.post(ack, json={"comment": "x" * 501}), 422, "invalid-request")) == [
                "comment"
            ]
            assert named(problem(await client.post(ack, json={"comment": "a\0"}), 422, "invalid-request")) == [
                "comment"
            ]
            assert named(
                problem(
                    await client.post(ack, content=b'{"comment":"\\ud800"}', headers=as_json), 422, "invalid-request"
                )
            )
            problem(await client.post(ack, json={"comment": "x" * 3000}), 413, "body-too-large")
            problem(await client.post(ack, json={"comment": "unknown alert"}), 404, "not-found")

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_a_mistake_of_ours_tells_nothing(dsn: str) -> None:
    app = create_app(ApiSettings(), {"conninfo": dsn})

    @app.get("/boom")
    async def boom() -> None:
        raise ZeroDivisionError("the secret")

    async def scenario() -> None:
        async with AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://x") as client:
            answer = await client.get("/boom")
            problem(answer, 500, "internal")
            assert "secret" not in answer.text
            for name, value in SECURITY_HEADERS.items():
                assert answer.headers[name] == value

    asyncio.run(scenario())


def test_without_a_database_the_process_lives_and_says_so() -> None:
    async def scenario() -> None:
        async with running(AWAY, pool_wait_s=0.3, connect_timeout_s=2) as client:
            assert (await client.get("/health")).json() == {"status": "alive"}
            for path in ("/ready", "/v1/alerts", "/v1/alerts/stream"):
                answer = await client.get(path)
                problem(answer, 503, "database-away")
                assert answer.headers["retry-after"] == "2"
                assert "127.0.0.1" not in answer.text
            assert "citynet_api_database_in_sight 0.0" in (await client.get("/metrics")).text

    asyncio.run(scenario())


def test_a_database_without_our_schema_is_not_ready(empty_dsn: str) -> None:
    async def scenario() -> None:
        async with running(empty_dsn) as client:
            assert "citynet db migrate" in problem(await client.get("/ready"), 503, "schema-unknown")["detail"]
            problem(await client.get("/v1/alerts"), 503, "schema-unknown")

    asyncio.run(scenario())


def test_a_query_that_takes_too_long_is_cut_off(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=OPERATOR, statement_timeout_s=0.3) as client:
            with database(dsn) as blocker, blocker.transaction():
                blocker.execute("SELECT lock_transitions()")
                problem(await client.post(f"/v1/alerts/{alert}/ack", json={}), 503, "query-timeout")
            async with asyncio.timeout(DEADLINE_S):  # what is not blocked may take that long, too, on a busy machine
                while (answer := await client.post(f"/v1/alerts/{alert}/ack", json={})).status_code == 503:
                    pass
            assert answer.status_code == 404

    alert = "abc"
    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_every_answer_carries_the_security_headers(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            for path in ("/", "/console/js/main.js", "/health", "/v1/alerts", "/v1/nope", "/openapi.json", "/metrics"):
                answer = await client.get(path, headers={"Origin": "https://evil.example"})
                for name, value in SECURITY_HEADERS.items():
                    assert answer.headers[name] == value, path
                assert answer.headers["cache-control"] == (
                    "no-cache" if path in ("/", "/console/js/main.js") else "no-store"
                )
                assert not [name for name in answer.headers if name.startswith("access-control")]

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_a_session_of_the_pool_cannot_write(dsn: str) -> None:
    from psycopg.errors import ReadOnlySqlTransaction

    from citynet_api.database import Database

    async def scenario() -> None:
        house = Database({"conninfo": dsn}, ApiSettings(**PATIENT))
        await house.open()
        try:
            async with house.session() as session:
                with pytest.raises(ReadOnlySqlTransaction):
                    await session.execute("DELETE FROM api_token")
        finally:
            await house.close()

    asyncio.run(scenario())


def test_openapi_describes_the_problems_and_every_parameter(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            document = (await client.get("/openapi.json")).json()
            assert all(f"urn:citynet:problem:{kind}" in document["info"]["description"] for kind in KINDS)
            for path, methods in document["paths"].items():
                for method, about in methods.items():
                    assert about.get("description"), (method, path)
                    assert "application/problem+json" in about["responses"]["default"]["content"], (method, path)
            assert (await client.get("/docs")).status_code == 404

    asyncio.run(scenario())


def test_admin_may_do_what_lower_roles_may(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            assert (await client.get("/v1/losses", headers=as_(ADMIN))).json() == {"items": [], "next": None}

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())
