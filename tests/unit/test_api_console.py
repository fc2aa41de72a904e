"""The files of the console keep to the policy that the server sends, and every word exists in both languages."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from citynet_api import queries

CONSOLE = Path(str(files("citynet_api"))) / "console"
SCRIPTS = sorted(CONSOLE.glob("js/*.js"))
PAGE = (CONSOLE / "index.html").read_text(encoding="utf-8")
WORDS_FILE = (CONSOLE / "js" / "i18n.js").read_text(encoding="utf-8")
_STRING = r'"(?:[^"\\]|\\.)*"'
_ENTRY = re.compile(rf'^  "([\w.]+)": \[\s*({_STRING}),\s*({_STRING}),?\s*\],$', re.M)


def words() -> dict[str, tuple[str, str]]:
    return {key: (chinese[1:-1], english[1:-1]) for key, chinese, english in _ENTRY.findall(WORDS_FILE)}


def test_the_page_holds_no_inline_script_or_style_and_nothing_from_elsewhere() -> None:
    assert not re.search(r"<script(?![^>]*\bsrc=)", PAGE)
    assert not re.search(r"<style|\sstyle=|\son\w+=", PAGE)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', PAGE)) == {
        "/console/icon.svg", "/console/css/base.css", "/console/css/console.css", "/console/js/main.js",
    }  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_from_text_and_load_nothing_from_elsewhere(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r'"style"|style:', text)  # a style attribute is blocked by the policy
    assert [url for url in re.findall(r"https?://[^\"'\s]+", text) if url != "http://www.w3.org/2000/svg"] == []
    for name in re.findall(r'from "\./([\w.]+)"', text):
        assert (CONSOLE / "js" / name).is_file()
    assert len(text.splitlines()) <= 500


def test_every_word_is_there_in_both_languages_and_every_one_is_used() -> None:
    known = words()
    assert len(known) == len(re.findall(r'^  "[\w.]+": \[', WORDS_FILE, re.M))
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    named = set(re.findall(r'data-t="([\w.]+)"', PAGE))
    named |= {
        word
        for word in re.findall(r'"([a-z]+\.[\w.]+)"', scripts.replace(WORDS_FILE.split("let index")[0], ""))
        if not word.endswith(".js")
    }
    assert named - set(known) == set()
    families = re.findall(r"`(\w+(?:\.\w+)*)\.\$\{", scripts)
    unused = {key for key in known if key not in named and not any(key.startswith(f"{family}.") for family in families)}
    assert unused == set()
    for key, (chinese, english) in known.items():
        assert chinese.strip()
        assert english.strip()
        assert set(re.findall(r"\{\w+\}", chinese)) == set(re.findall(r"\{\w+\}", english)), key


def test_colours_of_text_have_enough_contrast() -> None:
    css = (CONSOLE / "css" / "base.css").read_text(encoding="utf-8")
    night = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css.split("@media")[0]))
    day = night | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css.split('[data-theme="day"]')[1].split("}")[0]))
    media = night | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css.split("@media")[1].split("}")[0]))
    assert day == media
    assert day != night
    for scheme in (night, day):
        for ground in ("ground", "panel", "raised", "chosen", "red-ground"):
            for text in ("text", "quiet", "red-text", "orange-text", "yellow-text", "blue-text", "accent", "error"):
                assert contrast(scheme[ground], scheme[text]) >= 4.5, (ground, text)
        assert contrast(scheme["red"], "#ffffff") >= 4.5
        assert contrast(scheme["accent-ground"], scheme["on-accent"]) >= 4.5
        assert contrast(scheme["panel"], scheme["line-strong"]) >= 3


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2)."""
    parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_query_is_used_and_every_used_one_exists() -> None:
    room = Path(str(files("citynet_api")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in room.rglob("*.py"))
    for name in queries.names():
        assert f'"{name}"' in code, name
        queries.query(name)
    with pytest.raises(FileNotFoundError):
        queries.query("none")
