// The space-time diagram: a life line per node, time to the right, a line per message.
const MESSAGES_DRAWN = 600, ROWS_SHOWN = 400;
const HELD_US = 40000; // no intact link here needs so long: something held the message back
const COLOURS = ["#3b82c4", "#c2681c", "#2f9e6e", "#9b5fc0", "#c0427a", "#7f8790", "#8f8a1e", "#2597a6"];
const LEADING = /^(leader|primary|distinguished|leading)$/, WANTING = /candidate|looking|view-change/;
const TOP = 40, GAP = 74, LEFT = 62, HALF_LANE = 9;

function roleKind(role) {
  if (LEADING.test(role)) return "leads";
  if (WANTING.test(role)) return "wants";
  return role === "starting" ? "starting" : "follows";
}

// What is looked at: a variant, a stretch of time, and where that is on the drawing.
function messageFrame() {
  const variant = variantNow(), half = Number(byId("messages-window").value) * 500;
  const begin = view.at - half, end = view.at + half;
  const width = byId("messages-picture").clientWidth < 640 ? 640 : 1160, right = width - 12;
  return {
    variant, begin, end, width, right,
    height: TOP + (variant.nodes.length - 1) * GAP + 26,
    x: (at) => LEFT + (at - begin) / (end - begin) * (right - LEFT),
    y: (node) => TOP + variant.nodes.indexOf(node) * GAP,
    clip: (at) => Math.min(Math.max(at, begin), end),
    overlaps: (from, to) => from <= end && to >= begin,
  };
}

function inWindow({ variant, begin, end }) {
  const within = (at) => at !== null && at >= begin && at <= end;
  return variant.messages.filter((each) => within(each.sent) || within(each.received));
}

function colourOf(variant, names) {
  if (!variant.types) variant.types = [...new Set(variant.messages.map((each) => each.names))].sort();
  return COLOURS[variant.types.indexOf(names) % COLOURS.length];
}

function isHeld(each) { return each.received !== null && each.received - each.sent > HELD_US; }

function drawMessages() {
  const frame = messageFrame(), { variant, begin, end, x } = frame, messages = inWindow(frame);
  byId("messages-variant").value = variant.index;
  const svg = make("svg", {
    viewBox: `0 0 ${frame.width} ${frame.height}`, role: "img",
    "aria-label": `messages of ${variant.name} from ${seconds(begin)} to ${seconds(end)}`,
  });
  const now = { class: "now", x1: x(view.at), x2: x(view.at), y1: 18, y2: frame.height };
  svg.append(...faultBands(frame), ...ticks(frame), ...lifeLines(frame), ...messageLines(frame, messages),
    ...roleBands(frame), ...ownSpans(frame), make("line", now));
  fill(byId("messages-picture"), svg);
  tellMessages(frame, messages);
  return messages;
}

function faultBands({ variant, x, clip, overlaps, height }) {
  return variant.faults.filter((each) => each.begin !== null && overlaps(each.begin, each.end ?? variant.end))
    .map((each) => {
      const from = x(clip(each.begin)), to = x(clip(each.end ?? variant.end));
      const box = { class: "s-fault", x: from, y: 18, width: Math.max(1, to - from), height: height - 18 };
      return make("rect", box, make("title", {}, `${each.name} ${each.target}`));
    });
}

function ticks({ begin, end, x, height }) {
  const digits = end - begin < 50000 ? 4 : 3, anchors = ["start", "middle", "middle", "middle", "end"];
  return anchors.flatMap((anchor, tick) => {
    const at = begin + (end - begin) * tick / 4;
    return [
      make("line", { class: "grid", x1: x(at), x2: x(at), y1: 18, y2: height }),
      make("text", { class: "soft", x: x(at), y: 13, "text-anchor": anchor }, seconds(at, digits)),
    ];
  });
}

function lifeLines({ variant, right, y }) {
  return variant.nodes.flatMap((node) => [
    make("text", { x: 8, y: y(node) + 4 }, node),
    make("line", { class: "life", x1: LEFT, x2: right, y1: y(node), y2: y(node) }),
  ]);
}

function roleBands({ variant, x, y, clip, overlaps }) {
  const here = (stay) => overlaps(stay.begin, stay.end) && variant.nodes.includes(stay.node);
  return variant.stays.filter(here).flatMap((stay) => {
    const from = x(clip(stay.begin)), wide = Math.max(1, x(clip(stay.end)) - from), kind = roleKind(stay.role);
    const name = stay.term === null ? stay.role : `${stay.role} ${stay.term}`;
    const box = { class: `s-${kind}`, x: from, y: y(stay.node) - HALF_LANE, width: wide, height: 2 * HALF_LANE, rx: 3 };
    const band = make("rect", box, make("title", {}, `${stay.node} ${name} from ${seconds(stay.begin)}`));
    if (wide < 14 + name.length * 6.5) return [band];
    const white = kind === "leads" || kind === "wants" ? "fill:#fff" : null;
    return [band, make("text", { class: "soft", x: from + 5, y: y(stay.node) + 4, style: white }, name)];
  });
}

function messageLines(frame, messages) {
  const every = Math.ceil(messages.length / MESSAGES_DRAWN);
  // Those lost are drawn in any case: there are few, and it is they that are looked for.
  return messages.filter((each, index) => each.received === null || index % every === 0)
    .map((each) => {
      const kind = each.received === null ? "lost" : isHeld(each) ? "held" : "came";
      const parts = kind === "came" ? flightOf(frame, each) : stubsOf(frame, each);
      return make("g", { class: kind }, make("title", {}, told(each)), parts);
    });
}

function told(each) {
  const count = each.count > 1 ? ` (${each.count})` : "", term = each.term === null ? "" : `, term ${each.term}`;
  const end = each.received === null ? "lost" : `came after ${took(each.received - each.sent)}`;
  return `${each.src} → ${each.dst} ${each.names}${count}${term}, sent ${seconds(each.sent, 6)}, ${end}`;
}

// Where a message leaves its sender's band and reaches its receiver's.
function ends({ y }, each) {
  const down = Math.sign(y(each.dst) - y(each.src)) * HALF_LANE;
  return [y(each.src) + down, y(each.dst) - down];
}

function flightOf(frame, each) {
  const { x, begin, end, variant } = frame, [y1, y2] = ends(frame, each), flight = each.received - each.sent;
  const level = (at) => (flight ? y1 + (y2 - y1) * (at - each.sent) / flight : y2);
  const from = Math.max(each.sent, begin), to = Math.min(each.received, end);
  const line = { x1: x(from), y1: flight ? level(from) : y1, x2: x(to), y2: level(to) };
  const colour = colourOf(variant, each.names);
  const drawn = make("line", { ...line, stroke: colour, "stroke-width": 1.3, "stroke-opacity": 0.85 });
  return each.received <= end ? [drawn, arrow(line, colour)] : [drawn];
}

// Lost, or held back: a stub where it left and one where it came. A line between them would cross
// everything that happened meanwhile.
function stubsOf(frame, each) {
  const { x, begin, end, variant } = frame, [y1, y2] = ends(frame, each), colour = colourOf(variant, each.names);
  const away = Math.abs(variant.nodes.indexOf(each.dst) - variant.nodes.indexOf(each.src));
  const high = Math.sign(y2 - y1) * Math.min(12 + 9 * away, 44), wide = 5 + 7 * away, lost = each.received === null;
  const dashed = (line) => make("line", { ...line, stroke: colour, "stroke-dasharray": "4 3", "stroke-width": 1.3 });
  const parts = [];
  if (each.sent >= begin) {
    const line = { x1: x(each.sent), y1, x2: x(each.sent) + wide, y2: y1 + high };
    const mark = { x: line.x2 - 3, y: line.y2 + 5, style: lost ? "fill:#d9467a" : null };
    parts.push(dashed(line), make("text", mark, lost ? "✕" : "○"));
  }
  if (!lost && each.received <= end) {
    const line = { x1: x(each.received) - wide, y1: y2 - high, x2: x(each.received), y2 };
    parts.push(dashed(line), arrow(line, colour));
  }
  return parts;
}

function arrow({ x1, y1, x2, y2 }, colour) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  const barb = (turn) => `${(x2 - 7 * Math.cos(angle + turn)).toFixed(1)} ${(y2 - 7 * Math.sin(angle + turn)).toFixed(1)}`;
  return make("path", { d: `M${x2.toFixed(1)} ${y2.toFixed(1)}L${barb(0.45)}L${barb(-0.45)}Z`, fill: colour });
}

// The chosen operation's own work on each node: a frame around that part of the band.
function ownSpans({ variant, x, y, clip, overlaps }) {
  if (!view.op || view.op.variant !== variant) return [];
  const lines = variant.byTrace.get(view.op.trace) || [];
  const here = (line) => line.span !== null && variant.nodes.includes(line.node) && overlaps(line.at - line.took, line.at);
  return lines.filter(here).map((line) => {
    const from = x(clip(line.at - line.took)), wide = Math.max(3, x(clip(line.at)) - from);
    const what = `#${view.op.number}: ${line.event} ${line.text}, ${took(line.took)}`;
    return make("rect", { class: "own", x: from, y: y(line.node) - 11, width: wide, height: 22, rx: 3 }, make("title", {}, what));
  });
}

function tellMessages({ variant, begin, end }, messages) {
  const lost = messages.filter((each) => each.received === null).length, held = messages.filter(isHeld).length;
  const every = Math.ceil(messages.length / MESSAGES_DRAWN);
  const sample = every > 1 ? `; every ${every}th is drawn, narrow the window to see all` : "";
  const omitted = variant.omitted.messages ? `. ${variant.omitted.messages}` : "";
  const key = [...new Set(messages.map((each) => each.names))].sort().map((names) =>
    make("span", { style: "white-space:nowrap;margin-right:.8em" },
      make("b", { "aria-hidden": "true", style: `color:${colourOf(variant, names)}` }, "■ "), names));
  fill(byId("messages-note"),
    `${variant.name}, ${seconds(begin)} to ${seconds(end)}: ${messages.length} messages, ${lost} lost, ` +
    `${held} held back for more than ${HELD_US / 1000} ms${sample}${omitted} `, ...key);
}

function drawMessageTable(messages) {
  if (!byId("messages-details").open) return;
  const here = messages.slice(0, ROWS_SHOWN);
  const caption = here.length < messages.length ? `the first ${here.length} of ${messages.length}` : `${here.length} messages`;
  const row = (each) => make("tr", {},
    make("td", { class: "number" }, seconds(each.sent, 6)), make("td", {}, each.src), make("td", {}, each.dst),
    make("td", {}, each.names + (each.count > 1 ? ` (${each.count})` : "")), make("td", { class: "number" }, each.term ?? ""),
    make("td", { class: "number" }, each.received === null ? "lost" : took(each.received - each.sent)));
  fill(byId("messages-table"), tableOf(["sent", "from", "to", "what", "term", "came after"], here.map(row), caption));
}

function messagesAgain() { drawMessageTable(drawMessages()); }

function stepMessages(by) {
  const { begin, end } = messageFrame();
  go({ t: Math.max(0, (view.at + by * (end - begin) / 2) / 1e6).toFixed(4) });
}

watch(messagesAgain);
