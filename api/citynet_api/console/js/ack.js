// The dialog that acknowledges an alert.

import { byId } from "./dom.js";
import { clock } from "./format.js";
import { both, t } from "./i18n.js";
import { measured } from "./list.js";

export class AckDialog {
  #api;
  #on;
  #alert = null;
  #busy = false;

  /** `on` has done(alert), conflict(id) and why(problem). */
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    this.node = byId("ack");
    byId("ack-cancel").onclick = () => this.node.close();
    byId("ack-form").onsubmit = (event) => {
      event.preventDefault();
      this.#send();
    };
    byId("ack-comment").onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ack-form").requestSubmit();
    };
  }

  open(alert) {
    if (this.node.open) return;
    this.#alert = alert;
    const { value, limit } = measured(alert);
    byId("ack-what").textContent = `${t(`level.${alert.level}`)} · ${both(alert, "title")} · ${alert.object} · ${value} (${limit})`;
    byId("ack-comment").value = "";
    byId("ack-error").textContent = "";
    this.#wait(false);
    this.node.showModal();
    byId("ack-comment").focus();
  }

  #wait(busy) {
    this.#busy = busy;
    byId("ack-send").disabled = busy;
    byId("ack-send").textContent = t(busy ? "ack.sending" : "ack.send");
  }

  async #send() {
    if (this.#busy) return;
    this.#wait(true);
    const alert = this.#alert;
    try {
      const answer = await this.#api.post(`/v1/alerts/${encodeURIComponent(alert.id)}/ack`, { comment: byId("ack-comment").value });
      this.node.close();
      this.#on.done(answer);
    } catch (problem) {
      byId("ack-error").textContent = this.#explain(problem);
      if (problem.kind === "already-acknowledged") this.#on.conflict(alert.id);
    } finally {
      this.#wait(false);
    }
  }

  #explain(problem) {
    if (problem.kind === "already-acknowledged") return t("ack.conflict", { by: problem.body.acked_by, time: clock(problem.body.acked_at) });
    if (problem.kind === "forbidden") return t("ack.role");
    return t("ack.failed", { why: this.#on.why(problem) });
  }
}
