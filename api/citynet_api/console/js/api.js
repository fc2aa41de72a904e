// Requests with the token in the header, and problems as the server names them.

const TIMEOUT_MS = 12_000;

/** An error that the server explained (RFC 9457), or a network that failed (status 0). */
export class Problem extends Error {
  constructor(status, body = {}) {
    super(body.detail || body.title || String(status));
    this.status = status;
    this.kind = (body.type ?? "").replace("urn:citynet:problem:", "");
    this.body = body;
  }
}

export class Api {
  #token;

  constructor(token) {
    this.#token = token;
  }

  get headers() {
    return { Authorization: `Bearer ${this.#token}` };
  }

  get(path, parameters = {}) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(key, value);
    return this.#send(query.size ? `${path}?${query}` : path, {});
  }

  post(path, body) {
    return this.#send(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  }

  async #send(path, options) {
    let response;
    try {
      response = await fetch(path, {
        ...options,
        headers: { ...options.headers, ...this.headers },
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch {
      throw new Problem(0);
    }
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Problem(response.status, body);
    return body;
  }
}
