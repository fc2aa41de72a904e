// The list of alerts. Rows are kept by id and moved, never rebuilt wholesale: focus and the reader's eye stay where they are.

import { byId, el, shape } from "./dom.js";
import { age, clock, duration, fullTime, number, quantity, unit } from "./format.js";
import { both, knows, t } from "./i18n.js";

/** The value of an alert against its limit, in words of its kind of rule. */
export function measured(alert) {
  if (alert.rule_kind === "stale") {
    return {
      value: t("row.silent", { value: alert.value === null ? "–" : duration(alert.value * 1000) }),
      limit: t("row.silent.limit", { limit: alert.limit_value === null ? "–" : duration(alert.limit_value * 1000) }),
    };
  }
  return { value: quantity(alert.value, alert.unit), limit: t("row.limit", { limit: `${number(alert.limit_value)} ${unit(alert.unit)}`.trim() }) };
}

export const domainName = (domain) => (knows(`domain.${domain}`) ? t(`domain.${domain}`) : domain);

/** Standard, edition and clause; and the mark of how well the number is known. */
export function standardOf(alert) {
  const text = [alert.standard ? [alert.standard, alert.edition].filter(Boolean).join("-") : t("row.noStandard"), alert.clause ? `§${alert.clause}` : null]
    .filter(Boolean)
    .join(" ");
  const mark = alert.standard_status;
  const title = mark && knows(`status.${mark}`) ? `${mark}: ${t(`status.${mark}`)}` : null;
  return [text, mark ? el("span", { class: "mark", title, "aria-label": title }, mark) : null];
}

export class List {
  #rows = new Map();
  #on;

  /** `on` has choose(id) and acknowledge(id). */
  constructor(on) {
    this.#on = on;
    this.node = byId("list");
  }

  /** Show these alerts in this order; `fresh` are ids that arrived just now, `mayAck` whether this token may acknowledge. */
  show(alerts, { chosen, fresh, mayAck }) {
    const shown = new Set(alerts.map((alert) => alert.id));
    for (const [id, row] of this.#rows) {
      if (shown.has(id)) continue;
      row.node.remove();
      this.#rows.delete(id);
    }
    let place = this.node.firstElementChild;
    for (const alert of alerts) {
      const node = this.#row(alert, mayAck);
      node.classList.toggle("chosen", alert.id === chosen);
      node.querySelector(".row-open").setAttribute("aria-current", String(alert.id === chosen));
      if (fresh.has(alert.id)) node.classList.add("fresh");
      if (node === place) place = place.nextElementSibling;
      else this.node.insertBefore(node, place);
    }
  }

  /** Build every row anew, after a change of language. */
  forget() {
    for (const row of this.#rows.values()) row.node.remove();
    this.#rows.clear();
  }

  /** Put the focus on a row and bring it into view. */
  focus(id) {
    this.#rows.get(id)?.node.querySelector(".row-open").focus();
  }

  /** Let the ages go on. */
  tick() {
    for (const { alert, since } of this.#rows.values()) {
      const text = sinceText(alert);
      if (since.textContent !== text) since.textContent = text;
    }
  }

  #row(alert, mayAck) {
    const known = this.#rows.get(alert.id);
    const state = JSON.stringify([alert, mayAck]);
    if (known?.state === state) return known.node;
    const since = el("span", { class: "since", title: fullTime(alert.raised_at) }, sinceText(alert));
    const content = this.#content(alert, since, mayAck);
    const node = known?.node ?? el("li");
    const hadFocus = node.contains(document.activeElement);
    node.className = `row level-${alert.level} ${alert.state} ${alert.acked_at ? "acked" : "unacked"}`;
    node.dataset.id = alert.id;
    node.replaceChildren(...content);
    if (hadFocus) node.querySelector(".row-open").focus();
    this.#rows.set(alert.id, { node, state, alert, since });
    return node;
  }

  #content(alert, since, mayAck) {
    const { value, limit } = measured(alert);
    const where = [alert.object, alert.district].filter(Boolean).join(" · ");
    return [
      el("span", { class: "badge" }, shape(alert.level), el("span", { class: "badge-word" }, t(`level.${alert.level}`))),
      el("span", { class: "row-what" },
        el("button", { type: "button", class: "row-open", on: { click: () => this.#on.choose(alert.id) } }, both(alert, "title")),
        el("span", { class: "row-where" }, where)),
      el("span", { class: "row-value" }, el("strong", {}, value), el("span", { class: "row-limit" }, limit)),
      el("span", { class: "row-since" }, since, el("span", { class: "row-at" }, clock(alert.raised_at))),
      el("span", { class: "row-standard" }, ...standardOf(alert)),
      el("span", { class: "row-ack" }, this.#ack(alert, mayAck)),
    ];
  }

  #ack(alert, mayAck) {
    if (alert.acked_at) {
      return el("span", { class: "acked-by", title: t("detail.acked", { by: alert.acked_by, time: clock(alert.acked_at) }) },
        el("span", { class: "tick", "aria-hidden": "true" }, "✓"), el("span", { class: "sr-only" }, t("row.ackedWord")), " ", alert.acked_by);
    }
    if (!mayAck) return el("span", { class: "quiet" }, t("row.unacked"));
    const label = `${t("row.ack")}: ${both(alert, "title")}, ${alert.object}`;
    return el("button", { type: "button", class: "ack-button", "aria-label": label, on: { click: () => this.#on.acknowledge(alert.id) } }, t("row.ack"));
  }
}

function sinceText(alert) {
  if (alert.state === "cleared") return t("row.cleared");
  return age(alert.raised_at);
}
