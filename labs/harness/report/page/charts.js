// Bokeh's pictures: put in place, coloured for light or dark, joined to the view.
const charts = { figures: [], range: null };

async function drawCharts() {
  const documents = JSON.parse(byId("pictures").textContent);
  if (documents === null) return;
  await Bokeh.embed.embed_items(documents, JSON.parse(byId("places").textContent));
  for (const document of Bokeh.documents) {
    for (const root of document.roots()) charts.figures.push(root);
  }
  if (!charts.figures.length) return;
  charts.range = charts.figures[0].x_range;
  charts.home = [charts.range.start, charts.range.end];
  const coarse = matchMedia("(pointer: coarse)").matches;
  for (const figure of charts.figures) {
    if (coarse) figure.toolbar.active_drag = null; // a finger scrolls the page; buttons zoom
    for (const renderer of figure.renderers) {
      const source = renderer.data_source;
      if (!source || source.name !== "operations") continue;
      source.selected.properties.indices.change.connect(() => {
        const index = source.selected.indices[0];
        if (index === undefined || charts.quiet) return;
        const op = view.run.ops.get(source.data.number[index]);
        if (op && op !== view.op) show(op);
      });
    }
  }
  colourCharts();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colourCharts);
}

function colourCharts() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), dim = style.getPropertyValue("--dim").trim();
  const line = style.getPropertyValue("--line").trim(), bad = style.getPropertyValue("--bad").trim();
  const card = style.getPropertyValue("--card").trim();
  for (const figure of charts.figures) {
    figure.setv({ background_fill_color: card, border_fill_color: null, outline_line_color: line });
    if (figure.title) figure.title.setv({ text_color: ink, text_font_size: "13px" });
    for (const model of figure.references()) {
      if (/Axis$/.test(model.type)) {
        model.setv({ axis_label_text_color: dim, major_label_text_color: ink, axis_line_color: line,
          major_tick_line_color: line, minor_tick_line_color: null, axis_label_text_font_style: "normal", axis_label_text_font_size: "11px" });
      } else if (model.type === "Grid") model.setv({ grid_line_color: line, grid_line_alpha: 0.7 });
      else if (model.type === "Legend") model.setv({ label_text_color: ink, background_fill_color: null });
      else if (model.type === "Label") model.setv({ text_color: dim });
      else if (model.type === "Span" && model.name === "moment") model.setv({ line_color: bad });
    }
    for (const renderer of figure.renderers) {
      if (renderer.selection_glyph && renderer.selection_glyph.setv) renderer.selection_glyph.setv({ line_color: ink, line_width: 3 });
    }
  }
}

watch(function moment() {
  charts.quiet = true;
  for (const figure of charts.figures) {
    for (const model of figure.center) {
      if (model.name === "moment") model.location = view.at / 1e6;
    }
    for (const renderer of figure.renderers) {
      const source = renderer.data_source;
      if (!source || source.name !== "operations") continue;
      const index = view.op ? Array.from(source.data.number).indexOf(view.op.number) : -1;
      source.selected.indices = index < 0 ? [] : [index];
    }
  }
  charts.quiet = false;
  const field = byId("moment");
  if (document.activeElement !== field) field.value = (view.at / 1e6).toFixed(3);
});

const moves = {
  earlier(span) { return [-span / 4, -span / 4]; },
  later(span) { return [span / 4, span / 4]; },
  in(span) { return zoom(span, 0.5); },
  out(span) { return zoom(span, 2); },
};

// Zooms about the moment when it is in the picture, else about the middle.
function zoom(span, by) {
  const { start, end } = charts.range, at = view.at / 1e6;
  const centre = at >= start && at <= end ? at : (start + end) / 2;
  return [(centre - start) * (1 - by), (centre - end) * (1 - by)];
}

function moveAxis(how) {
  if (!charts.range) return;
  let [start, end] = charts.home;
  if (how !== "whole") {
    const span = charts.range.end - charts.range.start;
    const [left, right] = moves[how](span);
    start = charts.range.start + left;
    end = charts.range.end + right;
    const [low, high] = charts.home;
    if (end - start >= high - low) [start, end] = charts.home;
    else if (start < low) [start, end] = [low, low + end - start];
    else if (end > high) [start, end] = [high - (end - start), high];
  }
  charts.range.setv({ start, end });
}

function zoomTo(begin, end) {
  if (!charts.range) return;
  const margin = Math.max(end - begin, 0.02);
  charts.range.setv({ start: Math.max(charts.home[0], begin - margin), end: Math.min(charts.home[1], end + margin) });
}
