// The list of operations: the same as the bars, for those who would rather read or search.
const SHOWN_AT_ONCE = 200;
let operationsShown = SHOWN_AT_ONCE;

function matchingOps() {
  const [variant, type, client, text] = ["variant", "type", "client", "text"].map((name) =>
    byId(`operations-${name}`).value.trim().toLowerCase());
  const all = view.run.variants.filter((each) => variant === "" || each.index === Number(variant));
  const ended = (op) => !type || (type === "bad" ? op.type !== "ok" : op.type === type);
  const words = (op) => [`#${op.number}`, op.did, op.node, op.error, op.request, op.trace].join(" ").toLowerCase();
  return all.flatMap((each) => each.ops).filter((op) =>
    ended(op) && (!client || op.client.toLowerCase() === client) && (!text || words(op).includes(text)));
}

function operationRow(op) {
  const number = (text) => make("td", { class: "number" }, text);
  return make("tr", { class: op === view.op ? "chosen" : "", "data-op": op.number },
    make("th", { scope: "row" }, make("a", { href: linkTo(op) }, `#${op.number}`)),
    number(seconds(op.begin)), make("td", {}, op.client), make("td", { class: "text" }, op.did),
    make("td", {}, pill(op.type)), number(op.end === null ? "never" : took(op.end - op.begin)),
    make("td", {}, op.node ?? ""), make("td", {}, op.error ?? ""), make("td", {}, op.variant.name));
}

// A note of how many there are, the first of them, and a button for more.
function drawSome(id, found, note, shown, draw, more) {
  const here = found.slice(0, shown), rest = here.length < found.length;
  byId(`${id}-note`).textContent = note + (rest ? `, the first ${here.length} are shown` : "");
  fill(byId(`${id}-table`), draw(here), rest ? make("button", { onclick: more }, "show more") : null);
}

function drawOperations() {
  const found = matchingOps();
  const names = ["operation", "sent", "client", "what", "ended", "took", "node", "error", "variant"];
  const more = () => { operationsShown += SHOWN_AT_ONCE; drawOperations(); };
  drawSome("operations", found, `${found.length} of ${view.run.ops.size} operations`, operationsShown,
    (here) => tableOf(names, here.map(operationRow)), more);
}

watch(function chosen() {
  for (const row of byId("operations-table").querySelectorAll("tr[data-op]")) {
    row.classList.toggle("chosen", view.op !== null && row.dataset.op === String(view.op.number));
  }
});
