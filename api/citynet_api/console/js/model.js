// What is shown and in which order: pure functions over alerts, and the store of those that need attention.

/** Open, or cleared before anybody took notice: both need an operator. */
export const needsAttention = (alert) => alert.state === "open" || alert.acked_at === null;

/** Most severe first; within a level those that nobody acknowledged; then the newest. */
export function byUrgency(a, b) {
  const open = Number(b.state === "open") - Number(a.state === "open");
  const unacked = Number(a.acked_at !== null) - Number(b.acked_at !== null);
  return open || b.level - a.level || unacked || byTime(a, b);
}

export const byTime = (a, b) => b.raised_at.localeCompare(a.raised_at) || b.id.localeCompare(a.id);

/** Whether an alert passes the filters {unacked, domain, level, text}. */
export function passes(alert, filters) {
  if (filters.unacked && alert.acked_at !== null) return false;
  if (filters.domain && alert.domain !== filters.domain) return false;
  if (filters.level && alert.level < filters.level) return false;
  const wanted = filters.text.trim().toLowerCase();
  if (!wanted) return true;
  const text = [alert.object, alert.district, alert.title_zh, alert.title_en, alert.rule_id, alert.metric].join(" ").toLowerCase();
  return wanted.split(/\s+/).every((word) => text.includes(word));
}

/** Open alerts a level: {4: n, 3: n, 2: n, 1: n}, and how many of each nobody acknowledged. */
export function countOpen(alerts) {
  const counts = { 4: { open: 0, unacked: 0 }, 3: { open: 0, unacked: 0 }, 2: { open: 0, unacked: 0 }, 1: { open: 0, unacked: 0 } };
  for (const alert of alerts) {
    if (alert.state !== "open") continue;
    counts[alert.level].open += 1;
    if (alert.acked_at === null) counts[alert.level].unacked += 1;
  }
  return counts;
}

/** Alerts by id. An older picture of an alert never replaces a newer one. */
export class Store {
  #alerts = new Map();

  get all() {
    return [...this.#alerts.values()];
  }

  get(id) {
    return this.#alerts.get(id);
  }

  replace(alerts) {
    this.#alerts = new Map(alerts.map((alert) => [alert.id, alert]));
  }

  put(alert) {
    const known = this.#alerts.get(alert.id);
    if (known && isOlder(alert, known)) return;
    if (needsAttention(alert)) this.#alerts.set(alert.id, alert);
    else this.#alerts.delete(alert.id);
  }
}

function isOlder(alert, known) {
  return Date.parse(alert.changed_at) < Date.parse(known.changed_at) || (known.acked_at !== null && alert.acked_at === null);
}
