// The merged logs and their filters.
const LINES_AT_ONCE = 300;
let linesShown = LINES_AT_ONCE;

function logVariant() { return view.run.variants[Number(byId("logs-variant").value)] || variantNow(); }

function matchingLines() {
  const id = byId("logs-id").value.trim().toLowerCase(), node = byId("logs-node").value;
  const level = Number(byId("logs-level").value), text = byId("logs-text").value.trim().toLowerCase();
  const near = byId("logs-near").value === "" ? null : Number(byId("logs-near").value) * 1000;
  const named = (line) => (line.request !== null && line.request.toLowerCase().startsWith(id)) || (line.trace !== null && line.trace.startsWith(id));
  return logVariant().lines.filter((line) => line.level >= level && (!node || line.node === node) && (!id || named(line)) &&
    (near === null || Math.abs(line.at - view.at) <= near) && (!text || `${line.event} ${line.text}`.toLowerCase().includes(text)));
}

function drawLogs() {
  const variant = logVariant(), found = matchingLines(), here = found.slice(0, linesShown);
  const omitted = variant.omitted.lines ? ` (${variant.omitted.lines})` : "";
  byId("logs-note").textContent = `${found.length} of ${variant.lines.length} lines of ${variant.name}${omitted}` + (here.length < found.length ? `, the first ${here.length} are shown` : "");
  fill(byId("logs-table"), logTable(here, view.op),
    here.length < found.length ? make("button", { onclick: () => { linesShown += LINES_AT_ONCE; drawLogs(); } }, `show ${LINES_AT_ONCE} more`) : null);
}

function nodesOfLogs() {
  const names = [...new Set(logVariant().lines.map((line) => line.node))].sort();
  const before = byId("logs-node").value;
  fill(byId("logs-node"), make("option", { value: "" }, "any"), ...names.map((name) => make("option", {}, name)));
  byId("logs-node").value = names.includes(before) ? before : "";
}

function filterLogs(op) {
  byId("logs-form").reset();
  byId("logs-variant").value = op.variant.index;
  nodesOfLogs();
  byId("logs-level").value = "0";
  byId("logs-id").value = op.request || op.trace || "";
  drawLogs();
  byId("logs").scrollIntoView();
}

watch(function logs() {
  if (byId("logs-near").value !== "") drawLogs();
});
