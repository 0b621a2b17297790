// The picture with its persons: outlines, a numbered button for each, and the card of the one that is looked at.

import { outline } from "./outline.js";
import { element, readings, spoken } from "./readings.js";

// The colours of `Prediction.plot`, in its order; after the end they begin again, darker.
const PALETTE = [
  [56, 140, 242], [250, 92, 76], [66, 201, 94], [255, 176, 46], [188, 92, 222], [32, 196, 190],
  [255, 120, 150], [210, 220, 40], [130, 120, 255], [120, 170, 120], [210, 140, 90], [150, 170, 220],
];
const SVG = "http://www.w3.org/2000/svg";
const LINGER = 220; // milliseconds: the pointer may cross a gap on its way to the card

export function ink(index) {
  const fade = 0.85 ** (Math.floor(index / PALETTE.length) % 4);
  const color = PALETTE[index % PALETTE.length].map((part) => Math.round(part * fade));
  const [red, green, blue] = color.map((part) => (part / 255 <= 0.04045 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return { back: `rgb(${color.join(" ")})`, text: light > 0.179 ? "#0b0e14" : "#ffffff" };
}

export class Stage {
  #at = (id) => document.getElementById(id);
  #persons = [];
  #tops = new Map(); // index -> [x, y] of the head, where its number stands
  #shown = () => true;
  #active = -1;
  #pinned = -1;
  #timer = 0;
  #url = "";

  // `chosen(index)`: told whenever another person is looked at, -1 for none.
  constructor(chosen) {
    this.chosen = chosen;
    this.root = this.#at("stage");
    this.card = this.#at("card");
    this.card.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    this.card.addEventListener("pointerleave", () => this.#later());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#look(-1, -1));
    this.root.addEventListener("click", (event) => {
      if (!event.target.closest("[data-person], .card")) this.#look(-1, -1);
    });
  }

  // The picture alone, as soon as it is there; resolves when it is shown or cannot be.
  async picture(blob) {
    const photo = this.#at("photo");
    this.persons([], { size: null });
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(blob);
    photo.src = this.#url;
    try {
      await photo.decode();
      this.#frame(photo.naturalWidth, photo.naturalHeight);
      photo.hidden = false;
    } catch {
      photo.hidden = true; // the service may read it all the same: then outlines stand on plain ground
      this.#at("frame").hidden = true;
    }
    this.#at("invite").hidden = true;
  }

  clear() {
    this.persons([], { size: null });
    this.#at("frame").hidden = true;
    this.#at("invite").hidden = false;
  }

  persons(persons, { size, shown = this.#shown }) {
    this.#persons = persons;
    this.#shown = shown;
    this.#look(-1, -1);
    const overlay = this.#at("overlay"), badges = this.#at("badges");
    overlay.replaceChildren();
    badges.replaceChildren();
    if (!size) return;
    const [height, width] = size;
    if (this.#at("photo").hidden) this.#frame(width, height);
    overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.size = { width, height };
    // Far persons first, near ones over them.
    const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
    for (const person of persons.toSorted((one, other) => area(one) - area(other))) overlay.append(this.#shape(person));
    for (const person of persons) badges.append(this.#badge(person));
  }

  labels(shown) {
    this.#shown = shown;
    for (const badge of this.#at("badges").children) {
      badge.setAttribute("aria-label", spoken(this.#persons[badge.dataset.place], shown));
    }
    if (this.#active >= 0) this.#open();
  }

  // From outside (a row of the list): shows where the person is.
  point(index) {
    if (index === this.#active) return;
    this.#mark(index);
  }

  #frame(width, height) {
    const frame = this.#at("frame");
    frame.style.setProperty("--ratio", String(width / height));
    frame.hidden = false;
  }

  #shape(person) {
    const [x0, y0, x1, y1] = person.box;
    const found = person.mask && outline(person.mask);
    const path = found ? found.path : `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;
    this.#tops.set(person.index, found ? found.top : [(x0 + x1) / 2, y0]);
    const group = document.createElementNS(SVG, "g");
    group.dataset.person = person.index;
    for (const part of ["halo", "edge"]) {
      const drawn = document.createElementNS(SVG, "path");
      drawn.setAttribute("d", path);
      drawn.setAttribute("class", part);
      if (part === "edge") drawn.setAttribute("stroke", ink(person.index).back);
      if (part === "edge") drawn.setAttribute("fill", ink(person.index).back);
      group.append(drawn);
    }
    group.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.#look(person.index));
    group.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#later());
    group.addEventListener("click", () => this.#pin(person.index));
    return group;
  }

  #badge(person) {
    const badge = element("button", "badge", String(person.index + 1));
    badge.type = "button";
    badge.dataset.person = person.index;
    badge.dataset.place = this.#persons.indexOf(person);
    badge.setAttribute("aria-label", spoken(person, this.#shown));
    badge.setAttribute("aria-expanded", "false");
    badge.setAttribute("aria-controls", "card");
    const { back, text } = ink(person.index);
    const [x, y] = this.#tops.get(person.index);
    badge.style.background = back;
    badge.style.color = text;
    badge.style.setProperty("--x", `${(100 * x) / this.size.width}%`);
    badge.style.setProperty("--y", `${(100 * y) / this.size.height}%`);
    badge.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.#look(person.index));
    badge.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#later());
    badge.addEventListener("focus", () => badge.matches(":focus-visible") && this.#look(person.index));
    badge.addEventListener("blur", () => this.#later());
    badge.addEventListener("click", () => this.#pin(person.index));
    return badge;
  }

  #pin(index) {
    this.#look(this.#pinned === index ? -1 : index, this.#pinned === index ? -1 : index);
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(this.#pinned), LINGER);
  }

  #look(index, pinned = this.#pinned) {
    clearTimeout(this.#timer);
    this.#pinned = pinned;
    if (index === this.#active) return;
    this.#active = index;
    this.#mark(index);
    if (index < 0) this.card.hidden = true;
    else this.#open();
    this.chosen(index);
  }

  #mark(index) {
    const marked = index < 0 ? this.#active : index;
    this.root.classList.toggle("looking", marked >= 0);
    for (const part of this.root.querySelectorAll("[data-person]")) {
      const here = Number(part.dataset.person) === marked;
      part.classList.toggle("active", here);
      if (part.localName === "button") part.setAttribute("aria-expanded", String(here));
    }
  }

  #open() {
    const person = this.#persons.find(({ index }) => index === this.#active);
    if (!person) return;
    const head = element("p", "card-head");
    const { back, text } = ink(person.index);
    const number = element("span", "swatch", String(person.index + 1));
    number.style.background = back;
    number.style.color = text;
    head.append(number, element("strong", "", `Person ${person.index + 1}`));
    if (person.score !== null) head.append(element("span", "sure", `found ${person.score.toFixed(2)}`));
    const close = element("button", "small close", "×"); // for fingers; keys have Escape
    close.type = "button";
    close.tabIndex = -1;
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", () => this.#look(-1, -1));
    head.append(close);
    this.card.replaceChildren(head, element("p", "scale", "score / threshold"), readings(person, this.#shown));
    this.card.setAttribute("aria-label", `Attributes of person ${person.index + 1}`);
    this.card.hidden = false;
    this.#place(person);
  }

  // Beside the person, where there is more room; on a narrow screen the style sheet puts it at the bottom.
  #place(person) {
    const stage = this.root.getBoundingClientRect();
    const frame = this.#at("frame").getBoundingClientRect();
    const scale = frame.width / this.size.width;
    const [x0, y0, x1] = person.box.map((value) => value * scale);
    const gap = 14;
    const left = frame.left - stage.left + x0, right = frame.left - stage.left + x1;
    const { offsetWidth: wide, offsetHeight: high } = this.card;
    const fits = (at) => at >= 6 && at + wide <= stage.width - 6;
    const wanted = [right + gap, left - gap - wide];
    if (left > stage.width - right) wanted.reverse();
    const at = wanted.find(fits) ?? Math.min(Math.max(6, wanted[0]), stage.width - wide - 6);
    const top = frame.top - stage.top + y0;
    this.card.style.left = `${at}px`;
    this.card.style.top = `${Math.max(6, Math.min(top, stage.height - high - 6))}px`;
  }
}
