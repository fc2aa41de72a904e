// Words, in Chinese and English. A key that is absent shows itself, which a test would see.

import { byId, el } from "./dom.js";
import { recall, remember } from "./prefs.js";

const WORDS = {
  "login.title": ["告警台", "alerts"],
  "login.about": ["城市生命线告警：查看、确认、处置。", "Alerts of the city's lifelines: see, acknowledge, act."],
  "login.token": ["访问令牌", "Access token"],
  "login.enter": ["进入", "Enter"],
  "login.hint": [
    "令牌只保存在本标签页，关闭即清除。没有令牌？请管理员执行 citynet api token create。",
    "The token stays in this tab only and is gone when you close it. No token? Ask an administrator for: citynet api token create.",
  ],
  "login.refused": ["令牌无效、已过期或已吊销。", "This token is wrong, expired or revoked."],
  "login.shape": ["令牌以 cn_ 开头，共 46 个字符。", "A token begins with cn_ and has 46 characters."],
  "login.away": ["服务器没有应答，请稍后再试。", "The server does not answer. Try again in a moment."],
  "login.database": ["服务器暂时连不上数据库，请稍后再试。", "The server cannot reach its database just now. Try again in a moment."],
  "login.ended": ["令牌已失效，请重新登录。", "Your token is no longer valid. Please log in again."],
  "desk.title": ["告警台", "alerts"],
  "desk.counts": ["未解除的告警", "Open alerts"],
  "desk.logout": ["退出", "Log out"],
  "vital.gateways": ["网关在线", "gateways online"],
  "vital.readings": ["读数/秒", "readings/s"],
  "level.4": ["红色", "Red"],
  "level.3": ["橙色", "Orange"],
  "level.2": ["黄色", "Yellow"],
  "level.1": ["蓝色", "Blue"],
  "link.connecting": ["正在连接…", "Connecting…"],
  "link.live": ["实时", "Live"],
  "link.reconnecting": ["正在重连 · 停在 {time}", "Reconnecting · as of {time}"],
  "link.stale": ["已停止更新 · {time} 起", "Not updating · since {time}"],
  "banner.stale": [
    "画面停在 {time}（{age}前）。下面的列表不代表现在的情况，正在重连。",
    "This page stopped at {time} ({age} ago). The list below is not the present state. Reconnecting.",
  ],
  "banner.database": [
    "服务器自 {time} 起连不上数据库（{age}）。下面的列表不代表现在的情况。",
    "The server lost its database at {time} ({age}). The list below is not the present state.",
  ],
  "event.broker_dropped": [
    "{time} 消息代理丢弃了消息（计数 {count}）：直连设备的数据可能丢失，网关会自行重发。请检查采集服务和代理的队列。",
    "At {time} the broker dropped messages ({count} counted): data of direct devices may be lost, gateways send theirs again. Check ingest and the broker's queue.",
  ],
  "event.gateway_cloned": [
    "{time} 发现两台设备使用同一网关编号 {object}，请停用其中一台。",
    "At {time} two machines were seen under the gateway id {object}. Take one of them off.",
  ],
  "event.rules_refused": [
    "{time} {object} 重新读取规则文件时发现错误：原有规则继续运行，改动没有生效。请查看日志或运行 citynet rules check。",
    "At {time} {object} refused the edited rule files: the armed rules go on, the change is not in force. See its log, or run citynet rules check.",
  ],
  "event.rules_spread": [
    "{time} {object}：{count} 项规则涉及其他采集进程的数据，未按原文评估。请查看日志；单进程运行（--workers 1）不受影响。",
    "At {time} {object}: {count} rules join series of other workers and are not evaluated as written. See its log; with --workers 1 they are.",
  ],
  "event.rule_failed": [
    "{time} 规则 {object} 处理数据时出错，已停用：其余规则继续运行，它的未解除告警保持不变。修正后重新读取规则文件即可恢复。",
    "At {time} rule {object} failed on data and is out: the others run on, its open alerts stay. Reload the rule files to arm it again.",
  ],
  "banner.silent": [
    "已经 {age} 没有收到任何数据批次。没有新告警不等于平安，请检查网关和采集服务。",
    "No data has arrived for {age}. No new alerts does not mean all is well: check gateways and ingest.",
  ],
  "list.heading": ["告警列表", "List of alerts"],
  "list.more": ["更多", "More"],
  "list.loading": ["正在读取…", "Loading…"],
  "list.capped": ["告警过多，只显示最新的 {n} 条。", "Too many alerts; only the newest {n} are shown."],
  "list.failed": ["读取失败：{why}", "Could not be read: {why}"],
  "scope.active": ["当前", "Current"],
  "scope.history": ["历史", "History"],
  "filter.unacked": ["只看未确认", "Unacknowledged only"],
  "filter.domain": ["领域", "Domain"],
  "filter.level": ["级别", "Level"],
  "filter.find": ["查找", "Find"],
  "filter.find.hint": ["设备、区域、名称  /", "device, title  /"],
  "filter.reset": ["清除筛选", "Clear filters"],
  "filter.domain.all": ["全部领域", "All domains"],
  "filter.level.all": ["全部级别", "All levels"],
  "filter.level.min": ["{level}及以上", "{level} and above"],
  "domain.gas": ["燃气", "Gas"],
  "domain.water": ["供水", "Water"],
  "domain.drainage": ["排水", "Drainage"],
  "domain.device": ["设备", "Devices"],
  "empty.calm": ["当前没有告警", "No alerts just now"],
  "empty.calm.more": [
    "连接正常，{online}/{total} 个网关在线。新的告警会自己出现。",
    "The connection is live, {online} of {total} gateways are online. New alerts appear by themselves.",
  ],
  "empty.filtered": ["没有符合筛选条件的告警", "No alert matches the filters"],
  "empty.filtered.more": ["还有 {n} 条被筛选条件隐藏。", "{n} more are hidden by the filters."],
  "empty.history": ["没有历史告警", "No past alerts"],
  "row.limit": ["限值 {limit}", "limit {limit}"],
  "row.silent": ["{value} 无数据", "silent for {value}"],
  "row.silent.limit": ["允许 {limit}", "allowed {limit}"],
  "row.cleared": ["已解除", "cleared"],
  "row.ackedWord": ["已确认", "acknowledged"],
  "row.unacked": ["未确认", "not acknowledged"],
  "row.ack": ["确认", "Acknowledge"],
  "row.noStandard": ["无标准", "no standard"],
  "ack.title": ["确认告警", "Acknowledge alert"],
  "ack.comment": ["说明（可留空）", "Comment (may stay empty)"],
  "ack.meaning": [
    "确认表示你已知晓并负责跟进，不会解除告警。你的名字和时间会记录在案。",
    "To acknowledge is to say: I know and I follow it up. It does not clear the alert. Your name and the time are kept.",
  ],
  "ack.send": ["确认告警", "Acknowledge"],
  "ack.cancel": ["取消", "Cancel"],
  "ack.sending": ["正在提交…", "Sending…"],
  "ack.conflict": ["{by} 已于 {time} 确认。", "{by} acknowledged it at {time}."],
  "ack.failed": ["没有提交成功：{why}。告警仍未确认，请再试。", "Not sent: {why}. The alert is still unacknowledged; try again."],
  "ack.role": ["你的令牌是只读的（viewer），确认需要 operator。", "Your token is read-only (viewer); acknowledging needs operator."],
  "ack.done": ["已确认：{title}", "Acknowledged: {title}"],
  "detail.none": ["选择一条告警查看详情", "Choose an alert to see its details"],
  "detail.none.more": ["j / k 上下移动，a 确认，? 查看全部按键。", "j / k move, a acknowledges, ? shows all keys."],
  "detail.back": ["返回列表", "Back to the list"],
  "detail.open": ["持续 {age}", "open for {age}"],
  "detail.cleared": ["已于 {time} 解除，持续 {age}", "cleared at {time}, after {age}"],
  "detail.value": ["最近变化时的值", "Value at last change"],
  "detail.silent": ["无数据时长", "Silent for"],
  "detail.raised": ["发生", "Raised"],
  "detail.device": ["设备", "Device"],
  "detail.place": ["位置", "Place"],
  "detail.gateway": ["网关", "Gateway"],
  "detail.standard": ["依据", "Standard"],
  "detail.rule": ["规则", "Rule"],
  "detail.version": ["第 {v} 版", "version {v}"],
  "detail.max": ["最高到过", "Highest so far"],
  "detail.acked": ["{by} 于 {time} 确认", "Acknowledged by {by} at {time}"],
  "detail.guidance": ["处置指引", "What to do"],
  "detail.guidance.none": ["这条规则没有写处置指引。", "This rule carries no guidance."],
  "detail.chart": ["读数", "Readings"],
  "detail.chart.none": ["这段时间没有读数。", "No readings in this time."],
  "detail.chart.failed": ["曲线读取失败。", "The chart could not be read."],
  "detail.chart.about": [
    "{metric} 从 {from} 到 {to}，最低 {min}，最高 {max} {unit}",
    "{metric} from {from} to {to}, lowest {min}, highest {max} {unit}",
  ],
  "detail.chart.raised": ["发生", "raised"],
  "chart.span": ["时间范围", "Span of time"],
  "chart.from.readings": ["每点一个读数", "each point is a reading"],
  "chart.from.raw": ["每点 {width} · 由读数计算", "a point is {width} · computed from readings"],
  "chart.from.minute": ["每点 {width} · 来自 1 分钟汇总", "a point is {width} · from 1 min rollups"],
  "chart.from.hour": ["每点 {width} · 来自 1 小时汇总", "a point is {width} · from 1 h rollups"],
  "chart.none.newest": ["最近一次读数在 {time}（{age}前）。", "The newest reading is of {time} ({age} ago)."],
  "chart.none.never": ["从未收到读数。", "No reading was ever received."],
  "span.raise": ["发生前后", "Raise"],
  "span.1h": ["1 小时", "1 h"],
  "span.6h": ["6 小时", "6 h"],
  "span.24h": ["24 小时", "24 h"],
  "span.7d": ["7 天", "7 d"],
  "span.30d": ["30 天", "30 d"],
  "device.open": ["查看设备的全部测点", "All series of this device"],
  "device.back": ["返回", "Back"],
  "device.gone": ["没有这台设备。", "There is no such device."],
  "device.ago": ["{age}前", "{age} ago"],
  "device.more": ["还有 {n} 个测点未显示。", "{n} more series are not shown."],
  "complete.title": ["数据完整率", "Completeness"],
  "complete.of": ["收到 {received} / 应有 {expected}", "{received} of {expected} expected"],
  "complete.every": ["间隔 {n} 秒", "every {n} s"],
  "complete.estimated": ["间隔为估计值", "interval estimated"],
  "complete.unknown": ["采样间隔未知", "sampling interval unknown"],
  "complete.none": ["此时段无应到读数", "none were due in this time"],
  "detail.evidence": ["判定证据", "Evidence"],
  "detail.evidence.none": ["没有附带证据。", "No evidence attached."],
  "detail.transitions": ["经过", "What happened"],
  "detail.failed": ["详情读取失败：{why}", "The details could not be read: {why}"],
  "detail.gone": ["没有这条告警。", "There is no such alert."],
  "kind.raise": ["发生", "Raised"],
  "kind.escalate": ["升级", "Escalated"],
  "kind.deescalate": ["降级", "De-escalated"],
  "kind.clear": ["解除", "Cleared"],
  "kind.supersede": ["被新版规则取代", "Superseded by a new rule version"],
  "kind.verdict": ["改判", "Verdict"],
  "verdict.event": ["真实事件", "City event"],
  "verdict.device": ["疑似设备故障", "Probably the device"],
  "verdict.undecided": ["未定", "Undecided"],
  "audience.people": ["按公共安全处置", "for people"],
  "audience.maintenance": ["转维护核查", "for maintenance"],
  "detail.verdict": ["设备故障或真实事件", "Sensor fault or city event"],
  "kind.revise": ["据迟到数据修正", "Revised by late data"],
  "detail.known": ["补判：获知于", "In hindsight: learned"],
  "detail.contacts": ["联系", "Contacts"],
  "kind.ack": ["确认", "Acknowledged"],
  "evidence.basis": ["计量基准", "Basis"],
  "evidence.direction": ["方向", "Direction"],
  "evidence.direction.high": ["高于限值", "above the limit"],
  "evidence.direction.low": ["低于限值", "below the limit"],
  "evidence.hysteresis": ["回差", "Hysteresis"],
  "evidence.on_delay_s": ["持续多久才告警", "On-delay"],
  "evidence.off_delay_s": ["恢复多久才解除", "Off-delay"],
  "evidence.pending_since_us": ["超限开始", "Beyond the limit since"],
  "evidence.last_time_us": ["最后一次读数", "Last reading"],
  "evidence.max_age_s": ["允许无数据", "Silence allowed"],
  "evidence.source": ["出处", "Source"],
  "evidence.samples": ["判定所用读数", "Readings judged"],
  "status.P": ["原文核实", "read in the standard itself"],
  "status.Q": ["转引，未见原文", "quoted by others, original not seen"],
  "status.C": ["见于公开数据，未见原文", "seen in public data, original not seen"],
  "status.U": ["未核实", "not verified"],
  "status.D": ["本平台设计值", "our own design value"],
  "help.title": ["按键", "Keys"],
  "help.marks": ["依据标记", "Marks of a standard"],
  "help.close": ["关闭", "Close"],
  "help.j": ["下一条 / 上一条", "next / previous alert"],
  "help.enter": ["打开详情", "open the details"],
  "help.a": ["确认选中的告警", "acknowledge the chosen alert"],
  "help.u": ["只看未确认", "unacknowledged only"],
  "help.slash": ["查找", "find"],
  "help.esc": ["返回、关闭", "back, close"],
  "help.help": ["本页", "this page"],
  "new.alert": ["新告警，{level}：{title}，{device}", "New alert, {level}: {title}, {device}"],
  "new.escalate": ["升级为{level}：{title}，{device}", "Escalated to {level}: {title}, {device}"],
  "theme.auto": ["自动", "Auto"],
  "theme.night": ["夜间", "Night"],
  "theme.day": ["日间", "Day"],
  "theme.label": ["配色：{name}", "Colours: {name}"],
  "title.lost": ["失联", "NOT LIVE"],
  "unit.s": ["{n} 秒", "{n} s"],
  "unit.m": ["{n} 分", "{n} min"],
  "unit.h": ["{n} 小时", "{n} h"],
  "unit.d": ["{n} 天", "{n} d"],
  "why.network": ["服务器没有应答", "the server does not answer"],
  "why.database": ["数据库暂时不可用", "the database is away"],
};

let index = 0;

/** "zh" or "en". */
export const language = () => (index === 0 ? "zh" : "en");
export const locale = () => (index === 0 ? "zh-CN" : "en-GB");

/** The word for a key, its {places} filled. */
export function t(key, places = {}) {
  const text = WORDS[key]?.[index] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(places[name] ?? ""));
}

export const knows = (key) => key in WORDS;

/** The field of an alert in the chosen language: `both(alert, "title")`. */
export const both = (thing, field) => thing?.[`${field}_${language()}`] || thing?.[`${field}_zh`] || thing?.[`${field}_en`] || "";

/** Take the remembered language, else the browser's. */
export function chooseLanguage() {
  const remembered = recall("language");
  const browser = (navigator.languages?.[0] ?? navigator.language ?? "zh").toLowerCase();
  setLanguage(remembered ?? (browser.startsWith("zh") ? "zh" : "en"), false);
}

export function setLanguage(name, keep = true) {
  index = name === "en" ? 1 : 0;
  if (keep) remember("language", name);
  document.documentElement.lang = locale();
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll('[data-act="language"]')) {
    node.textContent = index === 0 ? "English" : "中文";
    node.lang = index === 0 ? "en" : "zh-CN";
  }
  byId("filter-text").placeholder = t("filter.find.hint");
  fillHelp();
}

function fillHelp() {
  const key = (names, word) => [el("dt", {}, ...names.map((name) => el("kbd", {}, name))), el("dd", {}, t(word))];
  byId("help-keys").replaceChildren(
    ...key(["j", "k"], "help.j"), ...key(["Enter"], "help.enter"), ...key(["a"], "help.a"), ...key(["u"], "help.u"),
    ...key(["/"], "help.slash"), ...key(["Esc"], "help.esc"), ...key(["?"], "help.help"),
  );
  byId("help-marks").replaceChildren(
    ...["P", "Q", "C", "U", "D"].flatMap((mark) => [el("dt", {}, el("span", { class: "mark" }, mark)), el("dd", {}, t(`status.${mark}`))]),
  );
}
