"""The console in a real browser, on a real api and a real database: what an operator does at night, step by step."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from citynet.runtime import child
from tests.integration import api_rollup, api_seed
from tests.integration.api_harness import OPERATOR, VIEWER, Served, add_tokens, database, served, until
from tests.patience import DEADLINE_S

webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need selenium: pip install selenium")
from selenium.common.exceptions import (  # noqa: E402
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt: chromium-driver)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium leaves its pipe to the driver to the collector
]
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,800"),
)


NOT_YET = (  # the page is being drawn
    NoSuchElementException, StaleElementReferenceException, ElementNotInteractableException, ElementClickInterceptedException,
)  # fmt: skip


class Page:
    """The console as a person sees it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        self.url = url

    def open(self, token: str | None = OPERATOR) -> None:
        self.browser.get(self.url)
        if token is not None:
            self.one("#token").send_keys(token + Keys.ENTER)
            self.until(lambda: self.link == "live", "the page is live")

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        """In one step: between two the page may be drawn anew."""
        found = self.browser.execute_script("return document.querySelector(arguments[0])?.textContent", selector)
        if found is None:
            raise NoSuchElementException(selector)
        return str(found)

    def click(self, selector: str) -> None:
        def click() -> bool:
            self.one(selector).click()
            return True

        self.until(click, f"{selector} is clicked")

    def keys(self, *keys: str) -> None:
        self.one("body").send_keys(*keys)

    @property
    def link(self) -> str:
        return str(self.one("body").get_attribute("data-link"))

    @property
    def devices(self) -> list[str]:
        """The devices in the list, from top to bottom."""
        script = (
            "return [...document.querySelectorAll('.row .row-where')].map((node) => node.textContent.split(' ')[0])"
        )
        return list(self.browser.execute_script(script))

    def row(self, device: str) -> str:
        """Selector of a device's row."""
        script = (
            "return [...document.querySelectorAll('.row')].find((row) =>"
            " row.querySelector('.row-where').textContent.startsWith(arguments[0]))?.dataset.id"
        )
        return f".row[data-id='{self.browser.execute_script(script, device)}']"

    def until(self, condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
        def calm() -> bool:
            try:
                return condition()
            except NOT_YET:
                return False

        until(calm, what, within_s)

    def complaints(self) -> list[str]:
        """What the browser's console holds against the page: script errors, violations of the policy."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


def start_browser(profile: str, language: str) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--lang={language}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Of our own choice: the port that selenium finds is anybody's until the driver listens on it.
    return webdriver.Chrome(options=options, service=Service(str(DRIVER), port=child.free_port()))


@pytest.fixture
def browser() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="citynet-test-", ignore_cleanup_errors=True) as profile:
        driver = start_browser(profile, "zh-CN")
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture
def names(dsn: str) -> dict[str, str]:
    with database(dsn) as connection:
        add_tokens(connection)
        names = api_seed.seed_city(connection, datetime.now(UTC))
        # Two minutes without a batch are worth a banner, and a busy machine takes that long over a test.
        connection.execute("UPDATE gateway SET last_batch_at = last_batch_at + interval '1 day'")
        return names


@pytest.fixture
def server(dsn: str, names: dict[str, str]) -> Iterator[Served]:
    with served(dsn, stream_heartbeat_s=1) as running:
        yield running


HOLD = """
const [real, path] = [window.fetch, arguments[0]];
window.fetch = async (asked, ...more) => {
  const answer = await real(asked, ...more);
  if (asked !== path || window.letGo) return answer;
  const body = await answer.json();
  await new Promise((resolve) => (window.letGo = resolve));
  return { ok: true, json: async () => body };
};
"""
"""Holds the next answer to this path until `letGo`."""


def test_an_operators_night(browser: Any, server: Served, dsn: str, names: dict[str, str]) -> None:
    page = Page(browser, server.url)
    page.open(token=None)
    page.one("#token").send_keys("cn_" + "x" * 43 + Keys.ENTER)
    page.until(lambda: page.text("#login-error") == "令牌无效、已过期或已吊销。", "a wrong token is refused in words")
    page.open()

    # What is there: the most severe first, the one that cleared unseen last.
    page.until(
        lambda: page.devices == ["gas-0017", "mh-0042", "dma-0003", "mh-0108", "gas-0018"],
        "the seeded alerts, by urgency",
    )
    first = page.text(page.row("gas-0017"))
    for word in ("红色", "燃气井甲烷浓度高", "庐阳区", "55.2 %LEL", "限值 50 %LEL", "CJJ 51-2016", "C", "确认"):
        assert word in first
    counts = [["红色", "1"], ["橙色", "1"], ["黄色", "1"], ["蓝色", "1"]]
    page.until(lambda: [node.text.split() for node in page.all(".count")] == counts, "how many of each colour")
    page.until(lambda: page.text("#vital-gateways dd") == "2/3", "gateways online")
    assert OPERATOR not in browser.current_url

    # A new one arrives by itself, on top, and is announced.
    with database(dsn) as connection:
        series = api_seed.add_series(connection, "gas-0099", "ch4_lel", district="瑶海区", unit="%LEL")
        new = api_seed.add_alert(connection, "gas-ch4-void", "gas-0099", series, 4, datetime.now(UTC), value=61.5)
    page.until(lambda: page.devices[0] == "gas-0099", "the new alert")
    assert page.text("#urgent") == "新告警，红色：燃气井甲烷浓度高，gas-0099"
    assert browser.title.startswith("(5) ")

    # Choose it with the keyboard, read it, acknowledge it.
    page.keys("j")
    page.until(
        lambda: page.text("#detail h2") == "燃气井甲烷浓度高" and "gas-0099" in page.text("#detail"), "its details"
    )
    page.until(lambda: "立即通知燃气公司抢修队" in page.text(".guidance"), "its guidance")
    browser.execute_script(HOLD, f"/v1/alerts/{new}")
    page.click(f"{page.row('gas-0099')} .row-open")
    page.until(lambda: bool(browser.execute_script("return window.letGo !== undefined")), "an answer of before is held")
    page.keys("a")
    page.until(lambda: page.one("#ack").is_displayed(), "the dialog")
    page.one("#ack-comment").send_keys("抢修队已出发")
    page.click("#ack-send")
    page.until(
        lambda: "✓" in page.text(page.row("gas-0099")) and "olga" in page.text(page.row("gas-0099")),
        "it is acknowledged",
    )
    page.until(lambda: "抢修队已出发" in page.text(".transitions"), "with its comment")
    browser.execute_async_script("window.letGo(); setTimeout(arguments[0], 0)")
    assert "抢修队已出发" in page.text(".transitions"), "an answer that comes late is not the newest"
    with database(dsn) as connection:
        stored = connection.execute("SELECT acked_by, ack_comment FROM alert WHERE id = %s", (new,)).fetchone()
    assert stored == ("olga", "抢修队已出发")

    # The other language, at once and everywhere; it is remembered.
    page.click("#desk [data-act='language']")
    assert "Methane high in a gas well" in page.text(page.row("gas-0099"))
    page.until(lambda: "Call the gas utility's emergency crew" in page.text(".guidance"), "guidance in English")
    assert page.text("#link .link-text") == "Live"
    browser.refresh()
    page.until(
        lambda: page.link == "live" and "Methane" in page.text("#list"), "after a reload still logged in, still English"
    )
    assert [message for message in page.complaints() if "401" not in message] == []


CONTRAST = """
const light = (colour) => {
  const part = colour.match(/[0-9.]+/g).slice(0, 3).map((n) => n / 255);
  const [r, g, b] = part.map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return colour === "rgba(0, 0, 0, 0)" && node.parentElement ? behind(node.parentElement) : colour;
};
const node = document.querySelector(arguments[0]);
const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
return (a + 0.05) / (b + 0.05);
"""
"""Contrast of an element's text with what is behind it, as WCAG has it."""


def learn_more(dsn: str, names: dict[str, str]) -> None:
    """A verdict on the red alert, an alert that was found in hindsight and revised, a rule that failed on data."""
    with database(dsn) as connection:
        verdict = (names["gas"], "读数跳变后即恢复", "the reading leaps and comes back")
        connection.execute("SELECT record_verdict(%s, 'device', 'maintenance', now(), %s, %s)", verdict)
        connection.execute("UPDATE alert SET known_at = now() WHERE id = %s", (names["old"],))
        api_seed.add_transition(connection, names["old"], "revise", 3, datetime.now(UTC), None, None, {})
        connection.execute(
            "INSERT INTO system_event (kind, object, since, count, detail) VALUES ('rule_failed', 'gas-ch4-rise', now(), 1, '')"
        )


def test_a_chart_shows_the_raise_and_its_limit(browser: Any, server: Served, dsn: str, names: dict[str, str]) -> None:
    """And what was learned since: a verdict, hindsight, a rule that failed; in both languages and by night."""
    learn_more(dsn, names)
    page = Page(browser, f"{server.url}/#alert/{names['gas']}")
    page.open()
    page.until(lambda: bool(page.all(".chart .curve")), "the curve")
    assert page.text(".chart .limit.main text") == "红色 50 %LEL"
    assert page.text(".chart .raise text") == "发生"
    assert "最高 5" in str(page.one(".chart").get_attribute("aria-label"))
    for said, failed, learned, revised in (
        ("疑似设备故障 · 转维护核查", "规则 gas-ch4-rise 处理数据时出错，已停用", "补判：获知于", "据迟到数据修正"),
        (
            "Probably the device · for maintenance",
            "rule gas-ch4-rise failed on data",
            "In hindsight: learned",
            "Revised by late data",
        ),
    ):
        page.until(lambda said=said: said in page.text("#detail"), "the verdict")  # type: ignore[misc]
        page.until(lambda failed=failed: failed in page.text("#banner"), "the rule that failed")  # type: ignore[misc]
        browser.execute_script("location.hash = arguments[0]", f"#alert/{names['old']}")
        page.until(lambda learned=learned: learned in page.text("#detail"), "hindsight")  # type: ignore[misc]
        page.until(lambda revised=revised: revised in page.text(".transitions"), "its revision")  # type: ignore[misc]
        browser.execute_script("location.hash = arguments[0]", f"#alert/{names['gas']}")
        page.click("#desk [data-act='language']")
    page.click("#desk [data-act='theme']")
    page.until(lambda: page.one("html").get_attribute("data-theme") == "night", "night")
    page.until(lambda: "疑似设备故障" in page.text("#detail"), "the verdict by night")
    for selector in ("#banner", "#detail dd strong", "#detail dd .quiet", ".transitions"):
        assert browser.execute_script(CONTRAST, selector) >= 4.5, selector
    assert page.complaints() == []


def test_a_device_shows_its_series_over_any_span_and_how_complete_they_are(
    browser: Any, server: Served, dsn: str, names: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    with database(dsn) as connection:
        battery = api_seed.add_series(connection, "gas-0017", "battery_pct", unit="%")
        api_seed.add_series(connection, "gas-0017", "rssi_dbm", unit="dBm")
        # Also of the minutes to come: a new hour may begin before the page has asked.
        rows = [(now - timedelta(minutes=k), 80.0 if k != 701 else 12.5, 0) for k in range(-15, 3000) if k % 4]
        api_seed.add_readings(connection, battery, rows)
        connection.execute("UPDATE series SET interval_s = 60 WHERE id = %s", (battery,))
        api_rollup.fill(connection, [battery])
    page = Page(browser, f"{server.url}/#alert/{names['gas']}")
    page.open()
    page.until(lambda: bool(page.all(".chart .raise")), "the curve around the raise")
    page.click("[data-span='7d']")
    page.until(lambda: "1 小时" in page.text(".chart-note"), "seven days are buckets of hours")
    assert page.text(".chart .limit.main text") == "红色 50 %LEL"

    page.click(".device-link")
    own = f"[data-series='{battery}']"
    page.until(lambda: bool(page.all(f"{own} .curve")), "the curve of the device's other series")
    assert browser.current_url.endswith("#device/gas-0017")
    assert "1 分钟汇总" in page.text(f"{own} .chart-note")
    assert "最低 12.5，最高 80" in str(page.one(f"{own} .chart").get_attribute("aria-label")), "the spike survives"
    assert "75 %" in page.text(f"{own} .completeness")
    assert "间隔为估计值" not in page.text(f"{own} .completeness")
    assert "从未收到读数" in page.text("#detail")
    page.click("[data-span='1h']")
    page.until(lambda: "由读数计算" in page.text(f"{own} .chart-note"), "an hour is read from readings")
    page.click("#desk [data-act='language']")
    page.until(lambda: "computed from readings" in page.text(f"{own} .chart-note"), "in English")
    assert "No reading was ever received." in page.text("#detail")
    page.click(".device-back")
    page.until(lambda: "Methane high" in page.text("#detail h2"), "back at the alert")
    browser.get(f"{server.url}/#device/none")
    browser.refresh()
    page.until(lambda: "There is no such device" in page.text("#detail"), "an unknown device is said to be unknown")
    assert [message for message in page.complaints() if "404" not in message] == []


def test_a_page_whose_server_died_never_looks_calm(
    browser: Any, server: Served, dsn: str, names: dict[str, str]
) -> None:
    page = Page(browser, server.url)
    page.open()
    server.process.send_signal(signal.SIGSTOP)  # worse than dead: the connection stays open and silent
    try:
        page.until(lambda: page.link == "stale", "the page says that it is stale")
        assert page.one("#banner").is_displayed()
        assert "下面的列表不代表现在的情况" in page.text("#banner")
        assert browser.title.startswith("⚠ 失联")
        with database(dsn) as connection:
            api_seed.clear_alert(connection, names["pond"], datetime.now(UTC), 2.0)
    finally:
        server.process.send_signal(signal.SIGCONT)
    page.until(lambda: page.link == "live", "live again")
    page.until(lambda: "cleared" in str(page.one(page.row("mh-0042")).get_attribute("class")), "and nothing was missed")
    assert not page.one("#banner").is_displayed()


def test_filters_keys_and_what_a_viewer_may_not(browser: Any, server: Served, names: dict[str, str]) -> None:
    page = Page(browser, server.url)
    page.open(token=VIEWER)
    page.until(lambda: len(page.devices) == 5, "the list")
    assert page.all(".ack-button") == []
    page.keys("j", "j")
    page.until(lambda: "viewer" in page.text("#detail"), "why there is no button")
    page.keys("/")
    page.one("#filter-text").send_keys("蜀山")
    assert page.devices == ["mh-0042"]
    page.one("#filter-text").send_keys("nothing")
    assert "没有符合筛选条件的告警" in page.text("#empty")
    page.click("#filter-reset")
    page.click("[data-level='3']")
    assert page.devices == ["gas-0017", "mh-0042", "gas-0018"]
    page.click("[data-scope='history']")
    page.until(lambda: page.devices == ["gas-0018"], "past alerts")
    page.click(".bar")
    page.keys("?")
    assert page.one("#help").is_displayed()
    assert page.complaints() == []


def test_a_calm_city_says_so_and_a_silent_one_does_not(browser: Any, dsn: str) -> None:
    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.add_gateway(connection, "gw-01", online=True, at=datetime.now(UTC) + timedelta(days=1))
    with served(dsn, stream_heartbeat_s=1) as server:
        page = Page(browser, server.url)
        page.open()
        page.until(lambda: "当前没有告警" in page.text("#empty") and "1/1 个网关在线" in page.text("#empty"), "calm")
        assert not page.one("#banner").is_displayed()
        with database(dsn) as connection:
            connection.execute("UPDATE gateway SET last_batch_at = %s", (datetime.now(UTC) - timedelta(minutes=10),))
        page.until(lambda: "没有新告警不等于平安" in page.text("#banner"), "silence is not calm")


def test_on_a_phone_nothing_hangs_over_the_edge(
    browser: Any, server: Served, names: dict[str, str], folder: Path
) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page = Page(browser, server.url)
    page.open()
    page.until(lambda: len(page.devices) == 5, "the list")
    wide = "return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert browser.execute_script(wide) <= 390
    page.click(f"{page.row('gas-0017')} .row-open")
    page.until(
        lambda: page.one("#detail .back").is_displayed() and bool(page.all(".chart .curve")),
        "the details cover the page",
    )
    assert browser.execute_script(wide) <= 390
    page.click("#detail .back")
    page.until(lambda: not page.one("#detail").is_displayed(), "back at the list")
