// What is looked at: a moment, an operation, a variant. The address (#t=4.2&op=17&v=1) is the one
// place that holds it, so that Back goes back and a link leads to the same view.
const view = { run: null, variant: 0, at: 0, op: null };
const watchers = [];

function watch(watcher) { watchers.push(watcher); }

// Everything from the run gets into the page as text, here and nowhere else.
function make(tag, attributes, ...children) {
  const svg = make.svg.has(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}
make.svg = new Set(["svg", "g", "line", "rect", "path", "text", "title", "clipPath", "defs"]);

function tableOf(names, rows, caption) {
  const heads = names.map((name) => make("th", { scope: "col" }, name));
  return make("table", {}, caption ? make("caption", {}, caption) : null,
    make("thead", {}, make("tr", {}, heads)), make("tbody", {}, rows));
}

function byId(id) { return document.getElementById(id); }
function fill(node, ...children) { node.replaceChildren(...children.flat().filter((each) => each !== null)); }
function seconds(us, digits = 3) { return `${(us / 1e6).toFixed(digits)} s`; }
function took(us) {
  if (us === null || us === undefined) return "–";
  if (us >= 1e6) return `${(us / 1e6).toFixed(2)} s`;
  return us >= 1000 ? `${(us / 1000).toFixed(us >= 1e5 ? 0 : 1)} ms` : `${us} µs`;
}
function variantNow() { return view.run.variants[view.variant]; }

function address(changes) {
  const now = { t: (view.at / 1e6).toFixed(3), op: view.op === null ? null : view.op.number, v: view.variant };
  const parts = Object.entries({ ...now, ...changes }).filter(([, value]) => value !== null);
  return `#${parts.map(([name, value]) => `${name}=${value}`).join("&")}`;
}
function go(changes) { location.hash = address(changes); }
function linkTo(op) { return address({ op: op.number, t: (op.begin / 1e6).toFixed(3), v: op.variant.index }); }
function show(op) { location.hash = linkTo(op); }

// Returns false for an address that names a section or nothing: then only the scroll position moves.
function follow() {
  const hash = decodeURIComponent(location.hash.slice(1));
  if (hash.startsWith("trace-")) {
    const op = view.run.traces.get(hash.slice(6));
    if (!op) return false;
    history.replaceState(null, "", linkTo(op));
    return follow();
  }
  if (hash && !hash.includes("=")) return false;
  const asked = new URLSearchParams(hash);
  const number = asked.has("op") ? Number(asked.get("op")) : null;
  view.op = number === null ? null : view.run.ops.get(number) || null;
  const variant = Number(asked.get("v"));
  if (view.op) view.variant = view.op.variant.index;
  else if (asked.has("v") && view.run.variants[variant]) view.variant = variant;
  const t = Number(asked.get("t"));
  if (asked.has("t") && Number.isFinite(t)) view.at = Math.round(t * 1e6);
  else if (view.op) view.at = view.op.begin;
  for (const watcher of watchers) watcher();
  if (number !== null && !view.op) {
    warn(`operation #${number} is not in this report: it may be one of those left out of a large run`);
  }
  return true;
}

function warn(text) {
  const note = byId("trouble");
  note.textContent = text;
  note.hidden = false;
}
