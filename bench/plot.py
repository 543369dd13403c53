"""`warmfork bench plot`: what `bench serial --json` or `bench life --json` measured, as distributions in an SVG
drawing."""

import argparse
import html
import json
import math
import random
import sys

from . import life, serial
from .common import percentile

_EXPLANATIONS = {**dict(serial.ROWS), **dict(life.ROWS)}
_TITLES = {
    "started_us": "Time until the first line of user code runs in the child (each dot a spawn, the bar the median)",
    "wall_us": "Time from a spawn until the child is reaped, one after the other (each dot a round, the bar the median)",
}

_LEFT, _WIDTH, _RIGHT = 150, 620, 110  # names, the axis, medians
_TOP, _ROW, _BOTTOM = 44, 40, 58
_BANDS = 48  # of an axis: how finely the outline of a distribution follows it


def _duration(microseconds):
    for factor, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= factor:
            return f"{microseconds / factor:.3g} {unit}"
    return f"{microseconds:.3g} µs"


class _Axis:
    """Logarithmic, over whole decades."""

    def __init__(self, values):
        self.low = math.floor(math.log10(min(values)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(values))))

    def x(self, value):
        return _LEFT + (math.log10(value) - self.low) / (self.high - self.low) * _WIDTH


def _outline(axis, values, middle):
    """The distribution as a shape around a line, as wide as there are many."""
    band = _WIDTH / _BANDS
    counts = [0] * (_BANDS + 2)
    for value in values:
        counts[1 + min(_BANDS - 1, int((axis.x(value) - _LEFT) / band))] += 1
    smooth = [sum(counts[max(0, i - 1):i + 2]) / 3 for i in range(len(counts))]
    most = max(smooth)
    used = [i for i, count in enumerate(smooth) if count]
    points = [(_LEFT + (i - 0.5) * band, smooth[i] / most * _ROW * 0.4) for i in range(used[0], used[-1] + 1)]
    points = [(points[0][0] - band / 2, 0), *points, (points[-1][0] + band / 2, 0)]
    path = [(x, middle - height) for x, height in points] + [(x, middle + height) for x, height in points[::-1]]
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in path) + "Z"


def _draw_row(axis, row, values, middle):
    values = sorted(values)
    color = "#d9480f" if row.startswith("warm") else "#868e96"
    median = percentile(values, 0.5)
    scatter = random.Random(row)
    parts = [f'<text x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{html.escape(row)}</text>',
             f'<path d="{_outline(axis, values, middle)}" fill="{color}" fill-opacity="0.3"/>']
    parts += [f'<circle cx="{axis.x(value):.1f}" cy="{middle + scatter.uniform(-5, 5):.1f}" r="1.2" fill="{color}"/>'
              for value in values]
    parts.append(f'<path d="M{axis.x(median):.1f},{middle - 14}v28" stroke="{color}" stroke-width="2"/>')
    parts.append(f'<text x="{_LEFT + _WIDTH + 10}" y="{middle + 4}">{_duration(median)}</text>')
    explanation = _EXPLANATIONS.get(row, "")
    return f"<g><title>{html.escape(explanation)}</title>{''.join(parts)}</g>"


def draw(result):
    """The drawing of a result as one of the benchmarks prints it."""
    measured = next(what for what in _TITLES if any(what in values for values in result["rows"].values()))
    # A round in which nothing took less than nothing is one of chance.
    samples = {row: [value for value in values[measured]["samples"] if value > 0]
               for row, values in result["rows"].items() if values[measured] is not None}
    samples = {row: values for row, values in samples.items() if values}
    axis = _Axis([value for values in samples.values() for value in values])
    order = sorted(samples, key=lambda row: percentile(sorted(samples[row]), 0.5))
    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _ROW * len(order) + _BOTTOM
    bottom = height - _BOTTOM
    parts = [f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{_LEFT}" y="24" font-size="15">{_TITLES[measured]}</text>']
    for decade in range(axis.low, axis.high + 1):
        x = axis.x(10.0**decade)
        parts.append(f'<path d="M{x:.1f},{_TOP}V{bottom}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{_duration(10.0**decade)}</text>')
    parts += [_draw_row(axis, row, samples[row], _TOP + _ROW * i + _ROW // 2) for i, row in enumerate(order)]
    machine = result["machine"]
    about = (f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, Python {machine['python']}",
             f"preload: {', '.join(result['preload'])}")
    parts += [f'<text x="{width / 2}" y="{height - 22 + 13 * line}" text-anchor="middle" font-size="9"'
              f' fill="#868e96">{html.escape(text)}</text>' for line, text in enumerate(about)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' font-family="sans-serif" font-size="12" fill="#212529">\n' + "\n".join(parts) + "\n</svg>\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench plot", description=__doc__)
    parser.add_argument("file", help="what `warmfork bench serial --json`, or life, printed")
    parser.add_argument("--svg", metavar="FILE", help="where to write the drawing (default: standard output)")
    options = parser.parse_args(arguments)
    try:
        with open(options.file) as file:
            drawing = draw(json.load(file))
        if options.svg:
            with open(options.svg, "w") as file:
                file.write(drawing)
        else:
            sys.stdout.write(drawing)
    except OSError as error:
        parser.exit(1, f"warmfork bench plot: {error}\n")
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        parser.exit(1, f"warmfork bench plot: {options.file} is not what `warmfork bench serial --json`, or life, prints\n")
