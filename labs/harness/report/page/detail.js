// One operation: what it was, its trace as a waterfall, its log lines.
let opener = null;

function pill(type) { return make("span", { class: `pill ${type}` }, type); }

// The spans of a trace as a tree, in the order in which they began.
function tree(lines) {
  const spans = lines.filter((line) => line.span !== null)
    .map((line) => ({ line, begin: line.at - line.took, end: line.at, children: [] }));
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

function kindOf(line) {
  if (line.bad) return "bad";
  return { replicate: "replicate", request: "", call: "call" }[line.event] ?? "client";
}

function waterfall(lines) {
  const spans = tree(lines);
  if (!spans.length) return make("p", { class: "dim" }, "No span is here.");
  const begin = Math.min(...spans.map((span) => span.begin));
  const end = Math.max(...spans.map((span) => span.end), begin + 1);
  const percent = (us) => `${(us / (end - begin) * 100).toFixed(3)}%`;
  const rows = spans.map((span) => {
    const place = `left:${percent(span.begin - begin)};width:max(2px,${percent(span.end - span.begin)})`;
    const what = ["request", "call"].includes(span.line.event) ? span.line.text : "";
    return make("tr", {},
      make("th", { scope: "row", title: what, style: `padding-left:${span.depth * 0.9}rem` },
        make("b", {}, span.line.node), ` ${span.line.event} `, make("span", { class: "dim" }, what)),
      make("td", {}, make("div", { class: "bar", title: `${seconds(span.begin, 6)} to ${seconds(span.end, 6)}` },
        make("i", { class: kindOf(span.line), style: place }))),
      make("td", { class: "number" }, took(span.line.took)));
  });
  const caption = `${spans.length} spans, ${took(end - begin)} from ${seconds(begin)}`;
  const table = tableOf(["node and step", "when", "took"], rows, caption);
  const columns = [make("col", { class: "what" }), make("col"), make("col", { class: "took" })];
  table.querySelector("caption").after(make("colgroup", {}, columns));
  table.className = "waterfall";
  return table;
}

function logTable(lines, chosen) {
  const row = (line) => {
    const op = line.trace === null ? undefined : view.run.traces.get(line.trace);
    const level = view.run.levels[line.level], at = (line.at / 1e6).toFixed(6);
    return make("tr", { class: chosen && op === chosen ? `${level} chosen` : level },
      make("td", { class: "number" }, make("a", { href: address({ t: at }) }, (line.at / 1e6).toFixed(4))),
      make("th", { scope: "row" }, line.node), make("td", { class: "level" }, level), make("td", {}, line.event),
      make("td", { class: "text" }, line.text), make("td", { class: "number" }, took(line.took)),
      make("td", {}, op ? make("a", { href: linkTo(op) }, `#${op.number}`) : null),
      make("td", { class: "mono" }, line.request ?? ""));
  };
  return tableOf(["s", "node", "level", "event", "what", "took", "op", "request"], lines.map(row));
}

function neighbour(op, by) {
  const ops = op.variant.ops;
  return ops[ops.indexOf(op) + by];
}

function fact(name, ...value) { return [make("dt", {}, name), make("dd", {}, ...value)]; }

function facts(op) {
  const at = make("a", { href: address({ t: (op.begin / 1e6).toFixed(6) }) }, seconds(op.begin, 6));
  return make("dl", {},
    fact("variant", op.variant.name), fact("client", `${op.client}, process ${op.process}`), fact("sent", at),
    fact("took", op.end === null ? "never ended" : took(op.end - op.begin)),
    op.waited ? fact("mostly waited for", op.waited) : null,
    op.node ? fact("answered by", op.node) : null, op.error ? fact("error", op.error) : null,
    fact("request", make("code", {}, op.request ?? "–")), fact("trace", make("code", {}, op.trace ?? "–")));
}

function ways(op) {
  const button = (name, text, onclick) => make("button", { "data-go": name, onclick }, text);
  const before = neighbour(op, -1), after = neighbour(op, 1);
  return make("div", { class: "go" },
    button("timeline", "in the timeline", () => {
      zoomTo(op.begin / 1e6, (op.end ?? op.begin) / 1e6);
      byId("timeline").scrollIntoView();
    }),
    button("messages", "messages then", () => byId("messages").scrollIntoView()),
    button("logs", "in the merged logs", () => filterLogs(op)),
    before ? button("before", "◀ previous", () => show(before)) : null,
    after ? button("after", "next ▶", () => show(after)) : null);
}

const SILENCE = "No node tells of this request: it never arrived, its node was killed before it could say so, or sampling did not draw it.";

function drawDetail(op) {
  const lines = op.variant.byTrace.get(op.trace) || [];
  const silent = lines.length && !lines.some((line) => line.event === "request");
  const close = { class: "close", title: "close (Esc)", onclick: () => go({ op: null }) };
  fill(byId("detail"),
    make("button", close, "✕", make("span", { class: "read" }, " close")),
    make("h2", { id: "detail-title" }, `#${op.number} ${op.did} `, pill(op.type)),
    facts(op), ways(op),
    make("h3", {}, "Trace"), silent ? make("p", { class: "note" }, SILENCE) : null, waterfall(lines),
    make("h3", {}, "Log lines"), make("div", { class: "scroll" }, logTable(lines)));
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
