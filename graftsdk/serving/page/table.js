// The same as on the picture as a table: a row a person, a column a label.

import { bar, element, lines, numbers } from "./readings.js";
import { ink } from "./stage.js";

export function table(answer, shown) {
  const labels = answer.labels.filter(shown);
  if (!answer.persons.length || !labels.length) {
    return element("p", "none", answer.persons.length ? "All labels are off." : "Nobody was found.");
  }
  const made = element("table");
  made.append(element("caption", "sr", "Scores of every person and label, each with its threshold"));
  const head = element("tr");
  for (const text of ["Person", ...labels]) {
    const cell = element("th", "", text);
    cell.scope = "col";
    head.append(cell);
  }
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const person of answer.persons) {
    const row = element("tr");
    row.dataset.person = person.index;
    const name = element("th");
    name.scope = "row";
    name.append(swatch(person.index));
    if (person.score !== null) name.append(element("span", "sure", ` found ${person.score.toFixed(2)}`));
    row.append(name, ...labels.map((label) => cell(label, person.attributes[label])));
    body.append(row);
  }
  made.append(top, body);
  return made;
}

export function swatch(index) {
  const made = element("span", "swatch", String(index + 1));
  const { back, text } = ink(index);
  made.style.background = back;
  made.style.color = text;
  return made;
}

function cell(label, attribute) {
  const made = element("td");
  if (!attribute) return made;
  const found = lines(label, attribute);
  const decided = element("p", "cell-decided", attribute.name);
  if (found.some((line) => line.holds)) decided.classList.add("holds");
  made.append(decided);
  for (const line of found) {
    const row = element("div", "cell-line");
    if (found.length > 1) row.append(element("span", "cell-name", line.name));
    row.append(bar(line), numbers(line, true));
    made.append(row);
  }
  return made;
}
