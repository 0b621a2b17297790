// The lift's name is in the address; what to show comes as server-sent events. Without a connection the last
// advertisement stays for a while, then the house's own: nobody knows any more who is in the lift.
const lift = decodeURIComponent(location.pathname.split("/").pop());
const stage = document.getElementById("stage");
const away = document.getElementById("away");
const STALE = 30_000; // ms without a word
const AGAIN = 1000; // ms

let source = null;
let house = null;
let wanted = null;
let heard = performance.now();

document.getElementById("lift").textContent = lift;
document.title = `${lift}: screen`;

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

async function show(card) {
  if (wanted === card.name) return;
  wanted = card.name;
  const article = document.createElement("article");
  article.dataset.name = card.name;
  article.style.setProperty("--colour", card.colour);
  article.style.setProperty("--ink", card.ink);
  const picture = new Image();
  picture.src = `/files/${card.picture}`;
  picture.alt = "";
  const words = element("div", "", "words");
  words.append(element("h1", card.headline), element("p", card.line));
  article.append(element("p", card.brand, "brand"), picture, words);
  await picture.decode().catch(() => {}); // the words are shown all the same
  if (wanted !== card.name) return; // another one came meanwhile
  const before = [...stage.children];
  stage.append(article);
  article.getBoundingClientRect(); // begins at opacity 0
  article.classList.add("shown");
  setTimeout(() => before.forEach((old) => old.remove()), 500);
}

function connect() {
  source?.close();
  source = new EventSource(`/events?lift=${encodeURIComponent(lift)}`);
  source.addEventListener("open", () => { heard = performance.now(); away.hidden = true; });
  source.addEventListener("default", (event) => { house = JSON.parse(event.data); });
  source.addEventListener("advertisement", (event) => { heard = performance.now(); show(JSON.parse(event.data)); });
  source.addEventListener("error", () => {
    away.hidden = false;
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN);
  });
}

function tick() {
  const now = new Date();
  const clock = document.getElementById("clock");
  clock.dateTime = now.toISOString();
  clock.textContent = now.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (source.readyState === EventSource.OPEN) heard = performance.now();
  else if (house && performance.now() - heard > STALE) show(house);
}

connect();
tick();
setInterval(tick, 1000);
