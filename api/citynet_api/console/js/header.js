// The bar on top: open alerts a level, gateways, readings a second, and above all whether this page is alive.

import { byId, el, shape } from "./dom.js";
import { clock, duration, number, serverNow } from "./format.js";
import { t } from "./i18n.js";

const SILENT_MS = 120_000; // without any batch
const EVENT_MS = 900_000; // how long an event of the system stays on the bar
const SILENCE_MS = 15_000; // without a byte from the server, whose heart beats every 5 s

/** Open alerts a level; a click shows that level and above. */
export function showCounts(counts, levelMin, choose) {
  byId("counts").setAttribute("aria-label", t("desk.counts"));
  byId("counts").replaceChildren(...[4, 3, 2, 1].map((level) => {
    const { open, unacked } = counts[level];
    const label = `${t(`level.${level}`)} ${open}`;
    return el("button", {
      type: "button", class: `count level-${level}${open ? "" : " zero"}${unacked ? " unacked" : ""}`,
      "aria-pressed": String(levelMin === level), "aria-label": label, title: label, "data-level": level,
      on: { click: () => choose(levelMin === level ? 0 : level) },
    }, shape(level), el("span", { class: "count-word" }, t(`level.${level}`)), el("strong", {}, String(open)));
  }));
}

export function showVitals(summary) {
  const gateways = byId("vital-gateways");
  gateways.lastElementChild.textContent = summary ? `${summary.gateways_online}/${summary.gateways_total}` : "–";
  gateways.classList.toggle("short", Boolean(summary) && summary.gateways_online < summary.gateways_total);
  byId("vital-readings").lastElementChild.textContent = summary ? number(summary.readings_per_s) : "–";
}

/** What went wrong with the system itself within the last quarter of an hour, newest first, or null. */
function systemBanner(summary) {
  const fresh = (summary?.system_events ?? []).find((event) => serverNow() - Date.parse(event.last_at) < EVENT_MS);
  if (!fresh) return null;
  return t(`event.${fresh.kind}`, { time: clock(Date.parse(fresh.last_at)), count: fresh.count, object: fresh.object });
}

/**
 * Whether the page is alive: {state: "connecting" | "live" | "reconnecting" | "stale", since, banner}. `link` is
 * {state, aliveAt, databaseLostAt}, `nowMs` our own clock.
 */
export function judge(link, summary, nowMs) {
  if (link.databaseLostAt !== null) {
    const places = { time: clock(link.databaseLostAt), age: duration(serverNow() - link.databaseLostAt) };
    return { state: "stale", since: link.databaseLostAt, banner: t("banner.database", places) };
  }
  const quiet = link.aliveAt === null ? 0 : nowMs - link.aliveAt;
  if (link.state === "live" && quiet < SILENCE_MS) {
    const silent = summary?.last_batch_at ? serverNow() - Date.parse(summary.last_batch_at) : 0;
    if (silent > SILENT_MS) return { state: "live", banner: t("banner.silent", { age: duration(silent) }) };
    return { state: "live", banner: systemBanner(summary) };
  }
  if (link.aliveAt === null) return { state: "connecting", banner: null };
  const since = serverNow() - quiet;
  if (quiet < 8000) return { state: "reconnecting", since, banner: null };
  return { state: "stale", since, banner: t("banner.stale", { time: clock(since), age: duration(quiet) }) };
}

/** Show the judgement; returns whether the page is live. */
export function showLink(link, summary) {
  const { state, since, banner } = judge(link, summary, Date.now());
  document.body.dataset.link = state;
  const text = t(`link.${state}`, { time: since ? clock(since) : "" });
  const place = byId("link").querySelector(".link-text");
  if (place.textContent !== text) place.textContent = text;
  const bar = byId("banner");
  bar.hidden = banner === null;
  bar.classList.toggle("stale", state === "stale");
  if (bar.textContent !== (banner ?? "")) bar.textContent = banner ?? "";
  return state === "live";
}
