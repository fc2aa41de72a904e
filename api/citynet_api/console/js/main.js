// Login, language and colours; the desk itself is in desk.js.

import { Api } from "./api.js";
import { Desk } from "./desk.js";
import { byId } from "./dom.js";
import { chooseLanguage, language, setLanguage, t } from "./i18n.js";
import { setTheme, theme, THEMES, token } from "./prefs.js";

const TOKEN = /^cn_[A-Za-z0-9_-]{43}$/;
let desk = null;

function showTheme() {
  for (const node of document.querySelectorAll('[data-act="theme"]')) {
    node.textContent = `◐ ${t(`theme.${theme()}`)}`;
    node.setAttribute("aria-label", t("theme.label", { name: t(`theme.${theme()}`) }));
  }
}

function showLogin(message = "") {
  desk?.stop();
  desk = null;
  document.body.dataset.view = "login";
  document.title = `citynet · ${t("login.title")}`;
  byId("desk").hidden = true;
  byId("login").hidden = false;
  byId("login-error").textContent = message;
  byId("token").value = "";
  byId("token").focus();
}

async function enter(given) {
  const api = new Api(given);
  const me = await api.get("/v1/me");
  token.set(given);
  byId("login").hidden = true;
  byId("desk").hidden = false;
  document.body.dataset.view = "desk";
  desk = new Desk(api, me, { denied: () => leave(t("login.ended")) });
  desk.start();
}

function leave(message = "") {
  token.clear();
  showLogin(message);
}

function explainLogin(problem) {
  if (problem.status === 401) return t("login.refused");
  return t(problem.status === 503 ? "login.database" : "login.away");
}

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = byId("token").value.trim();
  const error = byId("login-error");
  error.textContent = TOKEN.test(given) ? "" : t("login.shape");
  if (error.textContent) return;
  try {
    await enter(given);
  } catch (problem) {
    error.textContent = explainLogin(problem);
  }
});

const ACTS = {
  language: () => {
    setLanguage(language() === "zh" ? "en" : "zh");
    showTheme();
    desk?.relabel();
  },
  theme: () => {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    showTheme();
  },
  help: () => byId("help").showModal(),
  logout: () => leave(),
};
document.addEventListener("click", (event) => ACTS[event.target.closest?.("[data-act]")?.dataset.act]?.());

setTheme(theme());
chooseLanguage();
showTheme();
const kept = token.get();
if (kept) enter(kept).catch((problem) => (problem.status === 401 ? leave(t("login.ended")) : showLogin(explainLogin(problem))));
else showLogin();
