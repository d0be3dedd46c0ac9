// The space-time diagram: a life line per node, time to the right, a line per message.
const MESSAGES_DRAWN = 600;
const HELD_US = 40000;
const COLOURS = ["#3b82c4", "#c2681c", "#2f9e6e", "#9b5fc0", "#c0427a", "#7f8790", "#8f8a1e", "#2597a6"];
const LEADING = /^(leader|primary|distinguished|leading)$/, WANTING = /candidate|looking|view-change/;

function roleKind(role) {
  return LEADING.test(role) ? "leads" : WANTING.test(role) ? "wants" : role === "starting" ? "starting" : "follows";
}

function messageWindow() {
  const half = Number(byId("messages-window").value) * 500;
  return [view.at - half, view.at + half];
}

function inWindow(variant, begin, end) {
  const within = (at) => at !== null && at >= begin && at <= end;
  return variant.messages.filter((each) => within(each.sent) || within(each.received));
}

function typesOf(variant) {
  if (!variant.types) variant.types = [...new Set(variant.messages.map((each) => each.names))].sort();
  return variant.types;
}

function scale(begin, end, low, high) { return (at) => low + (at - begin) / (end - begin) * (high - low); }

function drawMessages() {
  const variant = variantNow(), [begin, end] = messageWindow();
  byId("messages-variant").value = variant.index;
  const narrow = byId("messages-picture").clientWidth < 640;
  const width = narrow ? 640 : 1160, left = 62, right = width - 12, gap = 74, top = 40;
  const x = scale(begin, end, left, right), y = (node) => top + variant.nodes.indexOf(node) * gap;
  const height = top + (variant.nodes.length - 1) * gap + 26;
  const clip = (at) => Math.min(Math.max(at, begin), end);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `messages of ${variant.name} from ${seconds(begin)} to ${seconds(end)}` });
  for (const fault of variant.faults) {
    const to = fault.end ?? variant.end;
    if (fault.begin === null || fault.begin > end || to < begin) continue;
    svg.append(make("rect", { class: "s-fault", x: x(clip(fault.begin)), y: 18, width: Math.max(1, x(clip(to)) - x(clip(fault.begin))), height: height - 18 }, make("title", {}, `${fault.name} ${fault.target}`)));
  }
  for (let tick = 0; tick <= 4; tick += 1) {
    const at = begin + (end - begin) * tick / 4;
    svg.append(make("line", { class: "grid", x1: x(at), x2: x(at), y1: 18, y2: height }),
      make("text", { class: "soft", x: x(at), y: 13, "text-anchor": tick === 0 ? "start" : tick === 4 ? "end" : "middle" }, seconds(at, end - begin < 50000 ? 4 : 3)));
  }
  for (const node of variant.nodes) {
    svg.append(make("text", { x: 8, y: y(node) + 4 }, node), make("line", { class: "life", x1: left, x2: right, y1: y(node), y2: y(node) }));
  }
  const messages = drawLines(svg, variant, begin, end, x, y);
  for (const stay of variant.stays) {
    if (stay.begin > end || stay.end < begin || !variant.nodes.includes(stay.node)) continue;
    const from = x(clip(stay.begin)), wide = Math.max(1, x(clip(stay.end)) - from), kind = roleKind(stay.role);
    const name = stay.term === null ? stay.role : `${stay.role} ${stay.term}`;
    svg.append(make("rect", { class: `s-${kind}`, x: from, y: y(stay.node) - 9, width: wide, height: 18, rx: 3 }, make("title", {}, `${stay.node} ${name} from ${seconds(stay.begin)}`)));
    if (wide > 14 + name.length * 6.5) svg.append(make("text", { class: kind === "leads" || kind === "wants" ? "on soft" : "soft", x: from + 5, y: y(stay.node) + 4, style: kind === "leads" || kind === "wants" ? "fill:#fff" : null }, name));
  }
  drawOwnSpans(svg, variant, begin, end, x, y, clip);
  svg.append(make("line", { class: "now", x1: x(view.at), x2: x(view.at), y1: 18, y2: height }));
  fill(byId("messages-picture"), svg);
  return messages;
}

function drawLines(svg, variant, begin, end, x, y) {
  const messages = inWindow(variant, begin, end), types = typesOf(variant);
  const every = Math.ceil(messages.length / MESSAGES_DRAWN);
  const sign = (node, other) => (variant.nodes.indexOf(other) > variant.nodes.indexOf(node) ? 9 : -9);
  messages.forEach((each, index) => {
    if (every > 1 && each.received !== null && index % every) return; // those lost are always drawn
    const lost = each.received === null, y1 = y(each.src) + sign(each.src, each.dst), y2 = y(each.dst) + sign(each.dst, each.src);
    const flight = lost ? null : each.received - each.sent;
    const held = !lost && flight > Math.max((end - begin) * 0.6, HELD_US);
    const colour = COLOURS[types.indexOf(each.names) % COLOURS.length];
    const what = `${each.src} → ${each.dst} ${each.names}${each.count > 1 ? ` (${each.count})` : ""}${each.term === null ? "" : `, term ${each.term}`}, sent ${seconds(each.sent, 6)}, ${lost ? "lost" : `came after ${took(flight)}`}`;
    const group = make("g", { class: lost ? "lost" : held ? "held" : "came" }, make("title", {}, what));
    if (lost || held) {
      // A stub where it left, a stub where it came: the line between would cross everything.
      const away = Math.abs(variant.nodes.indexOf(each.dst) - variant.nodes.indexOf(each.src));
      const stub = Math.sign(y2 - y1) * Math.min(12 + 9 * away, 44), wide = 5 + 7 * away;
      if (each.sent >= begin) group.append(
        make("line", { x1: x(each.sent), y1, x2: x(each.sent) + wide, y2: y1 + stub, stroke: colour, "stroke-dasharray": "4 3", "stroke-width": 1.3 }),
        make("text", { x: x(each.sent) + wide - 3, y: y1 + stub + 5, style: lost ? "fill:#d9467a" : null }, lost ? "✕" : "○"));
      if (held && each.received <= end) group.append(
        make("line", { x1: x(each.received) - wide, y1: y2 - stub, x2: x(each.received), y2, stroke: colour, "stroke-dasharray": "4 3", "stroke-width": 1.3 }),
        make("path", { d: arrow(x(each.received) - wide, y2 - stub, x(each.received), y2), fill: colour }));
    } else {
      const level = (at) => y1 + (y2 - y1) * (flight ? (at - each.sent) / flight : 1);
      const from = Math.max(each.sent, begin), to = Math.min(each.received, end);
      group.append(make("line", { x1: x(from), y1: flight ? level(from) : y1, x2: x(to), y2: level(to), stroke: colour, "stroke-width": 1.3, "stroke-opacity": 0.85 }));
      if (each.received <= end) group.append(make("path", { d: arrow(x(from), flight ? level(from) : y1, x(to), level(to)), fill: colour }));
    }
    svg.append(group);
  });
  const lost = messages.filter((each) => each.received === null).length;
  const held = messages.filter((each) => each.received !== null && each.received - each.sent > HELD_US).length;
  byId("messages-note").textContent = `${variant.name}, ${seconds(begin)} to ${seconds(end)}: ${messages.length} messages, ${lost} lost, ${held} held back for more than ${HELD_US / 1000} ms` +
    (every > 1 ? `; every ${every}th is drawn, narrow the window to see all` : "") + (variant.omitted.messages ? `. ${variant.omitted.messages}` : "");
  fill(byId("messages-note"), byId("messages-note").textContent + " ", ...types.filter((type) => messages.some((each) => each.names === type)).map((type) =>
    make("span", { style: "white-space:nowrap;margin-right:.8em" }, make("b", { "aria-hidden": "true", style: `color:${COLOURS[types.indexOf(type) % COLOURS.length]}` }, "■ "), type)));
  return messages;
}

function arrow(x1, y1, x2, y2) {
  const angle = Math.atan2(y2 - y1, x2 - x1), point = (turn, size) => `${(x2 - size * Math.cos(angle + turn)).toFixed(1)} ${(y2 - size * Math.sin(angle + turn)).toFixed(1)}`;
  return `M${x2.toFixed(1)} ${y2.toFixed(1)}L${point(0.45, 7)}L${point(-0.45, 7)}Z`;
}

// The chosen operation's own work on each node: thick strokes on the life lines.
function drawOwnSpans(svg, variant, begin, end, x, y, clip) {
  if (!view.op || view.op.variant !== variant) return;
  for (const line of variant.byTrace.get(view.op.trace) || []) {
    if (line.span === null || !variant.nodes.includes(line.node) || line.at < begin || line.at - line.took > end) continue;
    const from = x(clip(line.at - line.took));
    svg.append(make("rect", { class: "own", x: from, y: y(line.node) - 11, width: Math.max(3, x(clip(line.at)) - from), height: 22, rx: 3 }, make("title", {}, `#${view.op.number}: ${line.event} ${line.text}, ${took(line.took)}`)));
  }
}

function drawMessageTable(messages) {
  if (!byId("messages-details").open) return;
  const here = messages.slice(0, 400);
  const row = (each) => make("tr", {}, make("td", { class: "number" }, seconds(each.sent, 6)), make("td", {}, each.src), make("td", {}, each.dst),
    make("td", {}, each.names + (each.count > 1 ? ` (${each.count})` : "")), make("td", { class: "number" }, each.term ?? ""),
    make("td", { class: "number" }, each.received === null ? "lost" : took(each.received - each.sent)));
  fill(byId("messages-table"), make("table", {}, make("caption", {}, here.length < messages.length ? `the first ${here.length} of ${messages.length}` : `${here.length} messages`),
    make("thead", {}, make("tr", {}, ["sent", "from", "to", "what", "term", "came after"].map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, here.map(row))));
}

function messagesAgain() { drawMessageTable(drawMessages()); }
function stepMessages(by) {
  const [begin, end] = messageWindow();
  go({ t: Math.max(0, (view.at + by * (end - begin) / 2) / 1e6).toFixed(4) });
}

watch(messagesAgain);
