// The pane of one alert: what it is, what to do, what proves it, what happened.

import { chart } from "./chart.js";
import { byId, el, shape } from "./dom.js";
import { age, clock, duration, fullTime, number, quantity, serverNow, unit } from "./format.js";
import { both, knows, language, t } from "./i18n.js";
import { domainName, measured, standardOf } from "./list.js";
import { madeOf, rangeOf, spanButtons } from "./spans.js";

const BEFORE_MS = 30 * 60_000;
const AFTER_MS = 10 * 60_000;
const SPAN_MS_MAX = 6 * 3600_000;
const LEVEL_OF = { blue: 1, yellow: 2, orange: 3, red: 4 };

export class Detail {
  #api;
  #on;
  #id = null;
  #alert = null;
  #readings = null;
  #span = "raise";
  #age = null;
  #asked = 0;
  #shown = 0;

  /** `on` has acknowledge(id), close(), device(name) and why(problem). */
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    this.node = byId("detail");
    this.#blank();
  }

  get id() {
    return this.#id;
  }

  get alert() {
    return this.#alert;
  }

  /** Show an alert by its id, or nothing. `summary` is what the list knows of it, shown until the rest has come. */
  async show(id, summary = null) {
    const same = id === this.#id;
    this.#id = id;
    if (id === null) return this.#blank();
    if (!same) {
      this.#alert = null;
      this.#readings = null;
      this.#span = "raise";
      if (summary) this.#draw(summary);
      this.node.scrollTop = 0;
    }
    const turn = ++this.#asked;
    try {
      const alert = await this.#api.get(`/v1/alerts/${encodeURIComponent(id)}`);
      if (this.#id !== id || turn < this.#shown) return undefined; // answers may overtake each other
      this.#shown = turn;
      this.#alert = alert;
      this.#draw(alert);
    } catch (problem) {
      if (this.#id === id && !this.#alert) this.#failed(problem);
      return undefined;
    }
    return this.#loadReadings(id);
  }

  /** Draw again, after a change of language or role. */
  redraw() {
    if (this.#alert) this.#draw(this.#alert);
    else if (this.#id === null) this.#blank();
  }

  tick() {
    if (this.#age && this.#alert?.state === "open") this.#age.textContent = t("detail.open", { age: age(this.#alert.raised_at) });
  }

  async #loadReadings(id) {
    const span = this.#span;
    const range = span === "raise" ? aroundRaise(this.#alert) : rangeOf(span);
    const current = () => this.#id === id && this.#span === span;
    try {
      const answer = await this.#api.get(`/v1/series/${this.#alert.series_id}/readings`, { ...range, bucket: "auto", points: 240 });
      if (current()) this.#readings = answer;
    } catch {
      if (current() && !this.#readings) this.#readings = "failed";
    }
    if (current()) this.#drawChart();
  }

  #chooseSpan(span) {
    this.#span = span;
    this.#readings = null;
    byId("chart-spans").replaceChildren(this.#spans());
    byId("chart-spans").querySelector(`[data-span="${span}"]`).focus();
    this.#loadReadings(this.#id);
  }

  #spans() {
    return spanButtons(this.#span, (name) => this.#chooseSpan(name), ["raise"]);
  }

  #blank() {
    this.#alert = null;
    this.node.replaceChildren(el("div", { class: "detail-none" }, el("p", {}, t("detail.none")), el("p", { class: "quiet small keys-hint" }, t("detail.none.more"))));
  }

  #failed(problem) {
    const text = problem.status === 404 ? t("detail.gone") : t("detail.failed", { why: this.#on.why(problem) });
    this.node.replaceChildren(this.#back(), el("p", { class: "form-error" }, text));
  }

  #back() {
    return el("button", { type: "button", class: "ghost back", on: { click: () => this.#on.close() } }, "← ", t("detail.back"));
  }

  #draw(alert) {
    this.node.className = `detail level-${alert.level} ${alert.state}`;
    this.#age = el("span", { class: "detail-age" }, stateText(alert));
    const full = alert.transitions !== undefined;
    this.node.replaceChildren(
      this.#back(),
      el("div", { class: "detail-head" },
        el("p", { class: "detail-level" }, shape(alert.level), el("strong", {}, t(`level.${alert.level}`)), " · ", domainName(alert.domain), " · ", this.#age),
        el("h2", { id: "detail-title" }, both(alert, "title")),
        el("p", { class: "detail-text" }, both(alert, "text"))),
      this.#ackPart(alert),
      facts(alert, this.#on.device),
      section("detail.guidance", guidance(alert, full), "guidance"),
      section("detail.chart", [el("div", { id: "chart-spans" }, full ? this.#spans() : null), el("div", { id: "chart" }, el("p", { class: "quiet chart-wait" }, t("list.loading")))]),
      ...(full ? [section("detail.transitions", transitions(alert)), section("detail.evidence", evidence(alert))] : []),
    );
    if (this.#readings) this.#drawChart();
  }

  #ackPart(alert) {
    if (alert.acked_at) {
      return el("p", { class: "ack-state" }, el("span", { class: "tick", "aria-hidden": "true" }, "✓ "),
        t("detail.acked", { by: alert.acked_by, time: clock(alert.acked_at) }), alert.ack_comment ? el("q", {}, alert.ack_comment) : null);
    }
    if (!this.#on.mayAck()) return el("p", { class: "ack-state quiet" }, t("ack.role"));
    return el("p", { class: "ack-state" }, el("button", { type: "button", class: "primary", on: { click: () => this.#on.acknowledge(alert.id) } }, t("ack.send"), " ", el("kbd", {}, "a")));
  }

  #drawChart() {
    const place = byId("chart");
    if (!place || !this.#alert) return;
    if (this.#readings === null) return;
    if (this.#readings === "failed") return place.replaceChildren(el("p", { class: "form-error" }, t("detail.chart.failed")));
    place.replaceChildren(chart(this.#readings, {
      metric: this.#alert.metric,
      unit: this.#readings.series.unit ?? this.#alert.rule?.unit ?? "",
      limits: limitsOf(this.#alert),
      raisedAt: Date.parse(this.#alert.raised_at),
    }), el("p", { class: "chart-note quiet small" }, madeOf(this.#readings)));
  }
}

/** From half an hour before the raise to ten minutes after the end, at most six hours. */
function aroundRaise(alert) {
  const raised = Date.parse(alert.raised_at);
  const end = Math.min(serverNow(), (alert.cleared_at ? Date.parse(alert.cleared_at) : serverNow()) + AFTER_MS, raised + SPAN_MS_MAX);
  return { from: new Date(raised - BEFORE_MS).toISOString(), to: new Date(Math.max(end, raised + 60_000)).toISOString() };
}

/** The lines of a chart: the limit in force, and the rule's other levels. A rule about silence has none. */
export function limitsOf(alert) {
  if (alert.rule_kind === "stale") return [];
  const lines = new Map();
  for (const [name, value] of Object.entries(alert.rule?.levels ?? {})) {
    if (Number.isFinite(value) && LEVEL_OF[name]) lines.set(LEVEL_OF[name], { value, level: LEVEL_OF[name], main: false });
  }
  if (Number.isFinite(alert.limit_value)) lines.set(alert.level, { value: alert.limit_value, level: alert.level, main: true });
  return [...lines.values()];
}

function stateText(alert) {
  if (alert.state === "open") return t("detail.open", { age: age(alert.raised_at) });
  return t("detail.cleared", { time: clock(alert.cleared_at), age: duration(Date.parse(alert.cleared_at) - Date.parse(alert.raised_at)) });
}

function section(key, content, kind = "") {
  return el("section", { class: `detail-section ${kind}` }, el("h3", {}, t(key)), ...[content].flat());
}

function list(entries, kind = "facts") {
  return el("dl", { class: kind }, ...entries.filter(Boolean).flatMap(([name, ...content]) => [el("dt", {}, name), el("dd", {}, ...content)]));
}

function facts(alert, openDevice) {
  const { value, limit } = measured(alert);
  const stale = alert.rule_kind === "stale";
  return list([
    [t(stale ? "detail.silent" : "detail.value"), el("strong", {}, stale ? duration((alert.value ?? 0) * 1000) : value), " ", el("span", { class: "quiet" }, limit)],
    alert.level_max > alert.level ? [t("detail.max"), t(`level.${alert.level_max}`)] : null,
    alert.verdict ? [t("detail.verdict"), verdict(alert)] : null,
    [t("detail.raised"), fullTime(alert.raised_at)],
    alert.known_at ? [t("detail.known"), fullTime(alert.known_at)] : null,
    alert.rule?.contacts?.length ? [t("detail.contacts"), alert.rule.contacts.join(" · ")] : null,
    [t("detail.device"), el("button", { type: "button", class: "device-link", title: t("device.open"), on: { click: () => openDevice(alert.object) } }, alert.object), alert.kind ? ` · ${alert.kind}` : "", " · ", alert.metric],
    [t("detail.place"), [alert.district, alert.lon !== null && alert.lat !== null ? `${alert.lat.toFixed(5)}, ${alert.lon.toFixed(5)}` : null].filter(Boolean).join(" · ") || "–"],
    alert.gateway ? [t("detail.gateway"), alert.gateway] : null,
    [t("detail.standard"), ...standardOf(alert), alert.standard_status && knows(`status.${alert.standard_status}`) ? el("span", { class: "quiet" }, ` ${t(`status.${alert.standard_status}`)}`) : null],
    [t("detail.rule"), alert.rule_id, el("span", { class: "quiet" }, ` ${t("detail.version", { v: alert.rule_version })}`)],
  ]);
}

function verdict(alert) {
  const since = alert.verdict_at ? ` ${clock(alert.verdict_at)}` : "";
  const why = both(alert, "verdict");
  return el("span", {}, el("strong", {}, t(`verdict.${alert.verdict}`)), ` · ${t(`audience.${alert.audience}`)}${since}`, why ? el("span", { class: "quiet" }, ` ${why}`) : null);
}

function guidance(alert, full) {
  const text = alert.rule?.[`guidance_${language()}`] ?? alert.rule?.guidance_zh;
  if (!full) return el("p", { class: "quiet" }, t("list.loading"));
  return el("p", { class: text ? "guidance-text" : "quiet" }, text?.trim() || t("detail.guidance.none"));
}

function transitions(alert) {
  return el("ol", { class: "transitions" }, ...alert.transitions.map((step) =>
    el("li", { class: `level-${step.level}` },
      el("time", { datetime: step.at, title: fullTime(step.at) }, clock(step.at)),
      el("span", { class: "step" }, step.kind === "ack" ? el("span", { class: "tick", "aria-hidden": "true" }, "✓") : shape(step.level),
        el("strong", {}, t(`kind.${step.kind}`)), step.kind === "ack" ? ` ${step.actor}` : ` ${t(`level.${step.level}`)}`),
      el("span", { class: "step-text quiet" }, step.comment || both(step, "text")))));
}

const EVIDENCE = ["basis", "direction", "hysteresis", "on_delay_s", "off_delay_s", "max_age_s", "pending_since_us", "last_time_us", "source"];

function evidence(alert) {
  const proof = alert.transitions.findLast((step) => Object.keys(step.evidence).length > 0)?.evidence;
  if (!proof) return el("p", { class: "quiet" }, t("detail.evidence.none"));
  const entries = EVIDENCE.filter((key) => proof[key] !== null && proof[key] !== undefined).map((key) => [t(`evidence.${key}`), evidenceValue(key, proof)]);
  const samples = Array.isArray(proof.samples) ? proof.samples.slice(-8) : [];
  if (samples.length) {
    const lines = samples.map(([us, value]) => el("li", {}, el("time", {}, clock(us / 1000)), " ", el("span", {}, value === null ? "–" : quantity(value, proof.unit))));
    entries.push([t("evidence.samples"), el("ul", { class: "samples" }, ...lines)]);
  }
  return list(entries);
}

function evidenceValue(key, proof) {
  const value = proof[key];
  if (key.endsWith("_us")) return clock(value / 1000);
  if (key.endsWith("_s")) return duration(value * 1000);
  if (key === "direction" && knows(`evidence.direction.${value}`)) return t(`evidence.direction.${value}`);
  if (key === "hysteresis") return `${number(value)} ${unit(proof.unit)}`;
  return String(value);
}
