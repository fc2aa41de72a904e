"""Settings from environment variables, over the file and under the flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from citynet.errors import ConfigError
from citynet.runtime import environment
from citynet.runtime.settings import Table, table_config, validate


class _Inner(BaseModel, extra="forbid"):
    host: str = "a"
    port: int = 1
    tags: list[str] = Field(default_factory=list)


class _Outer(Table):
    model_config = table_config("outer")

    name: str = "n"
    inner: _Inner = _Inner(host="default", port=7)
    maybe: _Inner | None = None
    numbers: list[int] = Field(default_factory=list)


def _load(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], table: dict[str, Any], **flags: object
) -> dict[str, Any]:
    for key, text in variables.items():
        monkeypatch.setenv(f"CITYNET_OUTER_{key}", text)
    return validate(_Outer, table, Path("x.toml"), flags).model_dump()


@pytest.mark.parametrize(
    ("variables", "table", "expected"),
    [
        ({}, {}, {}),
        ({"NAME": "e"}, {"name": "f"}, {"name": "e"}),
        ({"NAME": ""}, {"name": "f"}, {"name": ""}),
        ({"NUMBERS": "[3, 4]"}, {"numbers": [1]}, {"numbers": [3, 4]}),
        ({"INNER__PORT": "9"}, {"inner": {"host": "f"}}, {"inner": {"host": "f", "port": 9, "tags": []}}),
        (
            {"INNER": '{"host": "j", "port": 2}', "INNER__PORT": "9"},
            {},
            {"inner": {"host": "j", "port": 9, "tags": []}},
        ),
        ({"INNER__TAGS": '["x"]'}, {}, {"inner": {"host": "default", "port": 7, "tags": ["x"]}}),
        ({"MAYBE__PORT": "3"}, {}, {"maybe": {"host": "a", "port": 3, "tags": []}}),
        ({"INNER": "null"}, {}, {}),
    ],
)
def test_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], table: dict[str, Any], expected: dict[str, Any]
) -> None:
    default = {"name": "n", "inner": {"host": "default", "port": 7, "tags": []}, "maybe": None, "numbers": []}
    assert _load(monkeypatch, variables, table) == default | expected


def test_flags_over_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _load(monkeypatch, {"NAME": "e"}, {}, name="flag")["name"] == "flag"
    assert _load(monkeypatch, {"NAME": "e"}, {}, name=None)["name"] == "e"


def test_names_are_found_whatever_their_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("citynet_outer_inner__Port", "5")
    assert _load(monkeypatch, {}, {})["inner"]["port"] == 5


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("NUMBERS", "3,4", "environment CITYNET_OUTER_NUMBERS: not JSON: .*'3,4'"),
        ("INNER", "{", "environment CITYNET_OUTER_INNER: not JSON: "),
        ("INNER", "3", "environment CITYNET_OUTER_INNER: Input should be a valid dictionary"),
        ("MAYBE", "soon", "environment CITYNET_OUTER_MAYBE: Input should be a valid dictionary"),
        ("INNER__PROT", "3", "environment CITYNET_OUTER_INNER__PROT: Extra inputs are not permitted"),
        ("NAEM", "3", "environment CITYNET_OUTER_NAEM: unknown setting"),
    ],
)
def test_a_mistake_names_the_variable(monkeypatch: pytest.MonkeyPatch, key: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        _load(monkeypatch, {key: text}, {})


def test_merging_leaves_its_arguments_alone() -> None:
    below: dict[str, Any] = {"a": {"b": 1}}
    assert environment.merge(below, {"a": {"c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert below == {"a": {"b": 1}}
