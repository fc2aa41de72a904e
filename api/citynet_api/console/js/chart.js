// A small line chart of a series around the raise: band of minimum and maximum, the mean, the limits, the moment of the raise.

import { el, svg } from "./dom.js";
import { clock, dayOf, hourMinute, number, quantity } from "./format.js";
import { t } from "./i18n.js";
import { nothing } from "./spans.js";

const WIDTH = 520;
const HEIGHT = 190;
const EDGE = { left: 46, right: 12, top: 12, bottom: 24 };

/** Round steps of an axis: at most `count` + 1 values from within [low, high]. */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
  const first = Math.ceil(low / step - 1e-9) * step;
  return Array.from({ length: Math.floor((high - first) / step + 1e-9) + 1 }, (_, k) => first + k * step);
}

const TIME_STEPS_MS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080].map((minutes) => minutes * 60_000);

const DAY_MS = 86_400_000;
const BAD = 2; // grade, the low two bits of a quality code

function timeStep(from, to) {
  return TIME_STEPS_MS.find((ms) => (to - from) / ms <= 6) ?? TIME_STEPS_MS.at(-1);
}

function timeTicks(from, to) {
  const step = timeStep(from, to);
  const zone = new Date(from).getTimezoneOffset() * 60_000;
  const first = Math.ceil((from - zone) / step) * step + zone;
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, k) => first + k * step);
}

/** What is drawn of an answer: buckets as they are; of raw readings those that buckets would use. */
function pointsOf(answer) {
  if (answer.bucket !== "raw") return answer.buckets.filter((bucket) => bucket.avg !== null);
  return answer.readings
    .filter((reading) => reading.value !== null && (reading.quality & 3) < BAD)
    .map(({ at, value }) => ({ at, min: value, max: value, avg: value }));
}

/**
 * The chart of `answer` (readings, or buckets of them). `limits` is a list of {value, level, main}; only the main one widens
 * the scale, the others are drawn where they fit. `raisedAt` may be null; `newestAt` is told where there is nothing to draw.
 */
export function chart(answer, { metric, unit, limits, raisedAt, newestAt = undefined }) {
  const points = pointsOf(answer);
  if (points.length === 0) return nothing(newestAt);
  const from = Date.parse(answer.from_at);
  const to = Date.parse(answer.to_at);
  const main = limits.filter((limit) => limit.main).map((limit) => limit.value);
  let low = Math.min(...points.map((p) => p.min), ...main);
  let high = Math.max(...points.map((p) => p.max), ...main);
  const about = t("detail.chart.about", {
    metric, unit, from: clock(from), to: clock(to),
    min: number(Math.min(...points.map((p) => p.min))), max: number(Math.max(...points.map((p) => p.max))),
  });
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [low >= 0 && low - margin < 0 ? 0 : low - margin, high + margin];
  const x = (ms) => EDGE.left + ((ms - from) / (to - from)) * (WIDTH - EDGE.left - EDGE.right);
  const y = (value) => HEIGHT - EDGE.bottom - ((value - low) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const half = (answer.bucket_s ?? 0) * 500;
  const places = points.map((p) => ({ ...p, ms: Math.min(to, Date.parse(p.at) + half) }));
  const node = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": about },
    axes(x, y, low, high, from, to),
    ...runs(places).flatMap((run) => curve(run, x, y)),
    ...limits.filter(({ value }) => value >= low && value <= high).map((limit) => limitLine(limit, y, unit)),
    raiseLine(raisedAt, x, from, to));
  addReadout(node, places, x, y, unit);
  return node;
}

/** Pieces without a gap: a line across missing readings would claim what nobody measured. */
function runs(points) {
  const gaps = points.slice(1).map((point, k) => point.ms - points[k].ms).sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)] ?? 0;
  const pieces = [];
  for (const point of points) {
    const last = pieces.at(-1)?.at(-1);
    if (last && point.ms - last.ms <= Math.max(usual * 3, 90_000)) pieces.at(-1).push(point);
    else pieces.push([point]);
  }
  return pieces;
}

const path = (points) => points.map(([px, py], k) => `${k === 0 ? "M" : "L"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");

function curve(run, x, y) {
  if (run.length === 1) return [svg("circle", { class: "curve-dot", cx: x(run[0].ms), cy: y(run[0].avg), r: 2 })];
  const upper = run.map((p) => [x(p.ms), y(p.max)]);
  const lower = run.map((p) => [x(p.ms), y(p.min)]).reverse();
  return [
    svg("path", { class: "band", d: `${path([...upper, ...lower])}Z` }),
    svg("path", { class: "curve", d: path(run.map((p) => [x(p.ms), y(p.avg)])) }),
  ];
}

function axes(x, y, low, high, from, to) {
  const group = svg("g", { class: "axes" });
  for (const value of ticks(low, high, 4)) {
    group.append(
      svg("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }),
      svg("text", { x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(Number(value.toPrecision(6)))));
  }
  const label = timeStep(from, to) >= DAY_MS ? dayOf : hourMinute;
  for (const ms of timeTicks(from, to)) {
    const anchor = x(ms) > WIDTH - EDGE.right - 16 ? "end" : "middle";
    group.append(svg("text", { x: x(ms), y: HEIGHT - 7, "text-anchor": anchor }, label(ms)));
  }
  return group;
}

function limitLine({ value, level, main }, y, unit) {
  return svg("g", { class: `limit level-${level}${main ? " main" : ""}` },
    svg("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }),
    svg("text", { x: EDGE.left + 4, y: y(value) - 4 }, `${t(`level.${level}`)} ${quantity(value, unit)}`));
}

function raiseLine(raisedAt, x, from, to) {
  if (raisedAt === null || raisedAt < from || raisedAt > to) return null;
  const px = x(raisedAt);
  const left = px > WIDTH - 80;
  return svg("g", { class: "raise" },
    svg("line", { x1: px, x2: px, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
    svg("text", { x: left ? px - 4 : px + 4, y: HEIGHT - EDGE.bottom - 5, "text-anchor": left ? "end" : "start" }, t("detail.chart.raised")));
}

/** The value under the pointer. */
function addReadout(node, points, x, y, unit) {
  const text = svg("text", { class: "readout", x: WIDTH - EDGE.right, y: 10, "text-anchor": "end" });
  const dot = svg("circle", { class: "readout-dot", r: 3.5, visibility: "hidden" });
  node.append(dot, text);
  node.addEventListener("pointermove", (event) => {
    const box = node.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * WIDTH;
    const nearest = points.reduce((a, b) => (Math.abs(x(b.ms) - px) < Math.abs(x(a.ms) - px) ? b : a));
    const band = nearest.max > nearest.min ? ` (${number(nearest.min)} … ${number(nearest.max)})` : "";
    text.textContent = `${clock(nearest.ms)}  ${quantity(nearest.avg, unit)}${band}`;
    dot.setAttribute("cx", x(nearest.ms));
    dot.setAttribute("cy", y(nearest.avg));
    dot.setAttribute("visibility", "visible");
  });
  node.addEventListener("pointerleave", () => {
    text.textContent = "";
    dot.setAttribute("visibility", "hidden");
  });
}
