// A picture comes in by drop, paste, file or sample; the answer goes to the stage and the panels.

import * as address from "./address.js";
import * as panels from "./panels.js";
import * as service from "./service.js";
import { Stage } from "./stage.js";
import { table } from "./table.js";

const at = (id) => document.getElementById(id);
const settings = address.read();
const shown = (label) => !settings.off.has(label);
const stage = new Stage(panels.mark);

let labels = []; // of the plan
let profiles = []; // of the service
let digest = ""; // of the plan whose labels these are
let picture = null; // the Blob that is looked at; nothing else keeps it
let answer = null;
let running = null; // AbortController of the request under way

async function readPlan() {
  try {
    const plan = await service.plan();
    labels = plan.labels.map(({ label }) => label);
    profiles = plan.profiles ?? [];
    digest = plan.digest;
    settings.profile = known(settings.profile);
    panels.plan(plan);
    panels.switches(labels, settings.off, switched);
    panels.profiles(profiles, settings.profile);
    at("privacy").textContent = plan.harvest
      ? "A picture goes to this service only, which keeps a few crops a day that it is unsure of, for annotation."
      : "A picture goes to this service only, to be answered. This page stores it nowhere.";
    at("below").hidden = false;
    panels.calm();
    return true;
  } catch (error) {
    failed(error, start);
    return false;
  }
}

async function start() {
  if ((await readPlan()) && picture) await ask();
}

async function look(blob) {
  picture = blob;
  answer = null;
  panels.calm();
  busy(true);
  await stage.picture(blob);
  if (picture === blob) await ask(); // else another one came meanwhile
}

// `again`: ask once more where the plan or the profiles turn out to be others than those that are known here.
async function ask(again = true) {
  running?.abort();
  const mine = (running = new AbortController());
  busy(true);
  const wanted = labels.some(shown) ? labels.filter(shown) : labels.slice(0, 1); // none at all cannot be asked for
  const begun = performance.now();
  try {
    const found = await service.predict(picture, {
      labels: wanted.length < labels.length ? wanted : null,
      profile: settings.profile,
      signal: mine.signal,
    });
    if (running !== mine) return;
    answer = found;
    panels.calm();
    panels.times(found.timings, performance.now() - begun);
    stage.persons(found.persons, { size: found.size, shown });
    show();
    const count = found.persons.length;
    const who = count ? `${count} person${count === 1 ? "" : "s"} found` : "Nobody found";
    const how = matchMedia("(hover: none)").matches ? "Tap one" : "Point at one, or go to it with Tab,";
    say(`${who}${found.truncated ? ", the least sure left out" : ""}.${count ? ` ${how} to see its scores.` : ""}`);
    if (found.plan !== digest && (await readPlan()) && again && running === mine && missing()) await ask(false);
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    if (again && ["unknown_label", "unknown_profile"].includes(error.code) && (await readPlan())) {
      if (running === mine) await ask(false);
      return;
    }
    if (running !== mine) return;
    answer = null;
    stage.persons([], { size: null });
    if (at("photo").hidden) stage.clear();
    panels.persons({ persons: [] }, shown, () => {});
    at("persons").firstChild.textContent = "No answer for this picture.";
    at("scores").replaceChildren();
    panels.noTimes();
    say("");
    failed(error, ask);
  } finally {
    if (running === mine) {
      running = null;
      busy(false);
    }
  }
}

function show() {
  if (!answer) return;
  panels.persons(answer, shown, (index) => stage.point(index));
  at("scores").replaceChildren(table(answer, shown));
}

function failed(error, again) {
  const locked = error.status === 401;
  at("key-form").hidden = !locked;
  if (!locked) panels.trouble(error, error.again ? again : null);
  if (!locked) return;
  panels.calm();
  at("key-why").textContent = service.hasKey() ? "That key was refused." : "This service asks for an API key.";
  at("key").focus({ preventScroll: true });
}

function switched(label, on) {
  if (on) settings.off.delete(label);
  else settings.off.add(label);
  settingsChanged();
}

// What was off when the picture was asked about has no scores yet.
function missing() {
  return answer && labels.some((label) => shown(label) && !answer.labels.includes(label));
}

// A profile, or "" where the service has none of that name.
function known(profile) {
  return !digest || profiles.includes(profile) ? profile : "";
}

function settingsChanged(decided = false) {
  address.write(settings);
  stage.labels(shown);
  show();
  if (picture && (decided || missing() || running)) ask();
}

function allLabels(on) {
  settings.off = new Set(on ? [] : labels);
  panels.setSwitches(settings.off);
  settingsChanged();
}

function busy(on) {
  at("progress").hidden = !on;
  at("stage").setAttribute("aria-busy", String(on));
  if (on) say("Looking at the picture…");
}

function say(text) {
  at("status").textContent = text;
}

function firstPicture(list) {
  const files = [...(list ?? [])];
  return files.find(({ type }) => type.startsWith("image/")) ?? files[0];
}

at("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // the same file again is a change too
  if (file) look(file);
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    try {
      const response = await fetch(`page/samples/${button.dataset.sample}.jpg`);
      if (!response.ok) throw new service.Trouble("No sample", `The service answered ${response.status}.`);
      await look(await response.blob());
    } catch (error) {
      failed(error instanceof service.Trouble ? error : new service.Trouble("No sample", "The service could not be reached."));
    }
  });
}
document.addEventListener("paste", (event) => {
  const file = firstPicture(event.clipboardData?.files);
  if (!file) return;
  event.preventDefault();
  look(file);
});

let depth = 0; // dragenter and dragleave come for every element that is crossed
document.addEventListener("dragenter", () => at("stage").classList.toggle("dropping", ++depth > 0));
document.addEventListener("dragleave", () => at("stage").classList.toggle("dropping", --depth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  at("stage").classList.remove("dropping");
  const file = firstPicture(event.dataTransfer?.files);
  if (file) look(file);
});

at("all-labels").addEventListener("click", () => allLabels(true));
at("no-labels").addEventListener("click", () => allLabels(false));
at("profile").addEventListener("change", ({ target }) => {
  settings.profile = target.value;
  settingsChanged(true);
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  service.useKey(at("key").value);
  at("key").value = "";
  at("key-form").hidden = true;
  start();
});
window.addEventListener("hashchange", () => {
  const { off, profile } = address.read();
  const decided = known(profile) !== settings.profile;
  Object.assign(settings, { off, profile: known(profile) });
  panels.setSwitches(off);
  at("profile").value = settings.profile;
  settingsChanged(decided);
});

start();
