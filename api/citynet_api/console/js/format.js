// Numbers and times as people read them. Times are shown in the browser's own zone.

import { locale, t } from "./i18n.js";

// The server's clock minus ours: a wrong clock in the control room must not make a fresh alert look old.
let skewMs = 0;

/** Learn the server's time from an answer. */
export function learnTime(iso) {
  skewMs = Date.parse(iso) - Date.now();
}

export const serverNow = () => Date.now() + skewMs;

const two = (n) => String(n).padStart(2, "0");

/** 03:04:05; on another day the date and 03:04. */
export function clock(value) {
  const at = new Date(value);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date(serverNow()).toDateString() ? time : `${day(at)} ${time.slice(0, 5)}`;
}

/** 03:04, for axes. */
export function hourMinute(value) {
  const at = new Date(value);
  return `${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** The day, for axes of many days. */
export const dayOf = (value) => day(new Date(value));

function day(at) {
  return new Intl.DateTimeFormat(locale(), { month: "short", day: "numeric" }).format(at);
}

/** Date, time and zone, unmistakable. */
export function fullTime(value) {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "long" }).format(new Date(value));
}

/** A duration in its two largest units: 4 min 12 s, 3 h 5 min, 2 d 1 h. */
export function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const parts = [["d", Math.floor(s / 86400)], ["h", Math.floor(s / 3600) % 24], ["m", Math.floor(s / 60) % 60], ["s", s % 60]];
  const first = parts.findIndex(([, n]) => n > 0);
  if (first < 0) return t("unit.s", { n: 0 });
  return parts.slice(first, first + 2).filter(([, n], k) => n > 0 || k === 0).map(([unit, n]) => t(`unit.${unit}`, { n })).join(" ");
}

export const age = (iso) => duration(serverNow() - Date.parse(iso));

/** At most four significant digits, never an exponent for everyday sizes. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  return new Intl.NumberFormat(locale(), { maximumSignificantDigits: 4, useGrouping: Math.abs(value) >= 1e5 }).format(value);
}

/** Units as they are printed. */
export function unit(name) {
  return { "mg/m3": "mg/m³", "m3/h": "m³/h", deg: "°" }[name] ?? name ?? "";
}

export const quantity = (value, name) => (value === null || value === undefined ? "–" : `${number(value)} ${unit(name)}`.trim());
