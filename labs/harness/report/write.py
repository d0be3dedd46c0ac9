"""A `Run` as one self-contained HTML file that opens offline.

Everything is inside: Bokeh's script, ours, the styles, the data. A content security policy allows
no request at all and only these scripts (by their hashes): should a key or a value ever get past
the escaping, it still would not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from math import isnan
from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.embed.util import standalone_docs_json_and_render_items
from bokeh.models import Range1d
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from labs.harness.report import charts, cluster, counterexamples, measures, payload
from labs.harness.report.data import Run, VariantRun

PAGE = Path(__file__).parent / "page"
SCRIPTS = ["data", "view", "charts", "detail", "operations", "logs", "messages", "main"]
NAME = "report.html"


def write(run: Run) -> Path:
    """Write `report.html` into the run's directory, whole or not at all."""
    path = run.directory / NAME
    temporary = path.with_suffix(".partial")
    temporary.write_text(render(run), encoding="utf-8")
    return temporary.replace(path)


def render(run: Run) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": _seconds, "ms": _ms, "percent": _percent}
    bokeh = "\n".join(
        _closed(text) for text in Resources(mode="inline", components=["bokeh"]).js_raw
    )
    own = "\n".join((PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    own = _closed(f'(function () {{\n"use strict";\n{own}\n}})();')
    pictures, items = _pictures(run)
    return environment.get_template("page.html.j2").render(
        run=run,
        verdict=run.verdict,
        variants=[_section(number, each) for number, each in enumerate(run.variants)],
        answer=[
            " ".join(part.split()) for part in run.verdict.answer.split("\n\n") if part.strip()
        ],
        style=Markup((PAGE / "page.css").read_text(encoding="utf-8")),
        bokeh=Markup(bokeh),
        script=Markup(own),
        hashes=[_hash(bokeh), _hash(own)],
        data=payload.pack(run),
        pictures=Markup(pictures),
        items=Markup(items),
    )


def _pictures(run: Run) -> tuple[str, str]:
    """Bokeh's documents and what goes where, as JSON that no HTML parser minds."""
    if not any(variant.history.ops for variant in run.variants):
        return "null", "null"
    time = charts.time_axis(run.variants)
    width = measures.bin_us(max(variant.end_us for variant in run.variants))
    per_s = Range1d(start=0, end=_top(run, width))
    roots: list[Any] = []
    places: list[str] = []
    for number, variant in enumerate(run.variants):
        for name, chart in (
            ("rates", charts.rates(variant, time, per_s, width)),
            ("operations", charts.operations(variant, time)),
            ("availability", charts.availability(variant, time, width)),
            ("latency", charts.latency(variant, time, width)),
        ):
            roots.append(chart)
            places.append(f"{name}-{number}")
        if variant.watched is not None:
            roots.append(charts.watched(variant, variant.watched, time))
            places.append(f"watched-{number}")
    document = Document()
    # Else it walks all that it has, again with each root: two fifths of the time of a large report.
    with document.models.freeze():
        for root in roots:
            document.add_root(root)
    documents, items = standalone_docs_json_and_render_items(roots)
    (item,) = items
    plain = item.to_json()
    plain["roots"] = {str(chart.id): place for chart, place in zip(roots, places, strict=True)}
    return _json(documents), _json([plain])


def _top(run: Run, width_us: int) -> float:
    highest = 1
    for variant in run.variants:
        sums: dict[int, int] = {}
        for own in measures.bins(variant.history, width_us).values():
            for number, each in own.items():
                sums[number] = sums.get(number, 0) + each.asked
        highest = max(highest, *sums.values(), 1)
    return highest * 1e6 / width_us * 1.08


def _section(number: int, variant: VariantRun) -> dict[str, Any]:
    history = variant.history
    counts = {name: dict.fromkeys(measures.TYPES, 0) for name in measures.places(history)}
    for op in history.ops:
        counts[measures.place(op)][op.type] += 1
    return {
        "number": number,
        "run": variant,
        "result": variant.result,
        "lanes": cluster.lanes(variant),
        "bands": cluster.bands(variant),
        "timetables": [(fault, cluster.timetable(fault)) for fault in variant.faults],
        "counts": counts,
        "windows": measures.table(history) if history.ops else [],
        "counterexamples": counterexamples.told(variant),
        "watched": variant.watched,
    }


def _json(value: Any) -> str:
    """JSON for a script element: no `<` in it, so no `</script>` and no `<!--`."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _closed(script: str) -> str:
    """Our own code and Bokeh's must not end their element themselves."""
    return script.replace("</script", "<\\/script")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} s"


def _ms(value: float) -> str:
    return "–" if isnan(value) else f"{value:.1f}"


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{value:.1%}"
