// One person's attributes: what was decided in a few words, and a bar for each score with a tick at its threshold.

const YES_NO = ["no yes", "absent present", "false true", "0 1", "negative positive"]; // as `Attribute.finding`

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text; // the browser's own escaping: a label's name is never markup
  return made;
}

// The lines of one attribute: of two classes one, the last one's score; of more, each class with its own threshold.
export function lines(label, attribute) {
  const classes = Object.keys(attribute.scores);
  if ("present" in attribute) {
    const last = attribute.present ? attribute.name : classes.find((name) => name !== attribute.name);
    return [{ name: label, of: last, score: attribute.score, threshold: attribute.thresholds[last], holds: attribute.present }];
  }
  return classes.map((name) => ({
    name,
    of: name,
    score: attribute.scores[name],
    threshold: attribute.thresholds[name],
    holds: attribute.is[name] ?? attribute.name === name,
  }));
}

// What is told of a person in a word or two each: an absent yes/no label says nothing.
export function findings(person, shown) {
  const told = [];
  for (const [label, attribute] of Object.entries(person.attributes)) {
    if (!shown(label)) continue;
    if ("present" in attribute) {
      const [{ of: high }] = lines(label, attribute);
      const low = Object.keys(attribute.scores).find((name) => name !== high);
      const plain = YES_NO.includes(`${low} ${high}`.toLowerCase()) || high.toLowerCase() === label.toLowerCase();
      if (!plain) told.push({ text: `${label}: ${attribute.name}`, sure: true });
      else if (attribute.present) told.push({ text: label, sure: true });
    } else {
      const also = Object.keys(attribute.is).filter((name) => attribute.is[name] && name !== attribute.name);
      told.push({ text: `${label}: ${[attribute.name, ...also].join("/")}`, sure: attribute.is[attribute.name] !== false });
    }
  }
  return told;
}

export function spoken(person, shown) {
  const told = findings(person, shown).map(({ text }) => text);
  return `Person ${person.index + 1}: ${told.join(", ") || "nothing to tell"}`;
}

export function chips(person, shown) {
  const list = element("p", "chips");
  const told = findings(person, shown);
  for (const { text, sure } of told) {
    const chip = element("span", sure ? "chip" : "chip unsure", text);
    if (!sure) chip.title = "the most probable, but below its threshold";
    list.append(chip, " ");
  }
  if (!told.length) list.append(element("span", "none", "nothing to tell"));
  return list;
}

// A bar 0..1 of a score. Hidden from screen readers: the numbers stand beside it.
export function bar({ score, threshold, holds }) {
  const track = element("span", holds ? "bar holds" : "bar");
  track.setAttribute("aria-hidden", "true");
  const fill = element("span", "fill");
  fill.style.width = percent(score);
  track.append(fill);
  if (threshold !== undefined) {
    const tick = element("span", "tick");
    tick.style.left = percent(threshold);
    track.append(tick);
  }
  return track;
}

export function numbers({ score, threshold, holds, of }, brief = false) {
  const made = element("span", "numbers");
  made.append(element("span", "score", number(score)));
  if (threshold === undefined) return made;
  if (brief) made.append(element("span", "sr", ` of ${of}, ${holds ? "holds" : "does not hold"}, threshold ${number(threshold)}`));
  else made.append(element("span", "from", ` / ${number(threshold)}`), element("span", "sr", " threshold"));
  return made;
}

// The card of one person: every attribute that is switched on, with its bars.
export function readings(person, shown) {
  const told = Object.entries(person.attributes).filter(([label]) => shown(label));
  const dense = told.length > 8; // a line each, so that the card fits beside the person
  const list = element("div", dense ? "readings dense" : "readings");
  for (const [label, attribute] of told) {
    const found = lines(label, attribute);
    const single = found.length === 1;
    if (!single) {
      const head = element("p", "reading-head");
      head.append(element("span", "", label), element("strong", "", attribute.name));
      list.append(head);
    }
    for (const line of found) {
      const row = element("div", `reading${single ? "" : " inner"}${line.holds ? " holds" : ""}`);
      const plain = ["yes", "no"].includes(attribute.name);
      const name = element("span", "name", single && dense && !plain ? `${line.name}: ${attribute.name}` : line.name);
      name.title = name.textContent;
      const decided = element("span", "decided", `${single ? attribute.name : ""}${line.holds ? " ✓" : ""}`);
      row.append(name, decided, bar(line), numbers(line));
      list.append(row);
    }
  }
  if (!list.childElementCount) list.append(element("p", "none", "All labels are off."));
  return list;
}

export function number(value) {
  return value.toFixed(2);
}

function percent(value) {
  return `${Math.min(100, Math.max(0, value * 100)).toFixed(2)}%`;
}
