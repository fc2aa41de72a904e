// Which span of time a chart shows, and what it is made of.

import { el } from "./dom.js";
import { clock, duration, serverNow } from "./format.js";
import { t } from "./i18n.js";

const HOUR_MS = 3600_000;
export const SPANS = { "1h": HOUR_MS, "6h": 6 * HOUR_MS, "24h": 24 * HOUR_MS, "7d": 168 * HOUR_MS, "30d": 720 * HOUR_MS };

/** A row of buttons, the chosen one pressed; `first` are spans beyond the usual ones. */
export function spanButtons(chosen, choose, first = []) {
  return el("div", { class: "segments spans", role: "group", "aria-label": t("chart.span") },
    ...[...first, ...Object.keys(SPANS)].map((name) =>
      el("button", { type: "button", "aria-pressed": String(name === chosen), "data-span": name, on: { click: () => choose(name) } }, t(`span.${name}`))));
}

/** The range of a span that ends now: {from, to} in ISO 8601. */
export function rangeOf(name) {
  const now = serverNow();
  return { from: new Date(now - SPANS[name]).toISOString(), to: new Date(now).toISOString() };
}

/** What the points of an answer are: readings, or buckets and the rows they come from. */
export function madeOf(answer) {
  if (answer.bucket === "raw") return t("chart.from.readings");
  return t(`chart.from.${answer.source}`, { width: duration(answer.bucket_s * 1000) });
}

/** Said instead of an empty chart. `newestAt` is the time of the newest reading, null if there never was one. */
export function nothing(newestAt = undefined) {
  const when = newestAt === undefined ? null : newestAt === null ? t("chart.none.never") : t("chart.none.newest", { time: clock(newestAt), age: duration(serverNow() - Date.parse(newestAt)) });
  return el("div", { class: "chart-none" }, el("p", {}, t("detail.chart.none")), when ? el("p", { class: "quiet small" }, when) : null);
}
