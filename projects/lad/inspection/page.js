"use strict";
// Draws the data that the page embeds. All text is set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const state = { image: 0, object: 0, level: null, checkpoint: data.checkpoints.length - 1 };
const SVG = "http://www.w3.org/2000/svg";
const SHAPES = { detector: "▲", student: "▲", teacher: "■", both: "●" };
const BINS = 24;

const find = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "line", "circle", "text", "title", "image"];
  const node = svg.includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const image = () => data.images[state.image];
const checkpoint = () => data.checkpoints[state.checkpoint];
const result = () => checkpoint().images[state.image];
const object = () => result().objects[state.object];
const show = (value) => (value === null ? "–" : String(Number(value.toPrecision(3))));

// Which mark an object's anchor number `index` gets.
function kind(assigned, index) {
  const names = data.networks.filter((name) => assigned.by[name][index]);
  return names.length > 1 ? "both" : names[0];
}

// The anchors that the level filter leaves.
function visible(assigned) {
  const indices = assigned.level.map((_, index) => index);
  return indices.filter((index) => state.level === null || assigned.level[index] === state.level);
}

function mark(kind, x, y, r) {
  const paths = {
    both: `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
    student: `M${x},${y - 1.2 * r}L${x + 1.2 * r},${y + r}H${x - 1.2 * r}z`,
    teacher: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  };
  const d = paths[kind] || paths.student;
  return make(
    "g",
    { class: `mark ${kind}` },
    make("path", { class: "halo", d, "stroke-width": 0.9 * r }),
    make("path", { class: "shape", d, "stroke-width": 0.3 * r }),
  );
}

// The part of the image that is shown: x, y, width, height.
function frame() {
  const { width, height, objects } = image();
  if (!find("zoom").checked || !objects.length) return [0, 0, width, height];
  const [x0, y0, x1, y1] = objects[state.object].box;
  const scale = Math.min(1, 2.5 * Math.max((x1 - x0) / width, (y1 - y0) / height));
  const clamp = (center, side, limit) => Math.min(Math.max(center - side / 2, 0), limit - side);
  const [w, h] = [width * scale, height * scale];
  return [clamp((x0 + x1) / 2, w, width), clamp((y0 + y1) / 2, h, height), w, h];
}

function objectBoxes(unit) {
  const boxes = image().objects.map(({ name, box: [x0, y0, x1, y1] }, index) => {
    const selected = index === state.object;
    const node = make(
      "rect",
      {
        class: selected ? "object selected" : "object",
        x: x0, y: y0, width: x1 - x0, height: y1 - y0,
        "stroke-width": (selected ? 0.8 : 0.4) * unit,
      },
      make("title", {}, `${index + 1}: ${name}`),
    );
    node.addEventListener("click", () => select(index));
    return { node, area: (x1 - x0) * (y1 - y0) };
  });
  return boxes.sort((a, b) => b.area - a.area).map(({ node }) => node); // small ones on top
}

function drawPicture() {
  const view = frame();
  const unit = Math.max(view[2], view[3]) / 100;
  const { width, height, source } = image();
  const nodes = [make("image", { href: source, width, height }), ...objectBoxes(unit)];
  if (image().objects.length) {
    const { assigned } = object();
    for (const index of visible(assigned)) {
      const [x0, y0, x1, y1] = assigned.box[index];
      const level = assigned.level[index];
      if (find("outlines").checked) {
        const sides = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
        nodes.push(make("rect", { class: "outline", ...sides, "stroke-width": 0.25 * unit }));
      }
      const node = mark(
        kind(assigned, index), (x0 + x1) / 2, (y0 + y1) / 2, (1 + 0.2 * level) * unit,
      );
      const costs = Object.entries(assigned.cost).map(([name, x]) => `${name}'s cost ${show(x[index])}`);
      node.append(make("title", {}, [`stride ${data.strides[level]}`, ...costs].join(", ")));
      nodes.push(node);
    }
  }
  find("picture").setAttribute("viewBox", view.join(" "));
  find("picture").replaceChildren(...nodes);
}

function drawLegend() {
  const two = data.networks.length > 1;
  const kinds = two ? ["both", ...data.networks] : data.networks;
  const counts = Object.fromEntries(kinds.map((name) => [name, 0]));
  const objects = image().objects;
  if (objects.length) {
    const { assigned } = object();
    for (const index of visible(assigned)) counts[kind(assigned, index)] += 1;
  }
  const texts = kinds.map((name) =>
    name === "both" ? "both networks" : `${name}${two ? " alone" : ""}`);
  find("legend").replaceChildren(...kinds.map((name, index) => make(
    "li", {},
    make("svg", { viewBox: "-2 -2 4 4", "aria-hidden": "true" }, mark(name, 0, 0, 1)),
    `${texts[index]}: ${counts[name]}`,
  )));
  let text = "There are no objects in this image.";
  if (objects.length) {
    const assigned = kinds.map((name, index) => `${counts[name]} by ${texts[index]}`).join(", ");
    const level = state.level === null ? "" : ` of stride ${data.strides[state.level]}`;
    text = `Object ${state.object + 1} (${objects[state.object].name}). Anchors${level}: ${assigned}.`;
  }
  find("summary").textContent = text;
}

function gaussian(x, mean, deviation) {
  return Math.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * Math.sqrt(2 * Math.PI));
}

// The costs of one network: bars of positives below bars of the others, Gaussians, the cut.
function histogram(name, costs, low, high) {
  const [width, height, left, right, top, bottom] = [320, 120, 26, 8, 8, 20];
  const step = (high - low) / BINS;
  const counts = Array.from({ length: BINS }, () => [0, 0]);
  costs.values.forEach((value, index) => {
    const bin = Math.min(Math.floor((value - low) / step), BINS - 1);
    counts[bin][costs.positive[index] ? 0 : 1] += 1;
  });
  const most = Math.max(1, ...counts.map(([a, b]) => a + b));
  const px = (value) => left + ((value - low) / (high - low)) * (width - left - right);
  const py = (count) => height - bottom - (Math.min(count, most) / most) * (height - top - bottom);
  const positives = costs.positive.filter(Boolean).length;
  const cut = costs.cut === null ? "" : `, cut at ${show(costs.cut)}`;
  const label = `${name}: ${costs.values.length} costs, ${positives} positive${cut}`;
  let fitted = "";
  const nodes = [];
  counts.forEach(([inside, outside], bin) => {
    const x = px(low + bin * step) + 0.5;
    const bar = (kind, from, to) => {
      const size = { x, y: py(to), width: px(low + step) - px(low) - 1, height: py(from) - py(to) };
      if (to > from) nodes.push(make("rect", { class: kind, ...size }));
    };
    bar("bar positive", 0, inside);
    bar("bar", inside, inside + outside);
  });
  nodes.push(make("line", { class: "axis", x1: left, x2: width - right, y1: py(0), y2: py(0) }));
  if (costs.fit) {
    const { means, deviations, weights } = costs.fit;
    ["lower", "upper"].forEach((kind, part) => {
      const points = [];
      for (let i = 0; i <= 160; i += 1) points.push(low + (i / 160) * (high - low));
      points.push(...means.filter((x) => x >= low && x <= high));
      points.sort((a, b) => a - b);
      const scale = costs.values.length * step * weights[part];
      const d = points.map((x) => `${px(x)},${py(scale * gaussian(x, means[part], deviations[part]))}`);
      nodes.push(make("path", { class: `curve ${kind}`, d: `M${d.join("L")}` }));
    });
    const parts = means.map((mean, part) =>
      `${show(mean)} ± ${show(deviations[part])} (${show(100 * weights[part])} %)`);
    fitted = `Gaussians: ${parts.join(", ")}`;
  }
  if (costs.cut !== null) {
    const x = px(costs.cut);
    nodes.push(make("line", { class: "cut", x1: x, x2: x, y1: 0, y2: py(0) }));
  }
  const tick = (x, anchor) =>
    make("text", { x: px(x), y: height - 6, "text-anchor": anchor }, show(x));
  nodes.push(tick(low, "start"), tick((low + high) / 2, "middle"), tick(high, "end"));
  nodes.push(make("text", { x: left - 4, y: py(most) + 8, "text-anchor": "end" }, String(most)));
  const attributes = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
  const caption = make("figcaption", {}, make("strong", {}, label), make("br"), fitted);
  const figure = { class: "histogram", "data-network": name };
  return make("figure", figure, caption, make("svg", attributes, ...nodes));
}

function drawCosts() {
  const costs = image().objects.length ? Object.entries(object().costs) : [];
  const values = costs.flatMap(([, x]) => x.values);
  find("costs-part").hidden = !values.length;
  if (!values.length) return;
  const fitted = costs.some(([, x]) => x.fit);
  find("costs-text").textContent =
    (fitted ? "Of the candidates in the object's mixture" : "Of the object's candidates") +
    "; dark: positive. The dotted line is the highest cost of a positive" +
    (fitted ? ", the curves are the two fitted Gaussians." : ".");
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (high - low < 1e-6) [low, high] = [low - 0.5, high + 0.5];
  find("costs").replaceChildren(...costs.map(([name, x]) => histogram(name, x, low, high)));
}

function table(caption, columns, rows) {
  const head = make("tr", {}, ...columns.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(({ cells: [first, ...others], used }) => make(
    "tr", used ? { class: "used" } : {},
    make("th", { scope: "row" }, first), ...others.map((text) => make("td", {}, text)),
  ));
  const parts = [make("thead", {}, head), make("tbody", {}, ...body)];
  return make("table", {}, make("caption", {}, caption), ...parts);
}

// How often the student teaches of the decisions that could be made.
function share(decisions, noun) {
  const made = decisions.filter(Boolean);
  return `${made.filter((x) => x.teaches === "student").length} of ${made.length} ${noun}`;
}

function teacherTable(indicator) {
  const { objects, decisions } = result();
  const rows = [["iteration", checkpoint().decisions], ["image", decisions]].map(
    ([scope, x]) => [scope, scope, x[indicator]]);
  if (objects.length) {
    rows.push(["object", "object", object().decisions.object[indicator]]);
    object().decisions.level.forEach((x, level) =>
      rows.push(["level", `stride ${data.strides[level]}`, x[indicator]]));
  }
  const cells = rows.map(([scope, text, x]) => {
    const used = scope === data.scope && indicator === data.indicator;
    const teaches = x ? `${SHAPES[x.teaches]}\u00a0${x.teaches}` : "no candidates";
    const name = used ? `${text} (used)` : text;
    return { used, cells: [name, show(x && x.student), show(x && x.teacher), teaches] };
  });
  const perObject = objects.map((x) => x.decisions.object[indicator]);
  const perLevel = objects.flatMap((x) => x.decisions.level.map((y) => y[indicator]));
  const caption = `${indicator}. In this image the student teaches ` +
    `${share(perObject, "objects")} and ${share(perLevel, "levels of objects")}.`;
  return table(caption, ["scope", "student", "teacher", "teaches"], cells);
}

function drawTeachers() {
  find("teachers-part").hidden = data.networks.length < 2;
  if (data.networks.length < 2) return;
  find("teachers").replaceChildren(...Object.keys(checkpoint().decisions).map(teacherTable));
}

function drawAnchors() {
  const rows = [];
  const names = data.networks;
  if (image().objects.length) {
    const { assigned } = object();
    for (const index of visible(assigned)) {
      const [x0, y0, x1, y1] = assigned.box[index];
      const costs = names.map((name) => show((assigned.cost[name] || {})[index] ?? null));
      const by = kind(assigned, index);
      const center = `${Math.round((x0 + x1) / 2)}, ${Math.round((y0 + y1) / 2)}`;
      const stride = String(data.strides[assigned.level[index]]);
      rows.push({ cells: [`${SHAPES[by]}\u00a0${by}`, stride, center, ...costs] });
    }
  }
  const caption = "Center in pixels of the model's input, and each network's cost.";
  const columns = ["by", "stride", "center", ...names];
  find("anchors").replaceChildren(...table(caption, columns, rows).childNodes);
}

function draw() {
  find("note").hidden = !image().note;
  find("note").textContent = image().note;
  find("checkpoint-name").textContent = checkpoint().name;
  find("checkpoint").setAttribute("aria-valuetext", checkpoint().name);
  for (const part of [drawPicture, drawLegend, drawCosts, drawTeachers, drawAnchors]) part();
}

function choice(group, text, checked, chosen) {
  const input = make("input", { type: "radio", name: group });
  input.checked = checked;
  input.addEventListener("change", () => { chosen(); draw(); });
  return make("label", {}, input, make("span", {}, text));
}

function select(index) {
  state.object = index;
  find("objects").querySelectorAll("input")[index].checked = true;
  draw();
}

function listObjects() {
  state.object = 0;
  find("objects").hidden = !image().objects.length;
  find("objects").querySelector(".choices").replaceChildren(...image().objects.map(
    ({ name }, index) =>
      choice("object", `${index + 1}: ${name}`, index === 0, () => { state.object = index; })));
}

function start() {
  find("rule").textContent = data.rule;
  const levels = [[null, "all"], ...data.strides.map((stride, level) => [level, `stride ${stride}`])];
  find("levels").querySelector(".choices").append(...levels.map(([level, text]) =>
    choice("level", text, level === null, () => { state.level = level; })));
  find("image").append(...data.images.map(({ name }, index) => make("option", { value: index }, name)));
  find("choose-image").hidden = data.images.length < 2;
  find("image").addEventListener("change", (event) => {
    state.image = Number(event.target.value);
    listObjects();
    draw();
  });
  find("choose-checkpoint").hidden = data.checkpoints.length < 2;
  find("checkpoint").max = data.checkpoints.length - 1;
  find("checkpoint").value = state.checkpoint;
  find("checkpoint").addEventListener("input", (event) => {
    state.checkpoint = Number(event.target.value);
    draw();
  });
  for (const id of ["outlines", "zoom"]) find(id).addEventListener("change", draw);
  listObjects();
  draw();
}

start();
