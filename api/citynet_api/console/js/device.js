// The pane of one device: what it is, how complete its data are, and a chart of each of its series.

import { chart } from "./chart.js";
import { byId, el } from "./dom.js";
import { age, fullTime, number, quantity } from "./format.js";
import { t } from "./i18n.js";
import { madeOf, nothing, rangeOf, spanButtons } from "./spans.js";

const POINTS = 240;
const SERIES_MAX = 24; // charts at once; a device with more is rare, and the answer is bounded
const REFRESH_MS = 30_000;

export class DevicePane {
  #api;
  #on;
  #name = null;
  #span = "24h";
  #device = null;
  #readings = null;
  #completeness = null;
  #problem = null;
  #loadedAt = 0;

  /** `on` has back() and why(problem). */
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    this.node = byId("detail");
  }

  get name() {
    return this.#name;
  }

  /** Show a device by its name, or let go of the pane. */
  async show(name) {
    if (name !== this.#name) this.#device = this.#readings = this.#completeness = this.#problem = null;
    this.#name = name;
    if (name === null) return;
    this.node.scrollTop = 0;
    this.redraw();
    await this.#load();
  }

  redraw() {
    if (this.#name === null) return;
    this.node.className = "detail device";
    this.node.replaceChildren(
      el("button", { type: "button", class: "ghost device-back", on: { click: () => this.#on.back() } }, "← ", t("device.back")),
      el("h2", { id: "detail-title" }, this.#name),
      ...(this.#device ? this.#content() : [el("p", { class: this.#problem ? "form-error" : "quiet" }, this.#problem ? this.#failure() : t("list.loading"))]));
  }

  /** Fresh figures every half minute. */
  tick() {
    if (this.#name !== null && Date.now() - this.#loadedAt > REFRESH_MS) this.#load();
  }

  async #load() {
    const [name, span] = [this.#name, this.#span];
    this.#loadedAt = Date.now();
    const current = () => this.#name === name && this.#span === span;
    try {
      const device = await this.#api.get(`/v1/devices/${encodeURIComponent(name)}`);
      const ids = device.series.slice(0, SERIES_MAX).map((series) => series.id).join(",");
      const range = rangeOf(span);
      const [readings, completeness] = await Promise.all([
        ids ? this.#api.get("/v1/readings", { ...range, series: ids, points: POINTS }) : null,
        this.#api.get("/v1/completeness", { ...range, device: name, limit: 500 }),
      ]);
      if (!current()) return;
      [this.#device, this.#readings, this.#completeness, this.#problem] = [device, readings, completeness, null];
    } catch (problem) {
      if (!current()) return;
      this.#problem = problem;
    }
    this.redraw();
  }

  #failure() {
    return this.#problem.status === 404 ? t("device.gone") : t("detail.failed", { why: this.#on.why(this.#problem) });
  }

  #choose(span) {
    this.#span = span;
    this.#readings = this.#completeness = null;
    this.redraw();
    byId("detail").querySelector(`[data-span="${span}"]`)?.focus();
    this.#load();
  }

  #content() {
    const device = this.#device;
    const where = [device.kind, device.district, device.gateway].filter(Boolean).join(" · ");
    return [
      el("p", { class: "quiet" }, where),
      this.#problem ? el("p", { class: "form-error" }, this.#failure()) : null,
      spanButtons(this.#span, (name) => this.#choose(name)),
      this.#total(),
      ...device.series.slice(0, SERIES_MAX).map((series) => this.#series(series)),
      device.series.length > SERIES_MAX ? el("p", { class: "quiet" }, t("device.more", { n: device.series.length - SERIES_MAX })) : null,
      device.series.length === 0 ? nothing(null) : null,
    ].filter(Boolean);
  }

  #total() {
    const total = this.#completeness?.total;
    return el("p", { class: "completeness" }, el("span", { class: "quiet" }, t("complete.title"), " "), ...(total ? figure(total, total.estimated > 0) : [el("span", { class: "quiet" }, "…")]));
  }

  #series(series) {
    const found = this.#readings?.items.find((item) => item.series.id === series.id);
    const complete = this.#completeness?.series.find((item) => item.series_id === series.id);
    const latest = series.latest;
    const head = el("div", { class: "series-head" },
      el("h3", {}, series.metric),
      latest ? el("strong", {}, quantity(latest.value, series.unit)) : null,
      latest ? el("span", { class: "quiet", title: fullTime(latest.at) }, t("device.ago", { age: age(latest.at) })) : null);
    return el("section", { class: "detail-section series", "data-series": series.id },
      head,
      found ? chart({ ...this.#readings, ...found }, { metric: series.metric, unit: series.unit ?? "", limits: [], raisedAt: null, newestAt: latest?.at ?? null }) : el("p", { class: "quiet chart-wait" }, t("list.loading")),
      el("p", { class: "chart-note quiet small" }, found && (found.buckets.length || found.readings.length) ? el("span", {}, madeOf(this.#readings)) : null, complete ? el("span", { class: "completeness" }, t("complete.title"), " ", ...figure(complete, complete.interval_from === "estimated", complete.interval_s)) : null));
  }
}

/** Percent, received of expected, and whether the expectation is an estimate. */
function figure(counts, estimated, intervalS = null) {
  if (counts.completeness === null) return [el("span", { class: "quiet" }, t(counts.expected === null ? "complete.unknown" : "complete.none"))];
  // Rounded down: 100 % is said only of what is whole.
  const percent = Math.floor(counts.completeness * 1000) / 10;
  const kind = counts.completeness >= 0.98 ? "good" : counts.completeness >= 0.8 ? "fair" : "poor";
  // Of several series the sums would mislead: the surplus of one stands in them, though not in the percentage.
  const parts = counts.series === undefined ? [t("complete.of", { received: number(counts.received), expected: number(counts.expected) })] : [];
  if (intervalS !== null) parts.push(t("complete.every", { n: number(intervalS) }));
  if (estimated) parts.push(t("complete.estimated"));
  return [el("strong", { class: `percent ${kind}` }, `${number(percent)} %`), el("span", { class: "quiet" }, ` ${parts.join(" · ")}`)];
}
