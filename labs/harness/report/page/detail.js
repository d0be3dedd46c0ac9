// One operation: what it was, its trace as a waterfall, its log lines.
let opener = null;

function pill(type) { return make("span", { class: `pill ${type}` }, type); }

// The spans of a trace as a tree, in the order in which they began.
function tree(lines) {
  const spans = lines.filter((line) => line.span !== null).map((line) => ({ line, begin: line.at - line.took, end: line.at, children: [] }));
  const known = new Map(spans.map((span) => [span.line.span, span]));
  const roots = [];
  for (const span of spans) {
    const parent = known.get(span.line.parent);
    (parent && parent !== span ? parent.children : roots).push(span);
  }
  const ordered = [];
  const walk = (list, depth) => {
    for (const span of list.sort((one, other) => one.begin - other.begin)) {
      span.depth = depth;
      ordered.push(span);
      if (depth < 50) walk(span.children, depth + 1);
    }
  };
  walk(roots, 0);
  return ordered;
}

function waterfall(lines) {
  const spans = tree(lines);
  if (!spans.length) return make("p", { class: "dim" }, "No span is here.");
  const begin = Math.min(...spans.map((span) => span.begin)), end = Math.max(...spans.map((span) => span.end), begin + 1);
  const percent = (us) => `${((us - begin) / (end - begin) * 100).toFixed(3)}%`;
  const kind = (line) => (line.bad ? "bad" : line.event === "replicate" ? "replicate" : line.event === "request" ? "" : "client");
  const rows = spans.map((span) => make("tr", {},
    make("th", { scope: "row", style: `padding-left:${span.depth * 0.9}rem` }, make("b", {}, span.line.node), ` ${span.line.event} `, make("span", { class: "dim" }, span.line.event === "request" ? span.line.text : "")),
    make("td", {}, make("div", { class: "bar", title: `${seconds(span.begin, 6)} to ${seconds(span.end, 6)}` },
      make("i", { class: kind(span.line), style: `left:${percent(span.begin)};width:max(2px,calc(${percent(span.end)} - ${percent(span.begin)}))` }))),
    make("td", { class: "number" }, took(span.line.took))));
  return make("table", { class: "waterfall" },
    make("caption", {}, `${spans.length} spans, ${took(end - begin)} from ${seconds(begin)}`),
    make("colgroup", {}, make("col", { class: "what" }), make("col"), make("col", { class: "took" })),
    make("thead", {}, make("tr", {}, ...["node and step", "when", "took"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows));
}

function logTable(lines, chosen) {
  const row = (line) => {
    const op = line.trace === null ? undefined : view.run.traces.get(line.trace);
    return make("tr", { class: [view.run.levels[line.level], chosen && op === chosen ? "chosen" : ""].join(" ").trim() },
      make("td", { class: "number" }, make("a", { href: address({ t: (line.at / 1e6).toFixed(6) }) }, (line.at / 1e6).toFixed(4))),
      make("th", { scope: "row" }, line.node),
      make("td", { class: "level" }, view.run.levels[line.level]),
      make("td", {}, line.event),
      make("td", { class: "text" }, line.text),
      make("td", { class: "number" }, took(line.took)),
      make("td", {}, op ? make("a", { href: address({ op: op.number, t: (op.begin / 1e6).toFixed(3), v: op.variant.index }) }, `#${op.number}`) : null),
      make("td", { class: "mono" }, line.request ?? ""));
  };
  return make("table", {}, make("thead", {}, make("tr", {}, ...["s", "node", "level", "event", "what", "took", "op", "request"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, lines.map(row)));
}

function neighbour(op, by) {
  const ops = op.variant.ops;
  return ops[ops.indexOf(op) + by];
}

function fact(name, ...value) { return [make("dt", {}, name), make("dd", {}, ...value)]; }

function drawDetail(op) {
  const lines = op.variant.byTrace.get(op.trace) || [];
  const nodes = lines.some((line) => line.event === "request");
  const before = neighbour(op, -1), after = neighbour(op, 1);
  fill(byId("detail"),
    make("button", { class: "close", title: "close (Esc)", onclick: () => go({ op: null }) }, "✕", make("span", { class: "read" }, " close")),
    make("h2", { id: "detail-title" }, `#${op.number} ${op.did} `, pill(op.type)),
    make("dl", {},
      fact("variant", op.variant.name), fact("client", `${op.client}, process ${op.process}`),
      fact("sent", make("a", { href: address({ t: (op.begin / 1e6).toFixed(6) }) }, seconds(op.begin, 6))),
      fact("took", op.end === null ? "never ended" : took(op.end - op.begin)),
      op.node ? fact("answered by", op.node) : null, op.error ? fact("error", op.error) : null,
      fact("request", make("code", {}, op.request ?? "–")), fact("trace", make("code", {}, op.trace ?? "–"))),
    make("div", { class: "go" },
      make("button", { "data-go": "timeline", onclick: () => { zoomTo(op.begin / 1e6, (op.end ?? op.begin) / 1e6); byId("timeline").scrollIntoView(); } }, "in the timeline"),
      make("button", { "data-go": "messages", onclick: () => byId("messages").scrollIntoView() }, "messages then"),
      make("button", { "data-go": "logs", onclick: () => filterLogs(op) }, "in the merged logs"),
      before ? make("button", { onclick: () => show(before) }, "◀ previous") : null,
      after ? make("button", { onclick: () => show(after) }, "next ▶") : null),
    make("h3", {}, "Trace"),
    lines.length && !nodes ? make("p", { class: "note" }, "No node tells of this request: it never arrived, or its node was killed before it could say so.") : null,
    waterfall(lines),
    make("h3", {}, "Log lines"),
    make("div", { class: "scroll" }, logTable(lines)));
}

watch(function detail() {
  const panel = byId("detail"), shown = !panel.hidden;
  panel.hidden = view.op === null;
  document.body.classList.toggle("with-detail", view.op !== null);
  if (view.op === null) {
    if (shown && opener && opener.isConnected) opener.focus();
    return;
  }
  if (!shown) opener = document.activeElement;
  if (panel.dataset.op !== String(view.op.number) || !shown) {
    panel.dataset.op = view.op.number;
    drawDetail(view.op);
    panel.scrollTop = 0;
    panel.focus({ preventScroll: true });
  }
});
