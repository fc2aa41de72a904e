"""Who may do what; and that a token which is no good learns nothing, whatever is wrong with it."""

from __future__ import annotations

import asyncio
import json
import time

from typer.testing import CliRunner

from citynet_api.cli import app as command
from tests.integration import api_seed
from tests.integration.api_harness import ADMIN, OPERATOR, VIEWER, add_tokens, as_, database, problem, running

NOWHERE = "/v1/alerts/0000"
# method, path, body, the lowest role that passes
PATHS = [
    ("GET", "/v1/me", None, "viewer"),
    ("GET", "/v1/alerts", None, "viewer"),
    ("GET", NOWHERE, None, "viewer"),
    ("POST", f"{NOWHERE}/ack", {"comment": ""}, "operator"),
    ("GET", "/v1/devices", None, "viewer"),
    ("GET", "/v1/devices/none", None, "viewer"),
    ("POST", "/v1/devices", [], "admin"),
    ("GET", "/v1/districts", None, "viewer"),
    ("GET", "/v1/assets", None, "viewer"),
    ("GET", "/v1/edges", None, "viewer"),
    ("POST", "/v1/topology", {}, "admin"),
    ("GET", "/v1/series", None, "viewer"),
    ("GET", "/v1/series/1", None, "viewer"),
    ("GET", "/v1/series/1/readings", None, "viewer"),
    ("GET", "/v1/readings?series=1", None, "viewer"),
    ("GET", "/v1/latest", None, "viewer"),
    ("GET", "/v1/completeness", None, "viewer"),
    ("GET", "/v1/gateways", None, "viewer"),
    ("GET", "/v1/summary", None, "viewer"),
    ("GET", "/v1/dead-letters", None, "operator"),
    ("GET", "/v1/losses", None, "operator"),
]
TOKENS = {"viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}
ROLES = list(TOKENS)


def test_each_path_asks_for_its_role(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            for method, path, body, lowest in PATHS:
                problem(await client.request(method, path, json=body), 401, "unauthenticated")
                for role in ROLES:
                    answer = await client.request(method, path, json=body, headers=as_(TOKENS[role]))
                    if ROLES.index(role) >= ROLES.index(lowest):
                        assert answer.status_code in (200, 404), (method, path, role, answer.text)
                    else:
                        refused = problem(answer, 403, "forbidden")
                        assert refused["role_needed"] == lowest
                        assert lowest in refused["detail"]

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_every_documented_path_is_in_the_matrix(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            document = (await client.get("/openapi.json")).json()
            documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
            known = {NOWHERE: "/v1/alerts/{alert_id}", f"{NOWHERE}/ack": "/v1/alerts/{alert_id}/ack"}
            known |= {"/v1/devices/none": "/v1/devices/{name}", "/v1/series/1": "/v1/series/{series_id}"}
            known |= {
                "/v1/series/1/readings": "/v1/series/{series_id}/readings",
                "/v1/readings?series=1": "/v1/readings",
            }
            stated = {(method, known.get(path, path)) for method, path, _, _ in PATHS}
            open_to_all = {("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics")}
            assert documented == stated | open_to_all | {("GET", "/v1/alerts/stream")}
            for method, path in documented - open_to_all:
                assert document["paths"][path][method.lower()]["security"], path

    asyncio.run(scenario())


def test_no_good_token_is_told_why(dsn: str) -> None:
    with database(dsn) as connection:
        add_tokens(connection)
        expired = api_seed.add_token(connection, "old", "admin", "cn_" + "E" * 43, "2020-01-01T00:00Z")
        revoked = api_seed.add_token(connection, "gone", "admin", "cn_" + "R" * 43)
        connection.execute("UPDATE api_token SET revoked_at = now() WHERE name = 'gone'")
    pushing = ["token", "create", "nb", "--role", "source", "--source", "nbiot-1"]  # good, but not for the api
    source = CliRunner(env={"CITYNET_DATABASE_DSN": dsn}).invoke(command, pushing).stdout.strip()
    assert source.startswith("cn_")
    wrong = [
        {}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {ADMIN}"}, {"Authorization": ADMIN},
        as_("cn_" + "x" * 43), as_("x" * 5000), as_(ADMIN + "A"), as_(expired), as_(revoked),
        as_(source),
    ]  # fmt: skip

    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            answers = [await client.get("/v1/me", headers=headers) for headers in wrong]
            bodies = [problem(answer, 401, "unauthenticated") for answer in answers]
            assert all(body == bodies[0] for body in bodies)
            assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer realm="citynet"'}
            good = await client.get("/v1/me", headers=as_(ADMIN))
            assert good.json() == {"name": "ada", "role": "admin", "expires_at": None}

    asyncio.run(scenario())


def test_a_token_in_the_url_is_never_accepted(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            for path in ("/v1/me", "/v1/alerts", "/v1/alerts/stream"):
                for name in ("token", "access_token", "authorization"):
                    problem(await client.get(path, params={name: ADMIN}), 401, "unauthenticated")

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_a_revocation_bites_when_the_memory_of_the_token_ends(dsn: str) -> None:
    async def scenario() -> None:
        async with (
            running(dsn, token=VIEWER, token_cache_s=0) as forgetful,
            running(dsn, token=VIEWER, token_cache_s=5) as client,
        ):
            assert (await forgetful.get("/v1/me")).status_code == 200
            asked_at = time.monotonic()
            assert (await client.get("/v1/me")).status_code == 200
            with database(dsn) as connection:
                connection.execute("UPDATE api_token SET revoked_at = now()")
            problem(await forgetful.get("/v1/me"), 401, "unauthenticated")
            is_believed = (await client.get("/v1/me")).status_code == 200
            assert is_believed or time.monotonic() - asked_at >= 5

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_the_command_makes_lists_and_revokes_tokens(dsn: str) -> None:
    run = CliRunner(env={"CITYNET_DATABASE_DSN": dsn}).invoke
    made = run(command, ["token", "create", "li.na", "--role", "operator"])
    assert made.exit_code == 0
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    assert token.startswith("cn_")
    assert len(token) == 46
    as_json = json.loads(run(command, ["token", "create", "brief", "--expires-days", "2", "--json"]).stdout)
    assert as_json["role"] == "viewer"
    assert as_json["expires_at"] > as_json["created_at"]

    with database(dsn) as connection:
        stored = connection.execute("SELECT string_agg(t::text, ' ') FROM api_token t").fetchone()
    assert stored is not None
    assert token not in stored[0]

    async def status() -> int:
        async with running(dsn, token=token, token_cache_s=0) as client:
            return (await client.get("/v1/me")).status_code

    assert asyncio.run(status()) == 200
    assert run(command, ["token", "revoke", "li.na"]).exit_code == 0
    assert run(command, ["token", "revoke", "li.na"]).exit_code == 0
    assert asyncio.run(status()) == 401
    rows = {row["name"]: row["state"] for row in json.loads(run(command, ["token", "list", "--json"]).stdout)}
    assert rows == {"li.na": "revoked", "brief": "live"}
    assert token not in run(command, ["token", "list"]).stdout


def test_the_command_says_what_is_wrong_in_one_line(dsn: str) -> None:
    run = CliRunner(env={"CITYNET_DATABASE_DSN": dsn}).invoke
    run(command, ["token", "create", "twice"])
    for arguments, says in (
        (["create", "twice"], "exists already"),
        (["create", "a\nb"], "1 to 64 letters"),
        (["create", "x", "--expires-days", "0"], "--expires-days 0"),
        (["create", "x", "--role", "source"], "--role source --source ID"),
        (["create", "x", "--source", "nbiot-1"], "--role source --source ID"),
        (["create", "x", "--role", "source", "--source", "a b"], "--source: 'a b'"),
        (["revoke", "nobody"], "there is no token 'nobody'"),
    ):
        failed = run(command, ["token", *arguments])
        assert failed.exit_code == 1
        assert failed.stdout == ""
        assert failed.stderr.startswith("error: ")
        assert says in failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1


def test_the_command_says_that_the_database_is_away_or_empty(empty_dsn: str) -> None:
    empty = CliRunner(env={"CITYNET_DATABASE_DSN": empty_dsn}).invoke(command, ["token", "list"])
    assert (empty.exit_code, empty.stderr) == (
        1,
        "error: the database has no table of tokens; run: citynet db migrate\n",
    )
    away = CliRunner(env={"CITYNET_DATABASE_DSN": "postgresql://u@127.0.0.1:1/x"}).invoke(command, ["token", "list"])
    assert away.exit_code == 1
    assert away.stderr.startswith("error: database: ")
    assert len(away.stderr.strip().splitlines()) == 1
