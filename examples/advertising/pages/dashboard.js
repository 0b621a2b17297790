// Tiles of all lifts. The stream tells which changed; ages go on by this page's own clock in between.
const LATE = 12; // seconds without a snapshot
const SILENT = 20;
const DENSE = 60; // lifts from which on tiles are small
const FEW = 12; // up to which they are large
const AGAIN = 1000; // ms
const LOST = 5000; // ms without a word: there is one every 1.25 s

const list = document.getElementById("lifts");
const find = document.getElementById("find");
const order = document.getElementById("order");
const occupied = document.getElementById("occupied");
const link = document.getElementById("link");
const lifts = new Map(); // name -> {tile, data, at}
let cards = {};
let source = null;
let heard = 0; // when the last word came, or a connection was made

function text(id, value, warn = false) {
  const node = document.getElementById(id);
  if (node.textContent !== value) node.textContent = value;
  node.classList.toggle("warn", warn);
}

function part(kind, parent) {
  const made = document.createElement("span");
  made.className = kind;
  parent.append(made);
  return made;
}

function tile(name) {
  const item = document.createElement("li");
  const anchor = document.createElement("a");
  anchor.href = `/lifts/${encodeURIComponent(name)}`;
  anchor.tabIndex = -1; // one of them is reached by Tab, the others by arrows
  const card = part("card", anchor);
  const picture = new Image();
  picture.alt = "";
  card.append(picture);
  const parts = Object.fromEntries(["name", "age", "brand", "people"].map((kind) => [kind, part(kind, anchor)]));
  parts.name.textContent = name;
  item.append(anchor);
  list.append(item);
  return { item, anchor, card, picture, ...parts };
}

function counted(count) {
  return count === 0 ? "empty" : count === 1 ? "1 passenger" : `${count} passengers`;
}

function fill(data) {
  if (!lifts.has(data.lift)) lifts.set(data.lift, { tile: tile(data.lift) });
  const entry = lifts.get(data.lift);
  Object.assign(entry, { data, at: performance.now() / 1000 });
  const { tile: parts } = entry;
  const card = cards[data.advertisement];
  if (parts.card.dataset.name !== data.advertisement) {
    parts.card.dataset.name = data.advertisement;
    parts.card.style.setProperty("--colour", card.colour);
    parts.picture.src = `/files/${card.picture}`;
    parts.brand.textContent = card.brand;
  }
  parts.anchor.title = data.rule ? `rule: ${data.rule}` : "default";
  const people = data.count; // one who walked may be told of twice
  parts.item.classList.toggle("empty", people === 0);
  parts.people.classList.toggle("problem", Boolean(data.problem));
  const count = document.createElement("b");
  count.textContent = counted(people);
  const told = data.people.filter(Boolean).join(" · ");
  if (data.problem) parts.people.replaceChildren(data.problem);
  else if (data.age === null) parts.people.replaceChildren("no snapshot yet");
  else if (people) parts.people.replaceChildren(count, told ? ` · ${told}` : "");
  else parts.people.replaceChildren("empty");
  entry.words = `${data.lift} ${card.brand} ${told}`.toLowerCase();
}

function age(entry) {
  return entry.data.age === null ? Infinity : entry.data.age + performance.now() / 1000 - entry.at;
}

function spoken(seconds) {
  if (seconds === Infinity) return "–";
  return seconds < 60 ? `${Math.floor(seconds)} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

function tick() {
  let silent = 0;
  for (const entry of lifts.values()) {
    const seconds = age(entry);
    const said = spoken(seconds);
    if (entry.tile.age.textContent !== said) entry.tile.age.textContent = said;
    entry.tile.anchor.classList.toggle("late", seconds >= LATE && seconds < SILENT);
    entry.tile.anchor.classList.toggle("silent", seconds >= SILENT && seconds !== Infinity);
    silent += seconds >= SILENT;
  }
  text("t-silent", String(silent), silent > 0);
  if (performance.now() - heard > LOST) { // a connection may break without a sign
    lost();
    connect();
  }
  if (order.value === "age") arrange();
}

const ways = {
  name: (a, b) => a.data.lift.localeCompare(b.data.lift, "en", { numeric: true }),
  people: (a, b) => b.data.count - a.data.count || ways.name(a, b),
  age: (a, b) => age(b) - age(a) || ways.name(a, b),
};

function arrange() {
  const words = find.value.trim().toLowerCase();
  const entries = [...lifts.values()].sort(ways[order.value]);
  let shown = 0;
  entries.forEach((entry, place) => {
    entry.tile.item.hidden = !entry.words.includes(words) || (occupied.checked && !entry.data.count);
    shown += !entry.tile.item.hidden;
    if (list.children[place] !== entry.tile.item && !list.contains(document.activeElement)) {
      list.insertBefore(entry.tile.item, list.children[place] ?? null); // nothing moves under the keyboard
    }
  });
  list.classList.toggle("dense", lifts.size >= DENSE);
  list.classList.toggle("few", lifts.size <= FEW);
  document.getElementById("nobody").hidden = lifts.size > 0;
  const said = shown === lifts.size ? "" : `${shown} of ${lifts.size} shown`;
  const count = document.getElementById("count");
  if (count.textContent !== said) count.textContent = said;
  const open = visible();
  if (!open.some((anchor) => anchor.tabIndex === 0) && open.length) open[0].tabIndex = 0;
}

function visible() {
  return [...list.children].filter((item) => !item.hidden).map((item) => item.firstElementChild);
}

function told(seconds) {
  return seconds === null ? "–" : seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

function lost() {
  link.textContent = "connection lost, trying again";
  link.className = "link lost";
}

function connect() {
  source?.close();
  heard = performance.now();
  source = new EventSource("/events");
  const on = (name, act) => source.addEventListener(name, (event) => {
    heard = performance.now();
    act(JSON.parse(event.data));
  });
  on("advertisements", (found) => { cards = found; });
  on("all", (tiles) => {
    const names = new Set(tiles.map((data) => data.lift));
    for (const [name, entry] of lifts) {
      if (!names.has(name)) { entry.tile.item.remove(); lifts.delete(name); }
    }
    tiles.forEach(fill);
    arrange();
    tick();
  });
  on("lifts", (tiles) => { tiles.forEach(fill); arrange(); });
  on("totals", (found) => {
    text("t-lifts", String(found.lifts));
    text("t-occupied", String(found.occupied));
    text("t-rate", found.per_second.toFixed(1));
    text("t-p50", told(found.age_p50), found.age_p50 > 1);
    text("t-p95", told(found.age_p95), found.age_p95 > 2);
    text("t-waiting", String(found.waiting));
    text("t-replaced", String(found.replaced));
  });
  source.addEventListener("open", () => { link.textContent = "live"; link.className = "link live"; });
  source.addEventListener("error", () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN);
  });
}

list.addEventListener("focusin", (event) => {
  list.querySelectorAll('a[tabindex="0"]').forEach((anchor) => { anchor.tabIndex = -1; });
  if (event.target.matches("a")) event.target.tabIndex = 0;
});

list.addEventListener("keydown", (event) => {
  const open = visible();
  const at = open.indexOf(document.activeElement);
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: open.length - 1 - at };
  if (!(event.key in steps) || !open.length) return;
  event.preventDefault();
  open[Math.min(Math.max(at + steps[event.key], 0), open.length - 1)].focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== find) { event.preventDefault(); find.focus(); }
});
document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
[find, order, occupied].forEach((tool) => tool.addEventListener("input", arrange));
connect();
setInterval(tick, 500);
