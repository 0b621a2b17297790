// A mask in COCO's uncompressed run lengths (down the columns, zeros first) as the path of its outline.

const CELLS = 480; // along the longer side of a person: finer is not seen on a screen, and costs time

// {path: SVG path data, top: [x, y] of its highest point}, in pixels of the picture; null for an empty mask.
// `mask`: {size: [H, W], counts}.
export function outline(mask) {
  const grid = rasterised(mask);
  return grid && { path: traced(grid), top: highest(grid) };
}

// Only the part that the mask covers, one cell for `step` pixels each way, with an empty cell all around.
function rasterised({ size: [height, width], counts }) {
  let left = width, right = -1, top = height, bottom = -1;
  const spans = []; // column, first row, end row
  let at = 0;
  counts.forEach((count, turn) => {
    const end = at + count;
    if (turn % 2) {
      while (at < end) {
        const column = Math.floor(at / height);
        const next = Math.min(end, (column + 1) * height);
        const first = at - column * height, last = next - column * height;
        spans.push(column, first, last);
        if (column < left) left = column;
        if (column > right) right = column;
        if (first < top) top = first;
        if (last > bottom) bottom = last;
        at = next;
      }
    }
    at = end;
  });
  if (!spans.length) return null;
  const step = Math.max(1, Math.ceil(Math.max(right + 1 - left, bottom - top) / CELLS));
  const wide = Math.ceil((right + 1 - left) / step) + 2;
  const high = Math.ceil((bottom - top) / step) + 2;
  const cells = new Uint8Array(wide * high);
  for (let i = 0; i < spans.length; i += 3) {
    const x = Math.floor((spans[i] - left) / step) + 1;
    const first = Math.floor((spans[i + 1] - top) / step) + 1;
    const last = Math.floor((spans[i + 2] - 1 - top) / step) + 1;
    for (let y = first; y <= last; y++) cells[y * wide + x] = 1;
  }
  return { cells, wide, high, left, top, step };
}

function highest({ cells, wide, left, top, step }) {
  const row = cells.subarray(wide, 2 * wide); // row 0 is empty
  return [(((row.indexOf(1) + row.lastIndexOf(1) + 1) / 2) - 1) * step + left, top];
}

// Follows the sides between full and empty cells, full ones to the right; holes turn the other way round. The middles
// of the sides are what is drawn: a staircase becomes a slope.
function traced({ cells, wide, high, left, top, step }) {
  const right = [1, 0, -1, 0], down = [0, 1, 0, -1]; // of the directions east, south, west, north
  const full = (x, y) => x >= 0 && y >= 0 && x < wide && y < high && cells[y * wide + x] === 1;
  const seen = new Uint8Array(wide * high); // tops that were followed already
  const parts = [];
  for (let y = 1; y < high; y++) {
    for (let x = 1; x < wide; x++) {
      if (!full(x, y) || full(x, y - 1) || seen[y * wide + x]) continue;
      const points = [];
      let px = x, py = y, way = 0; // corner of a cell, and where the side leads
      do {
        if (way === 0) seen[py * wide + px] = 1;
        points.push([px + right[way] / 2, py + down[way] / 2]);
        px += right[way];
        py += down[way];
        // The cells ahead, on the left and on the right hand.
        const ahead = [[0, -1, 0, 0], [0, 0, -1, 0], [-1, 0, -1, -1], [-1, -1, 0, -1]][way];
        if (full(px + ahead[0], py + ahead[1]) && full(px + ahead[2], py + ahead[3])) way = (way + 3) % 4;
        else if (!full(px + ahead[2], py + ahead[3])) way = (way + 1) % 4;
      } while (px !== x || py !== y || way !== 0);
      if (points.length < 8 && points.length < (wide * high) / 50) continue; // a speck of one or two cells
      const kept = simplified(points, 0.45);
      const text = kept.map(([cx, cy]) => `${round((cx - 1) * step + left)} ${round((cy - 1) * step + top)}`);
      parts.push(`M${text.join("L")}Z`);
    }
  }
  return parts.join("");
}

// Douglas and Peucker, without recursion: a long outline would be deep.
function simplified(points, tolerance) {
  const keep = new Uint8Array(points.length);
  const last = points.length - 1;
  keep[0] = keep[last] = 1;
  const open = [[0, last]];
  while (open.length) {
    const [from, to] = open.pop();
    const [ax, ay] = points[from], [bx, by] = points[to];
    const length = Math.hypot(bx - ax, by - ay);
    let worst = tolerance, found = -1;
    for (let i = from + 1; i < to; i++) {
      const dx = points[i][0] - ax, dy = points[i][1] - ay;
      const far = length > 1e-9 ? Math.abs(dx * (by - ay) - dy * (bx - ax)) / length : Math.hypot(dx, dy);
      if (far > worst) [worst, found] = [far, i];
    }
    if (found > 0) {
      keep[found] = 1;
      open.push([from, found], [found, to]);
    }
  }
  return points.filter((_, index) => keep[index]);
}

function round(value) {
  return Math.round(value * 10) / 10;
}
