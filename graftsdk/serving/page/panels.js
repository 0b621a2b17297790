// What stands around the picture: the list of persons, switches, times, the plan, and trouble.

import { chips, element, number } from "./readings.js";
import { swatch } from "./table.js";

const at = (id) => document.getElementById(id);
const HEADINGS = {
  400: "The request was refused", 408: "The picture came too slowly", 413: "The picture is too large",
  415: "No kind of picture that is read here", 422: "This picture could not be read", 429: "Too many requests",
  500: "The service failed", 503: "The service is busy",
};
const OF_THE_REQUEST = ["unknown_label", "unknown_profile", "unknown_parameter", "invalid_parameter"]; // 422 too
const STAGES = { decode: "read the picture", segment: "find persons", crop: "cut them out", engine: "trunk and branches" };

export function persons(answer, shown, point) {
  const items = answer.persons.map((person) => {
    const item = element("li");
    item.dataset.person = person.index;
    const head = element("p", "person-head");
    head.append(swatch(person.index), element("strong", "", `Person ${person.index + 1}`));
    if (person.score !== null) head.append(element("span", "sure", `found ${number(person.score)}`));
    item.append(head, chips(person, shown));
    item.addEventListener("pointerenter", () => point(person.index));
    item.addEventListener("pointerleave", () => point(-1));
    return item;
  });
  if (!items.length) items.push(element("li", "empty", "Nobody was found in this picture."));
  at("persons").replaceChildren(...items);
}

export function mark(index) {
  for (const row of document.querySelectorAll(".persons li, .scores tr")) {
    row.classList.toggle("active", index >= 0 && Number(row.dataset.person) === index);
  }
  // Not scrollIntoView: that would move the whole page under the pointer.
  const list = at("persons"), item = list.querySelector(".active");
  if (!item) return;
  const top = item.offsetTop - list.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + item.offsetHeight > list.scrollTop + list.clientHeight) {
    list.scrollTop = top + item.offsetHeight - list.clientHeight;
  }
}

export function switches(labels, off, changed) {
  at("labels").replaceChildren(
    ...labels.map((label) => {
      const field = element("label", "switch");
      const box = element("input");
      box.type = "checkbox";
      box.setAttribute("role", "switch");
      box.checked = !off.has(label);
      box.value = label;
      box.addEventListener("change", () => changed(label, box.checked));
      field.append(box, element("span", "track"), element("span", "switch-name", label));
      return field;
    }),
  );
}

export function setSwitches(off) {
  for (const box of at("labels").querySelectorAll("input")) box.checked = !off.has(box.value);
}

export function profiles(names, chosen) {
  const list = at("profile");
  list.replaceChildren(new Option("of the plan", ""), ...names.map((name) => new Option(name, name)));
  list.value = names.includes(chosen) ? chosen : "";
  at("profile-field").hidden = !names.length;
}

export function times(timings, roundTrip) {
  const { total, ...stages } = timings;
  const found = Object.entries(stages);
  const known = found.reduce((sum, [, ms]) => sum + ms, 0);
  if (total > known * 1.02) found.push(["other", total - known]);
  const whole = Math.max(total ?? 0, known) || 1;
  at("total").textContent = `${round(total ?? known)} in the service, ${round(roundTrip)} from here and back`;
  at("stack").replaceChildren(
    ...found.map(([, ms], place) => {
      const part = element("span", `part-${place % 6}`);
      part.style.width = `${(100 * ms) / whole}%`;
      return part;
    }),
  );
  at("legend").replaceChildren(
    ...found.map(([stage, ms], place) => {
      const row = element("div");
      const name = element("dt", `part-${place % 6}`, stage);
      if (STAGES[stage]) name.title = STAGES[stage];
      row.append(name, element("dd", "", round(ms)));
      return row;
    }),
  );
}

export function noTimes() {
  at("total").textContent = "no answer";
  at("stack").replaceChildren();
  at("legend").replaceChildren();
}

export function plan(document) {
  const digest = document.digest ?? "";
  at("plan-chip").textContent = `plan ${digest.slice(0, 12)}`;
  at("plan-chip").hidden = !digest;
  const licences = new Set(document.labels.map(({ licence }) => licence).filter(Boolean));
  at("plan-brief").textContent = [
    `${document.labels.length} label${document.labels.length === 1 ? "" : "s"}`,
    [...licences].slice(0, 3).join(", "),
    digest.slice(0, 12),
  ].filter(Boolean).join(" · ");
  const facts = element("dl", "facts");
  fact(facts, "digest", digest);
  fact(facts, "version", document.version);
  fact(facts, "crop", flat(document.crop));
  fact(facts, "segmenter", document.segmenter ? flat(document.segmenter) : "none: a picture is one person, or boxes are given");
  const table = element("table");
  table.append(element("caption", "sr", "Labels of the plan"));
  const head = element("tr");
  for (const name of ["label", "classes", "thresholds", "tap", "licence", "metrics"]) {
    const cell = element("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  const top = element("thead"), body = element("tbody");
  top.append(head);
  for (const entry of document.labels) {
    const row = element("tr");
    const name = element("th", "", entry.label);
    name.scope = "row";
    const cells = [entry.classes.join(", "), flat(entry.thresholds), flat(entry.tap), flat(entry.licence), flat(chief(entry.metrics))];
    row.append(name, ...cells.map((text) => element("td", "", text || "–")));
    body.append(row);
  }
  table.append(top, body);
  const scroll = element("div", "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Labels of the plan");
  scroll.append(table);
  at("plan").replaceChildren(facts, scroll);
}

export function trouble(error, again) {
  const box = element("div", "alert");
  const text = element("div");
  const heading = HEADINGS[OF_THE_REQUEST.includes(error.code) ? 400 : error.status] ?? error.title;
  text.append(element("strong", "", heading ?? "Something went wrong"), element("p", "", sentence(error.detail ?? String(error))));
  const small = [error.status ? `status ${error.status}` : "", error.code, error.id ? `request ${error.id}` : ""];
  if (small.some(Boolean)) text.append(element("p", "fine", small.filter(Boolean).join(" · ")));
  box.append(text);
  if (again) {
    const button = element("button", "button", "Try again");
    button.type = "button";
    button.addEventListener("click", again);
    box.append(button);
  }
  at("trouble").replaceChildren(box);
}

export function calm() {
  at("trouble").replaceChildren();
}

function fact(list, name, value) {
  if (value === undefined || value === null || value === "") return;
  const row = element("div");
  row.append(element("dt", "", name), element("dd", "", String(value)));
  list.append(row);
}

// A value of the plan in one line, numbers short.
function flat(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) return value.map(flat).join(" ");
  const told = Object.entries(value).filter(([, part]) => part !== null && typeof part !== "object" || Array.isArray(part));
  return told.map(([name, part]) => `${name} ${flat(part)}`).join(", ");
}

// Of the many figures of a label the few that a reader compares; `graftsdk info` has all.
function chief(metrics) {
  const kept = Object.entries(metrics ?? {}).filter(([name]) => /^(accuracy|auc|f1|(?!test\.)[^.]+\.auc)$/.test(name));
  return Object.fromEntries(kept);
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function round(ms) {
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}
