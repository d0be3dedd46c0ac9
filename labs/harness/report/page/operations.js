// The list of operations: the same as the bars, for those who would rather read or search.
const SHOWN_AT_ONCE = 200;
let operationsShown = SHOWN_AT_ONCE;

function matchingOps() {
  const type = byId("operations-type").value, client = byId("operations-client").value;
  const text = byId("operations-text").value.trim().toLowerCase(), variant = byId("operations-variant").value;
  const has = (op) => `#${op.number} ${op.did} ${op.node ?? ""} ${op.error ?? ""} ${op.request ?? ""} ${op.trace ?? ""}`.toLowerCase().includes(text);
  return view.run.variants.filter((each) => variant === "" || each.index === Number(variant)).flatMap((each) => each.ops).filter((op) =>
    (!type || (type === "bad" ? op.type !== "ok" : op.type === type)) && (!client || op.client === client) && (!text || has(op)));
}

function drawOperations() {
  const found = matchingOps(), total = view.run.ops.size;
  const here = found.slice(0, operationsShown);
  byId("operations-note").textContent = `${found.length} of ${total} operations` + (here.length < found.length ? `, the first ${here.length} are shown` : "");
  const row = (op) => make("tr", { class: op === view.op ? "chosen" : "", "data-op": op.number },
    make("th", { scope: "row" }, make("a", { href: address({ op: op.number, t: (op.begin / 1e6).toFixed(3), v: op.variant.index }) }, `#${op.number}`)),
    make("td", { class: "number" }, seconds(op.begin)), make("td", {}, op.client), make("td", { class: "text" }, op.did),
    make("td", {}, pill(op.type)), make("td", { class: "number" }, op.end === null ? "never" : took(op.end - op.begin)),
    make("td", {}, op.node ?? ""), make("td", {}, op.error ?? ""), make("td", {}, op.variant.name));
  const names = ["operation", "sent", "client", "what", "ended", "took", "node", "error", "variant"];
  fill(byId("operations-table"),
    make("table", {}, make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, here.map(row))),
    here.length < found.length ? make("button", { onclick: () => { operationsShown += SHOWN_AT_ONCE; drawOperations(); } }, `show ${SHOWN_AT_ONCE} more`) : null);
}

watch(function chosen() {
  for (const row of byId("operations-table").querySelectorAll("tr[data-op]")) {
    row.classList.toggle("chosen", view.op !== null && row.dataset.op === String(view.op.number));
  }
});
