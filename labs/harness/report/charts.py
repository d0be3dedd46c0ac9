"""The Bokeh pictures, all on one time axis (seconds since the variant began), pan and zoom shared.

Colours of text, grid and background are set by the page's script, for light and for dark; those of
data are chosen to be read on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    Label,
    Range1d,
    Span,
)
from bokeh.plotting import figure

from labs.harness.history import Op
from labs.harness.lab.watched import Watched
from labs.harness.report import measures
from labs.harness.report.data import VariantRun, ended_ns
from labs.harness.workloads.statistics import percentile

COLOURS = {"ok": "#3b82c4", "fail": "#d9467a", "info": "#e08a1e"}
SIDES = ("#3b82c4", "#c2681c", "#2f9e6e", "#9b5fc0", "#b0446a")
BAND = "#e0b020"
LANE_PX, LANES_PX_MAX = 7, 420
ALERT = "#c0392b"
ALERT_ROW, ALERT_HEIGHT = 0.14, 0.09  # of the picture's height from 0 to 1
TOOLS = "xpan,xwheel_zoom,xbox_zoom,reset,save"


def time_axis(variants: Sequence[VariantRun]) -> Range1d:
    """The range that all pictures share."""
    end = max((variant.end_us for variant in variants), default=0) / 1e6 or 1.0
    return Range1d(-0.01 * end, 1.02 * end, bounds=(-0.05 * end, 1.1 * end), name="time")


def _figure(x_range: Range1d, height: int, title: str, label: str, **options: object) -> figure:
    chart = figure(
        x_range=x_range,
        height=height,
        sizing_mode="stretch_width",
        tools=TOOLS,
        active_drag="xpan",
        title=title,
        y_axis_label=label,
        toolbar_location="above",
        **options,
    )
    chart.toolbar.logo = None
    chart.toolbar.autohide = True
    chart.min_border_left = 68  # so that the time axes of all pictures lie above each other
    moment = Span(location=-1e9, dimension="height", line_width=2, line_dash="dashed")
    moment.name = "moment"
    chart.add_layout(moment)
    return chart


def _bands(chart: figure, variant: VariantRun, top: float) -> None:
    """The faults: a band from injection to healing, named at `top` of the y axis."""
    for fault in variant.faults:
        if fault.injected_at is None:
            continue
        end = fault.healed_at if fault.healed_at is not None else variant.end_us / 1e6
        chart.add_layout(
            BoxAnnotation(
                left=fault.injected_at,
                right=end,
                fill_color=BAND,
                fill_alpha=0.16,
                level="underlay",
            )
        )
        chart.add_layout(
            Label(
                x=fault.injected_at,
                y=top,
                text=f" {fault.name}",
                text_baseline="top",
                text_font_size="11px",
                name="note",
            )
        )


def operations(variant: VariantRun, x_range: Range1d) -> figure:
    """Each operation a bar from call to return, in lanes per client: who waits, piles up."""
    ops = [(at, variant.history.ops[at]) for at in variant.opened]
    lanes, ticks = _lanes(ops)
    total = max(ticks[-1][2] if ticks else 1, 1)
    inner = int(min(max(LANE_PX * total, 90), LANES_PX_MAX))
    title = f"{variant.name}: operations per client"
    if "operations" in variant.omitted:
        title += f" ({len(ops):,} of {len(variant.history.ops):,}, see below which)"
    chart = _figure(x_range, inner + 64, title, "", y_range=Range1d(total + 0.5, -0.5))
    _bands(chart, variant, -0.5)
    for kind in measures.TYPES:
        own = [(at, op) for at, op in ops if op.type == kind]
        if not own:
            continue
        source = ColumnDataSource(
            {
                "left": [op.invoke_ns / 1e9 for _, op in own],
                "right": [_right(op, variant) for _, op in own],
                "y": [lanes[at] for at, _ in own],
                "number": [variant.number(at) for at, _ in own],
                "ms": [_ms(op) for _, op in own],
            },
            name="operations",
        )
        chart.hbar(
            left="left",
            right="right",
            y="y",
            height=0.72,
            source=source,
            color=COLOURS[kind],
            line_width=1.6,
            legend_label=kind,
            nonselection_alpha=0.35,
            selection_line_color="#000000",
        )
    chart.add_tools(
        HoverTool(tooltips=[("operation", "#@number"), ("sent at", "@left{0.000} s"),
                            ("took", "@ms")]), "tap")  # fmt: skip
    chart.yaxis.ticker = FixedTicker(ticks=[middle for _, middle, _ in ticks])
    chart.yaxis.major_label_overrides = {middle: name for name, middle, _ in ticks}
    chart.ygrid.visible = False
    for _, _, end in ticks[:-1]:
        chart.add_layout(Span(location=end, dimension="width", line_color="#888888"))
    _legend(chart)
    return chart


def _lanes(ops: list[tuple[int, Op]]) -> tuple[dict[int, float], list[tuple[str, float, float]]]:
    """A lane for each operation, so that none covers another, client below client.

    Returns the lanes by position, and per client (name, its middle, its end).
    """
    by_place: dict[str, list[tuple[int, Op]]] = {}
    for at, op in ops:
        by_place.setdefault(measures.place(op), []).append((at, op))
    lanes: dict[int, float] = {}
    ticks = []
    top = 0
    for name in sorted(by_place):
        busy: list[tuple[int, int]] = []  # (until, lane)
        free: list[int] = []
        used = 0
        for at, op in by_place[name]:
            while busy and busy[0][0] <= op.invoke_ns:
                heappush(free, heappop(busy)[1])
            if free:
                lane = heappop(free)
            else:
                lane, used = used, used + 1
            heappush(busy, (ended_ns(op) or 1 << 62, lane))
            lanes[at] = top + lane + 0.5
        ticks.append((name, top + used / 2, float(top + used)))
        top += used
    return lanes, ticks


def _right(op: Op, variant: VariantRun) -> float:
    end = ended_ns(op)
    return variant.end_us / 1e6 if end is None else end / 1e9


def _ms(op: Op) -> str:
    end = ended_ns(op)
    return "never ended" if end is None else f"{(end - op.invoke_ns) / 1e6:.2f} ms, {op.type}"


def rates(variant: VariantRun, x_range: Range1d, y_range: Range1d, width_us: int) -> figure:
    """How many operations a second ended how, by when they were sent; all of them."""
    per_s, width = 1e6 / width_us, width_us / 1e6
    sums: dict[int, dict[str, int]] = {}
    for own in measures.bins(variant.history, width_us).values():
        for number, each in own.items():
            total = sums.setdefault(number, dict.fromkeys(measures.TYPES, 0))
            for kind in measures.TYPES:
                total[kind] += each.count[kind]
    numbers = sorted(sums)
    title = f"{variant.name}: operations a second"
    chart = _figure(x_range, 190, title, "per second", y_range=y_range)
    _bands(chart, variant, y_range.end)
    data: dict[str, list[float]] = {"x": [(number + 0.5) * width for number in numbers]}
    for kind in measures.TYPES:
        data[kind] = [sums[number][kind] * per_s for number in numbers]
    chart.vbar_stack(
        list(measures.TYPES),
        x="x",
        width=width * 0.92,
        color=[COLOURS[kind] for kind in measures.TYPES],
        source=ColumnDataSource(data),
        legend_label=list(measures.TYPES),
    )
    _legend(chart)
    return chart


def availability(variant: VariantRun, x_range: Range1d, width_us: int) -> figure:
    """The share of requests that got an answer, per client; a gap where nothing was asked."""
    chart = _figure(
        x_range, 190, f"{variant.name}: availability per side", "answered", y_range=Range1d(-4, 108)
    )
    _bands(chart, variant, 108)
    found = measures.bins(variant.history, width_us)
    for number, name in enumerate(sorted(found)):
        xs, ys = [], []
        for at in range(min(found[name]), max(found[name]) + 1):
            each = found[name].get(at)
            share = each.answered / each.asked * 100 if each and each.asked else float("nan")
            xs += [at * width_us / 1e6, (at + 1) * width_us / 1e6]
            ys += [share, share]
        dash = ("solid", "dashed", "dotted")[number % 3]
        chart.line(xs, ys, line_width=2.4, color=SIDES[number % len(SIDES)], line_dash=dash,
                   legend_label=name)  # fmt: skip
    chart.yaxis.ticker = FixedTicker(ticks=[0, 25, 50, 75, 100])
    chart.yaxis.major_label_overrides = {each: f"{each} %" for each in (0, 25, 50, 75, 100)}
    _legend(chart)
    return chart


def latency(variant: VariantRun, x_range: Range1d, width_us: int) -> figure:
    """Percentiles of the time to an answer, per client; a gap where nobody got one."""
    found = measures.bins(variant.history, width_us)
    took_ms = [
        each for own in found.values() for bin_ in own.values() for each in bin_.latencies_ms
    ]
    low, high = (max(min(took_ms), 0.01), max(took_ms)) if took_ms else (1.0, 10.0)
    reach = Range1d(start=low / 1.5, end=high * 3)
    title = f"{variant.name}: latency, p50 solid, p99 dotted"
    chart = _figure(x_range, 220, title, "ms (log)", y_axis_type="log", y_range=reach)
    _bands(chart, variant, reach.end)
    for number, name in enumerate(sorted(found)):
        colour = SIDES[number % len(SIDES)]
        for rank, dash, width in ((50, "solid", 2.4), (99, "dotted", 1.8)):
            xs, ys = [], []
            for at in range(min(found[name]), max(found[name]) + 1):
                took = found[name].get(at, measures.Bin()).latencies_ms
                xs.append((at + 0.5) * width_us / 1e6)
                ys.append(percentile(took, rank) if took else float("nan"))
            label = {"legend_label": name} if rank == 50 else {}
            chart.line(xs, ys, line_width=width, color=colour, line_dash=dash, **label)
            # A point between two gaps would draw no line, hence be lost.
            chart.scatter(xs, ys, size=3.5, color=colour)
    _legend(chart)
    return chart


def watched(variant: VariantRun, saw: Watched, x_range: Range1d) -> figure:
    """The curves, and below them a row for each alert with a bar while it fired."""
    alerts = list(dict.fromkeys(firing.alert for firing in saw.firings))
    reach = Range1d(-ALERT_ROW * max(len(alerts), 1) - 0.02, 1.08)
    title = f"{variant.name}: {saw.title}"
    picture = _figure(x_range, 240, title, "share", y_range=reach)
    _bands(picture, variant, 1.08)
    for number, (name, points) in enumerate(saw.curves.items()):
        picture.line(
            [at for at, _ in points],
            [share for _, share in points],
            line_width=2.2,
            color=SIDES[number % len(SIDES)],
            line_dash=("solid", "dashed", "dotted")[number % 3],
            legend_label=name,
        )
    ticks = {0.0: "0 %", 0.5: "50 %", 1.0: "100 %"}
    for row, alert in enumerate(alerts):
        y = -ALERT_ROW * (row + 0.6)
        own = [firing for firing in saw.firings if firing.alert == alert]
        picture.hbar(
            y=[y] * len(own),
            left=[firing.begin_s for firing in own],
            right=[firing.end_s for firing in own],
            height=ALERT_HEIGHT,
            color=ALERT,
        )
        ticks[y] = alert
    picture.yaxis.ticker = FixedTicker(ticks=list(ticks))
    picture.yaxis.major_label_overrides = ticks
    picture.ygrid.visible = False
    picture.add_tools(HoverTool(tooltips=[("at", "$x{0.00} s"), ("share", "$y{0 %}")]))
    _legend(picture)
    return picture


def _legend(chart: figure) -> None:
    """Above the picture, where it covers no data."""
    if not chart.legend:
        return
    legend = chart.legend[0]
    chart.add_layout(legend, "above")
    legend.orientation = "horizontal"
    legend.click_policy = "mute"
    legend.padding = legend.margin = 0
    legend.spacing = 14
    legend.border_line_color = None
    legend.label_text_font_size = "11px"
