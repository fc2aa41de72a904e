// What a browser remembers for its user, and what a tab keeps for its session. Storage may be forbidden; then nothing is kept.

const PREFIX = "citynet.";

function attempt(act) {
  try {
    return act();
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

export const recall = (name) => attempt(() => localStorage.getItem(PREFIX + name));
export const remember = (name, value) => attempt(() => localStorage.setItem(PREFIX + name, value));

export const token = {
  get: () => attempt(() => sessionStorage.getItem(`${PREFIX}token`)),
  set: (value) => attempt(() => sessionStorage.setItem(`${PREFIX}token`, value)),
  clear: () => attempt(() => sessionStorage.removeItem(`${PREFIX}token`)),
};

export const THEMES = ["auto", "night", "day"];

export function theme() {
  const name = recall("theme");
  return THEMES.includes(name) ? name : "auto";
}

export function setTheme(name) {
  remember("theme", name);
  document.documentElement.dataset.theme = name;
}
