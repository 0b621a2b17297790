// The service that serves this page: two requests, and what is told when there is no answer.

let key = ""; // in this variable and nowhere else

export function useKey(text) {
  key = text.trim();
}

export function hasKey() {
  return key !== "";
}

// What went wrong, in the words of the service's problem document where there is one.
export class Trouble extends Error {
  constructor(title, detail, { status = 0, code = "", id = "" } = {}) {
    super(detail);
    Object.assign(this, { title, detail, status, code, id });
  }

  get again() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export function plan(signal) {
  return ask("v1/plan", { signal });
}

// `labels`: those wanted, or null for all. `picture`: a Blob, sent as it is.
export function predict(picture, { labels, profile, signal }) {
  const query = new URLSearchParams({ masks: "rle" });
  if (labels && labels.every((label) => !label.includes(","))) query.set("labels", labels.join(","));
  if (profile) query.set("profile", profile);
  return ask(`v1/predict?${query}`, {
    method: "POST",
    body: picture,
    headers: { "Content-Type": picture.type || "application/octet-stream" },
    signal,
  });
}

async function ask(path, options) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key) headers["X-API-Key"] = key;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("No answer", "The service could not be reached, or it closed the connection.");
  }
  let document = null;
  try {
    document = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (response.ok && document) return document;
  if (response.ok) throw new Trouble("No answer", "The service answered with something that is not JSON.");
  const told = document ?? {};
  const detail = typeof told.detail === "string" ? told.detail : "The service told no more.";
  throw new Trouble(told.title || response.statusText || "No answer", detail, {
    status: response.status,
    code: told.code ?? "",
    id: told.id ?? response.headers.get("X-Request-ID") ?? "",
  });
}
