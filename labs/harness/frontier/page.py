"""The sweep as one HTML file that opens offline: two pictures and the table behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bokeh.embed import file_html
from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    DataTable,
    Div,
    HoverTool,
    LabelSet,
    TableColumn,
    Whisker,
)
from bokeh.plotting import figure
from bokeh.resources import INLINE

from labs.harness.frontier.summary import Figure, Point, frontier

COLOURS = {"strict": "#3b82c4", "sloppy": "#c2681c", "Raft": "#2f9e6e"}
FIGURES = ("available", "p99_ms", "stale", "lost", "not_linearizable")
TITLES = {
    "available": "operations answered, %",
    "p99_ms": "p99 of the answered, ms",
    "stale": "stale reads, %",
    "lost": "acknowledged writes lost, %",
    "not_linearizable": "runs not linearizable, %",
}


def write(path: Path, points: Sequence[Point], about: str) -> Path:
    """Draw `points` into `path`; `about` says what was run, in plain words."""
    pictures = [
        _picture(points, "available", "stale"),
        _picture(points, "available", "lost"),
        _picture(points, "p99_ms", "stale"),
        _picture(points, "available", "p99_ms"),
    ]
    page = column(Div(text=f"<h1>The frontier of quorums</h1><p>{about}</p>"), *pictures,
                  _table(points), sizing_mode="stretch_width")  # fmt: skip
    html = file_html(page, INLINE, title="The frontier of quorums")
    temporary = path.with_suffix(".partial")
    temporary.write_text(html, encoding="utf-8")
    return temporary.replace(path)


def _kind(point: Point) -> str:
    if point.setting.protocol == "raft":
        return "Raft"
    return "sloppy" if point.setting.sloppy else "strict"


def _source(points: Sequence[Point]) -> ColumnDataSource:
    best = frontier(points)
    data: dict[str, list[object]] = {
        "name": [each.setting.name for each in points],
        "label": [_label(each) for each in points],
        "colour": [COLOURS[_kind(each)] for each in points],
        "size": [16 if each.setting.mark else 9 for each in points],
        "kind": [_kind(each) for each in points],
        "best": ["★" if each.setting.name in best else "" for each in points],
        # The others would lie on top of each other; the pointer shows their names.
        "shown": [
            _label(each) if each.setting.mark or each.setting.name in best else ""
            for each in points
        ],
    }
    for name in FIGURES:
        found: list[Figure] = [getattr(each, name) for each in points]
        data[name] = [each.value for each in found]
        data[f"{name}_low"] = [each.low for each in found]
        data[f"{name}_high"] = [each.high for each in found]
        data[f"{name}_text"] = [each.text("{:.2f}") for each in found]
    return ColumnDataSource(data)


def _label(point: Point) -> str:
    mark = f" ({point.setting.mark})" if point.setting.mark else ""
    return point.setting.name + mark


def _picture(points: Sequence[Point], x: str, y: str) -> figure:
    source = _source(points)
    title = f"{TITLES[y]} against {TITLES[x]}"
    chart = figure(height=420, sizing_mode="stretch_width", title=title, x_axis_label=TITLES[x],
                   y_axis_label=TITLES[y], tools="pan,wheel_zoom,box_zoom,reset,save")  # fmt: skip
    chart.scatter(x, y, size="size", color="colour", alpha=0.85, legend_group="kind", source=source)
    for base, value, dimension in ((x, y, "height"), (y, x, "width")):
        chart.add_layout(Whisker(source=source, base=base, lower=f"{value}_low",
                                 upper=f"{value}_high", dimension=dimension,
                                 line_color="colour", line_alpha=0.5))  # fmt: skip
    chart.add_layout(LabelSet(x=x, y=y, text="shown", source=source, x_offset=8, y_offset=4,
                              text_font_size="11px"))  # fmt: skip
    chart.x_range.range_padding, chart.y_range.range_padding = 0.4, 0.2
    chart.add_layout(chart.legend[0], "right")
    chart.add_tools(HoverTool(tooltips=[
        ("setting", "@label"), *((TITLES[name], f"@{name}_text") for name in FIGURES)
    ]))  # fmt: skip
    return chart


def _table(points: Sequence[Point]) -> DataTable:
    columns = [TableColumn(field="best", title="on the frontier", width=110),
               TableColumn(field="label", title="setting"),
               *(TableColumn(field=f"{name}_text", title=TITLES[name]) for name in FIGURES)]
    return DataTable(source=_source(points), columns=columns, sizing_mode="stretch_width",
                     height=30 * (len(points) + 1))  # fmt: skip
