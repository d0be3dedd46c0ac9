// The merged logs and their filters.
const LINES_AT_ONCE = 300;
let linesShown = LINES_AT_ONCE;

function logVariant() { return view.run.variants[Number(byId("logs-variant").value)] || variantNow(); }

function matchingLines() {
  const [id, node, level, text, near] = ["id", "node", "level", "text", "near"].map((name) => byId(`logs-${name}`).value);
  const wanted = id.trim().toLowerCase(), words = text.trim().toLowerCase();
  const named = (line) => [line.request, line.trace].some((each) => each !== null && each.toLowerCase().startsWith(wanted));
  return logVariant().lines.filter((line) =>
    line.level >= Number(level) && (!node || line.node === node) && (!wanted || named(line)) &&
    (near === "" || Math.abs(line.at - view.at) <= Number(near) * 1000) &&
    (!words || `${line.event} ${line.text}`.toLowerCase().includes(words)));
}

function drawLogs() {
  const variant = logVariant(), found = matchingLines();
  const omitted = variant.omitted.lines ? ` (${variant.omitted.lines})` : "";
  const note = `${found.length} of ${variant.lines.length} lines of ${variant.name}${omitted}`;
  const more = () => { linesShown += LINES_AT_ONCE; drawLogs(); };
  drawSome("logs", found, note, linesShown, (here) => logTable(here, view.op), more);
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
