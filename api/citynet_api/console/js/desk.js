// The operator's desk: what needs attention, kept alive by the stream, checked against the server's own counts.

import { AckDialog } from "./ack.js";
import { Detail } from "./detail.js";
import { DevicePane } from "./device.js";
import { byId, el, isTyping } from "./dom.js";
import { learnTime } from "./format.js";
import { showCounts, showLink, showVitals } from "./header.js";
import { both, t } from "./i18n.js";
import { domainName, List } from "./list.js";
import { byTime, byUrgency, countOpen, passes, Store } from "./model.js";
import { Stream } from "./stream.js";

const PAGE = 500;
const ALERTS_MAX = 2000;
const SUMMARY_MS = 5000;
const FRESH_MS = 8000;
const UNACKED_BACK_MS = 24 * 3600_000;
const RELOAD_MS = 3000;

export class Desk {
  #api;
  #me;
  #on;
  #store = new Store();
  #history = { items: [], next: null };
  #scope = "active";
  #filters = { unacked: false, domain: "", level: 0, text: "" };
  #chosen = null;
  #fresh = new Map();
  #shown = [];
  #summary = null;
  #mismatches = 0;
  #link = { state: "connecting", aliveAt: null, databaseLostAt: null };
  #problem = null;
  #loaded = false;
  #capped = false;
  #stream = null;
  #stopped = new AbortController();
  #timers = [];

  /** `on` has denied(), for a token that is no longer good. */
  constructor(api, me, on) {
    this.#api = api;
    this.#me = me;
    this.#on = on;
    this.list = new List({ choose: (id) => this.#choose(id), acknowledge: (id) => this.#acknowledge(id) });
    this.detail = new Detail(api, {
      acknowledge: (id) => this.#acknowledge(id), close: () => this.#choose(null), why: (problem) => this.#why(problem), mayAck: () => this.#mayAck,
      device: (name) => this.#openDevice(name),
    });
    this.device = new DevicePane(api, { back: () => this.#choose(this.#chosen), why: (problem) => this.#why(problem) });
    this.ack = new AckDialog(api, {
      done: (alert) => this.#acknowledged(alert), conflict: (id) => this.#refresh(id), why: (problem) => this.#why(problem),
    });
  }

  get #mayAck() {
    return this.#me.role !== "viewer";
  }

  start() {
    const signal = this.#stopped.signal;
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    window.addEventListener("hashchange", () => this.#goToAddress(), { signal });
    this.#wireFilters(signal);
    this.relabel();
    this.#timers = [setInterval(() => this.#tick(), 1000), setInterval(() => this.#look(), SUMMARY_MS)];
    this.#look();
    this.#load();
    if (location.hash) this.#goToAddress();
  }

  stop() {
    this.#stopped.abort();
    this.#stream?.stop();
    this.#timers.forEach(clearInterval);
    this.list.forget();
    byId("ack").close();
    history.replaceState(null, "", location.pathname);
  }

  /** Say everything again, after a change of language. */
  relabel() {
    document.querySelector('[data-act="logout"]').textContent = this.#me.name;
    document.querySelector('[data-act="logout"]').title = `${this.#me.name} (${this.#me.role}) · ${t("desk.logout")}`;
    this.#labelFilters();
    this.list.forget();
    if (this.device.name === null) this.detail.redraw();
    else this.device.redraw();
    this.#draw();
    this.#tick();
  }

  // --- what the server says ---

  /** Read what needs attention, then follow the stream from where it stood before reading: nothing falls between. */
  async #load() {
    if (this.#stream) this.#link.state = "reconnecting";
    this.#stream?.stop();
    this.#stream = null;
    try {
      const open = await this.#all({ state: "open" });
      const since = new Date(Date.now() - UNACKED_BACK_MS).toISOString();
      const cleared = await this.#api.get("/v1/alerts", { state: "cleared", unacked: true, from: since, limit: PAGE });
      if (this.#stopped.signal.aborted) return;
      this.#store.replace([...open.items, ...cleared.items]);
      this.#capped = open.capped;
      this.#loaded = true;
      this.#problem = null;
      this.#follow(open.asOf);
    } catch (problem) {
      if (this.#stopped.signal.aborted) return;
      if (problem.status === 401) return this.#on.denied();
      this.#problem = problem;
      setTimeout(() => this.#stopped.signal.aborted || this.#load(), RELOAD_MS);
    }
    this.#draw();
  }

  async #all(filters) {
    const items = [];
    let asOf = null;
    let cursor = null;
    do {
      const page = await this.#api.get("/v1/alerts", { ...filters, limit: PAGE, cursor });
      asOf ??= page.as_of;
      items.push(...page.items);
      cursor = page.next;
    } while (cursor && items.length < ALERTS_MAX);
    return { items, asOf, capped: cursor !== null };
  }

  #follow(after) {
    this.#stream?.stop(); // of a reading that took so long that another was begun
    this.#stream = new Stream(this.#api, after, {
      link: (state) => {
        this.#link.state = state === "broken" ? "reconnecting" : state;
        this.#tick();
      },
      alive: () => (this.#link.aliveAt = Date.now()),
      transition: (data) => this.#take(data),
      database: ({ lost_at: lostAt }) => {
        this.#link.databaseLostAt = lostAt ? Date.parse(lostAt) : null;
        this.#tick();
      },
      position: () => this.#load(),
      denied: () => this.#on.denied(),
    });
    this.#stream.run();
  }

  #take({ transition, alert }) {
    this.#put(alert);
    const places = { level: t(`level.${alert.level}`), title: both(alert, "title"), device: alert.object };
    if (alert.state === "open" && (transition.kind === "raise" || transition.kind === "escalate")) {
      this.#fresh.set(alert.id, Date.now());
      byId(alert.level === 4 ? "urgent" : "polite").textContent = t(transition.kind === "raise" ? "new.alert" : "new.escalate", places);
    }
    this.#draw();
    if (this.detail.id === alert.id) this.detail.show(alert.id);
  }

  #put(alert) {
    this.#store.put(alert);
    const k = this.#history.items.findIndex((item) => item.id === alert.id);
    if (k >= 0) this.#history.items[k] = alert;
  }

  /** The server's own counts, every few seconds. If ours differ twice in a row, something was missed: read all again. */
  async #look() {
    try {
      this.#summary = await this.#api.get("/v1/summary");
    } catch (problem) {
      if (problem.status === 401 && !this.#stopped.signal.aborted) this.#on.denied();
      return;
    }
    if (this.#stopped.signal.aborted) return;
    learnTime(this.#summary.as_of_at);
    showVitals(this.#summary);
    const ours = countOpen(this.#store.all);
    const theirs = this.#summary.open_by_level;
    const same = ours[4].open === theirs.red && ours[3].open === theirs.orange && ours[2].open === theirs.yellow && ours[1].open === theirs.blue;
    this.#mismatches = same || this.#capped || !this.#loaded ? 0 : this.#mismatches + 1;
    if (this.#mismatches >= 2) {
      this.#mismatches = 0;
      this.#load();
    }
    if (this.#shown.length === 0) this.#draw();
  }

  async #loadHistory(more = false) {
    try {
      const cursor = more ? this.#history.next : null;
      const { unacked, domain, level } = this.#filters;
      const page = await this.#api.get("/v1/alerts", { state: "cleared", unacked: unacked || null, domain, level_min: level || null, limit: 100, cursor });
      this.#history = { items: more ? [...this.#history.items, ...page.items] : page.items, next: page.next };
      this.#problem = null;
    } catch (problem) {
      this.#problem = problem;
    }
    this.#draw();
  }

  #why(problem) {
    if (problem.status === 0) return t("why.network");
    return problem.status === 503 ? t("why.database") : problem.message;
  }

  // --- what the operator does ---

  #goToAddress() {
    const name = deviceInAddress();
    if (name) this.#openDevice(name, false);
    else this.#choose(chosenInAddress(), false);
  }

  #openDevice(name, write = true) {
    document.body.classList.add("has-detail");
    if (write) history.replaceState(null, "", `#device/${name}`);
    this.detail.show(null);
    this.device.show(name);
  }

  #choose(id, write = true) {
    this.device.show(null);
    this.#chosen = id;
    document.body.classList.toggle("has-detail", id !== null);
    if (write) history.replaceState(null, "", id ? `#alert/${id}` : location.pathname);
    this.detail.show(id, this.#store.get(id) ?? this.#history.items.find((item) => item.id === id) ?? null);
    this.#draw();
  }

  #acknowledge(id) {
    const alert = this.#store.get(id) ?? (this.detail.alert?.id === id ? this.detail.alert : null) ?? this.#shown.find((item) => item.id === id);
    if (alert && alert.acked_at === null && this.#mayAck) this.ack.open(alert);
  }

  #acknowledged(alert) {
    byId("polite").textContent = t("ack.done", { title: both(alert, "title") });
    this.#put(alert);
    this.#draw();
    if (this.detail.id === alert.id) this.detail.show(alert.id);
  }

  async #refresh(id) {
    try {
      this.#acknowledged(await this.#api.get(`/v1/alerts/${encodeURIComponent(id)}`));
    } catch (problem) {
      this.#problem = problem;
    }
  }

  #move(step) {
    if (this.#shown.length === 0) return;
    const at = this.#shown.findIndex((alert) => alert.id === this.#chosen);
    const next = at < 0 ? (step > 0 ? 0 : this.#shown.length - 1) : Math.min(this.#shown.length - 1, Math.max(0, at + step));
    this.#choose(this.#shown[next].id);
    this.list.focus(this.#shown[next].id);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (isTyping(event.target)) event.target.blur();
      else this.#choose(null);
      return;
    }
    if (isTyping(event.target)) return;
    const act = {
      j: () => this.#move(1), ArrowDown: () => this.#move(1), k: () => this.#move(-1), ArrowUp: () => this.#move(-1),
      a: () => this.#chosen && this.#acknowledge(this.#chosen), u: () => byId("filter-unacked").click(),
      "/": () => byId("filter-text").focus(), "?": () => byId("help").showModal(),
    }[event.key];
    if (!act || (event.key.startsWith("Arrow") && byId("detail").contains(event.target))) return;
    event.preventDefault();
    act();
  }

  #wireFilters(signal) {
    const changed = (name, value) => {
      this.#filters = { ...this.#filters, [name]: value };
      if (this.#scope === "history" && name !== "text") this.#loadHistory();
      this.#draw();
    };
    byId("filters").addEventListener("submit", (event) => event.preventDefault(), { signal });
    byId("filter-unacked").addEventListener("change", (event) => changed("unacked", event.target.checked), { signal });
    byId("filter-domain").addEventListener("change", (event) => changed("domain", event.target.value), { signal });
    byId("filter-level").addEventListener("change", (event) => changed("level", Number(event.target.value)), { signal });
    byId("filter-text").addEventListener("input", (event) => changed("text", event.target.value), { signal });
    byId("filter-reset").addEventListener("click", () => this.#reset(), { signal });
    byId("more").addEventListener("click", () => this.#loadHistory(true), { signal });
    byId("filter-unacked").checked = false;
    byId("filter-text").value = "";
  }

  #reset() {
    this.#filters = { unacked: false, domain: "", level: 0, text: "" };
    byId("filter-unacked").checked = false;
    byId("filter-text").value = "";
    if (this.#scope === "history") this.#loadHistory();
    this.#labelFilters();
    this.#draw();
  }

  #setLevel(level) {
    this.#filters = { ...this.#filters, level };
    byId("filter-level").value = String(level);
    if (this.#scope === "history") this.#loadHistory();
    this.#draw();
  }

  #setScope(scope) {
    this.#scope = scope;
    if (scope === "history") this.#loadHistory();
    this.#labelFilters();
    this.#draw();
  }

  // --- what is drawn ---

  #labelFilters() {
    byId("scope").replaceChildren(...["active", "history"].map((scope) =>
      el("button", { type: "button", "aria-pressed": String(this.#scope === scope), "data-scope": scope, on: { click: () => this.#setScope(scope) } }, t(`scope.${scope}`))));
    const option = (value, text, chosen) => el("option", { value, selected: value === chosen }, text);
    byId("filter-domain").replaceChildren(
      option("", t("filter.domain.all"), this.#filters.domain),
      ...["gas", "water", "drainage", "device"].map((domain) => option(domain, domainName(domain), this.#filters.domain)));
    byId("filter-level").replaceChildren(
      option("0", t("filter.level.all"), String(this.#filters.level)),
      ...[4, 3, 2].map((level) => option(String(level), level === 4 ? t("level.4") : t("filter.level.min", { level: t(`level.${level}`) }), String(this.#filters.level))));
  }

  #draw() {
    const active = this.#scope === "active";
    const all = active ? this.#store.all : this.#history.items;
    this.#shown = all.filter((alert) => passes(alert, this.#filters)).sort(active ? byUrgency : byTime);
    this.list.show(this.#shown, { chosen: this.#chosen, fresh: this.#fresh, mayAck: this.#mayAck });
    const counts = countOpen(this.#store.all);
    showCounts(counts, this.#filters.level, (level) => this.#setLevel(level));
    byId("more").hidden = active || this.#history.next === null;
    byId("filter-reset").hidden = !(this.#filters.unacked || this.#filters.domain || this.#filters.level || this.#filters.text);
    this.#drawNotes(all.length, active);
    const unacked = [4, 3, 2, 1].reduce((sum, level) => sum + counts[level].unacked, 0);
    this.#title = `${unacked ? `(${unacked}) ` : ""}${t("desk.title")} · citynet`;
    this.#showTitle();
  }

  #title = "";

  #showTitle() {
    const lost = document.body.dataset.link === "stale";
    document.title = lost ? `⚠ ${t("title.lost")} · ${this.#title}` : this.#title;
  }

  #drawNotes(total, active) {
    const note = byId("list-note");
    const failed = this.#problem !== null;
    note.hidden = !failed && !this.#capped;
    note.classList.toggle("form-error", failed);
    note.textContent = failed ? t("list.failed", { why: this.#why(this.#problem) }) : t("list.capped", { n: ALERTS_MAX });
    const empty = byId("empty");
    empty.hidden = this.#shown.length > 0;
    const [head, more] = this.#emptyText(total, active);
    empty.replaceChildren(el("p", {}, head), more ? el("p", { class: "quiet" }, more) : "");
  }

  /** Calm is claimed only when the page is alive and everything has been read. */
  #emptyText(total, active) {
    if (total > 0) return [t("empty.filtered"), t("empty.filtered.more", { n: total })];
    if (!active) return [t("empty.history"), null];
    if (this.#loaded && document.body.dataset.link === "live" && this.#summary) {
      return [t("empty.calm"), t("empty.calm.more", { online: this.#summary.gateways_online, total: this.#summary.gateways_total })];
    }
    return [this.#problem ? "" : t("list.loading"), null];
  }

  #tick() {
    const before = document.body.dataset.link;
    showLink(this.#link, this.#summary);
    if (before !== document.body.dataset.link && this.#shown.length === 0) this.#draw();
    this.#showTitle();
    this.list.tick();
    this.detail.tick();
    this.device.tick();
    for (const [id, at] of this.#fresh) {
      if (Date.now() - at < FRESH_MS) continue;
      this.#fresh.delete(id);
      document.querySelector(`.row.fresh[data-id="${CSS.escape(id)}"]`)?.classList.remove("fresh");
    }
  }
}

function deviceInAddress() {
  const match = /^#device\/([\w.-]{1,64})$/.exec(location.hash);
  return match ? match[1] : null;
}

function chosenInAddress() {
  const match = /^#alert\/([\w.-]{1,128})$/.exec(location.hash);
  return match ? match[1] : null;
}
