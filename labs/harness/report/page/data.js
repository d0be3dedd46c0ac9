// The run, unpacked: rows of numbers and texts become objects. Times are microseconds.
function unpack(raw) {
  const variants = raw.variants.map((each, index) => {
    const text = (number) => (number < 0 ? null : each.texts[number]);
    const variant = { index, name: each.name, nodes: each.nodes, end: each.end, first: each.first, omitted: each.omitted };
    variant.faults = each.faults.map(([name, target, begin, end]) => ({ name, target, begin, end }));
    variant.stays = each.stays.map(([node, begin, end, role, term]) => ({ node, begin, end, role, term }));
    variant.ops = each.ops.map(([number, client, process, did, type, begin, end, node, error, trace, request, waited]) => ({
      number, client: text(client), process, did, type: text(type), begin, end, node: text(node),
      error: text(error), trace: text(trace), request, waited, variant,
    }));
    variant.lines = each.lines.map(([at, node, level, event, told, trace, request, span, parent, took, bad]) => ({
      at, node: text(node), level, event: text(event), text: told, trace: text(trace), request, span, parent, took, bad: bad === 1,
    }));
    variant.messages = each.messages.map(([sent, flight, src, dst, names, count, term]) => ({
      sent, received: flight === null ? null : sent + flight, src: text(src), dst: text(dst), names: text(names), count, term,
    }));
    variant.byTrace = new Map();
    for (const line of variant.lines) {
      if (line.trace === null) continue;
      if (!variant.byTrace.has(line.trace)) variant.byTrace.set(line.trace, []);
      variant.byTrace.get(line.trace).push(line);
    }
    return variant;
  });
  const ops = new Map(), traces = new Map();
  for (const variant of variants) for (const op of variant.ops) {
    ops.set(op.number, op);
    if (op.trace) traces.set(op.trace, op);
  }
  return { levels: raw.levels, variants, ops, traces };
}

async function load() {
  const packed = atob(document.getElementById("data").textContent.trim());
  const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return unpack(JSON.parse(await new Response(stream).text()));
}
