// The lift's name is in the address; what to show comes as server-sent events, and a word every 5 s where there is
// nothing new. A connection may break without a sign: after SILENT another one is made, and after STALE the house's own
// advertisement is shown, which was loaded at first: nobody knows any more who is in the lift.
const lift = decodeURIComponent(location.pathname.split("/").pop());
const stage = document.getElementById("stage");
const away = document.getElementById("away");
const SILENT = 10_000; // ms without a word
const STALE = 20_000;
const AGAIN = 1000; // ms
const PATIENCE = 1000; // ms for a picture

let source = null;
let house = null;
const kept = new Image(); // the house's picture: there is no network when it is needed
let wanted = null;
let heard = performance.now();
let tried = heard; // when the connection was made

document.getElementById("lift").textContent = lift;
document.title = `${lift}: screen`;

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function load(picture, card) {
  const { href } = new URL(`/files/${card.picture}`, location.href);
  if (picture.src !== href) picture.src = href;
  picture.alt = "";
}

async function show(card) {
  if (wanted === card.name) return;
  wanted = card.name;
  const article = document.createElement("article");
  article.dataset.name = card.name;
  article.style.setProperty("--colour", card.colour);
  article.style.setProperty("--ink", card.ink);
  const picture = card.name === house?.name ? kept : new Image();
  load(picture, card);
  const words = element("div", "", "words");
  words.append(element("h1", card.headline), element("p", card.line));
  article.append(element("p", card.brand, "brand"), picture, words);
  const enough = new Promise((done) => { setTimeout(done, PATIENCE); });
  await Promise.race([picture.decode().catch(() => {}), enough]); // the words are shown all the same
  if (wanted !== card.name) return; // another one came meanwhile
  const before = [...stage.children];
  stage.append(article);
  article.getBoundingClientRect(); // begins at opacity 0
  article.classList.add("shown");
  setTimeout(() => before.forEach((old) => old.remove()), 500);
}

function connect() {
  source?.close();
  tried = performance.now();
  source = new EventSource(`/events?lift=${encodeURIComponent(lift)}`);
  const on = (name, act) => source.addEventListener(name, (event) => {
    heard = performance.now();
    away.hidden = true;
    act(JSON.parse(event.data));
  });
  on("default", (card) => {
    house = card;
    load(kept, card);
  });
  on("advertisement", show);
  on("alive", () => {});
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
  const at = performance.now();
  if (at - heard > STALE && house) show(house);
  if (at - Math.max(heard, tried) > SILENT) {
    away.hidden = false;
    connect();
  }
}

connect();
tick();
setInterval(tick, 1000);
