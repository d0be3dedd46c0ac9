// Everything is put together once the data are unpacked.
function options(select, names, first) {
  fill(byId(select), first === undefined ? null : make("option", { value: "" }, first), ...names.map(([value, name]) => make("option", { value }, name)));
}

function prepareForms() {
  const names = view.run.variants.map((each) => [each.index, each.name]);
  options("messages-variant", names);
  options("operations-variant", names, "all");
  options("logs-variant", names);
  options("logs-level", view.run.levels.map((name, number) => [number, name]));
  byId("logs-level").value = "1";
  const clients = new Set([...view.run.ops.values()].map((op) => op.client));
  options("operations-client", [...clients].sort().map((name) => [name, name]), "any");
  for (const id of ["operations-form", "logs-form", "messages-form"]) byId(id).addEventListener("submit", (event) => event.preventDefault());
  byId("operations-form").addEventListener("input", () => { operationsShown = SHOWN_AT_ONCE; drawOperations(); });
  byId("logs-form").addEventListener("input", (event) => {
    if (event.target.id === "logs-variant") nodesOfLogs();
    linesShown = LINES_AT_ONCE;
    drawLogs();
  });
  byId("logs-form").addEventListener("reset", () => setTimeout(() => { byId("logs-level").value = "1"; byId("logs-variant").value = view.variant; nodesOfLogs(); drawLogs(); }));
  byId("messages-variant").addEventListener("change", (event) => go({ v: event.target.value, op: null }));
  byId("messages-window").addEventListener("change", messagesAgain);
  byId("messages-details").addEventListener("toggle", messagesAgain);
  for (const button of document.querySelectorAll("[data-step]")) button.addEventListener("click", () => stepMessages(Number(button.dataset.step)));
}

function prepareKeys() {
  for (const button of document.querySelectorAll("[data-axis]")) button.addEventListener("click", () => moveAxis(button.dataset.axis));
  byId("moment").addEventListener("change", (event) => {
    const at = Number(event.target.value.replace(",", "."));
    if (Number.isFinite(at)) go({ t: at.toFixed(6) });
  });
  const keys = { ArrowLeft: "earlier", ArrowRight: "later", "+": "in", "=": "in", "-": "out", 0: "whole" };
  byId("axis").addEventListener("keydown", (event) => {
    if (event.target.id === "moment" || !(event.key in keys)) return;
    event.preventDefault();
    moveAxis(keys[event.key]);
  });
  byId("messages-picture").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    stepMessages(event.key === "ArrowLeft" ? -0.5 : 0.5);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.op !== null) go({ op: null });
  });
}

// Where to look first: the last operation of a counterexample, else the first fault, else the start.
function firstLook() {
  const told = [...document.querySelectorAll(".story a")].pop();
  const op = told && view.run.ops.get(Number(told.getAttribute("href").slice(4)));
  if (op) return [op.begin, op.variant.index];
  for (const variant of view.run.variants) {
    const fault = variant.faults.find((each) => each.begin !== null);
    if (fault) return [fault.begin, variant.index];
  }
  return [0, 0];
}

async function main() {
  view.run = await load();
  prepareForms();
  prepareKeys();
  [view.at, view.variant] = firstLook();
  await drawCharts();
  byId("logs-variant").value = view.variant;
  nodesOfLogs();
  drawOperations();
  drawLogs();
  addEventListener("hashchange", follow);
  if (!follow()) for (const watcher of watchers) watcher();
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  warn(`The pictures of this run can't be drawn here: ${error.message}. The tables hold what was measured.`);
  throw error;
});
