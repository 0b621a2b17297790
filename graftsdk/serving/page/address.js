// What the address remembers: labels that are off, and the profile. "#off=child,food%20deliverer&profile=night"

export function read() {
  const fields = new Map();
  for (const part of location.hash.slice(1).split("&")) {
    const at = part.indexOf("=");
    if (at > 0) fields.set(part.slice(0, at), part.slice(at + 1));
  }
  const off = (fields.get("off") ?? "").split(",").filter(Boolean).map(decoded);
  return { off: new Set(off), profile: decoded(fields.get("profile") ?? "") };
}

export function write({ off, profile }) {
  const parts = [];
  if (off.size) parts.push(`off=${[...off].map(encodeURIComponent).join(",")}`);
  if (profile) parts.push(`profile=${encodeURIComponent(profile)}`);
  const hash = parts.length ? `#${parts.join("&")}` : "";
  // Not a new entry of the history: "back" leaves the page, whatever was switched meanwhile.
  history.replaceState(null, "", location.pathname + location.search + hash);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // cut off in the middle of an escape: as if it were not there
  }
}
