"""The series of a soak as one SVG drawing: a panel for each, a row for each party, a column for each metric."""

import html
import statistics

from parties import METRICS, TOTALS

_LEFT, _TOP, _GAP, _BOTTOM = 130, 46, 18, 34
_WIDTH, _HEIGHT = 104, 40
_POINTS = 60  # of a line: enough for so narrow a panel
_COLORS = {"grows": "#e03131", "level": "#1971c2", "-": "#868e96"}


def _thinned(values):
    """At most so many (share of the time, value), medians of as many stretches of it."""
    count = len(values)
    stretches = min(_POINTS, count)
    points = []
    for i in range(stretches):
        known = [value for value in values[count * i // stretches:count * (i + 1) // stretches] if value is not None]
        if known:
            points.append(((i + 0.5) / stretches, statistics.median(known)))
    return points


def _polyline(points):
    """Without those that lie on the line from their neighbours, where it is level."""
    kept = [point for i, point in enumerate(points)
            if not (0 < i < len(points) - 1 and points[i - 1][1] == point[1] == points[i + 1][1])]
    return " ".join(f"{x},{y}" for x, y in kept)


def _number(value):
    for factor, unit in ((1e6, "M"), (1e4, "k")):
        if value >= factor:
            return f"{value / (1e6 if unit == 'M' else 1e3):.3g}{unit}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _panel(series, x, y, verdict):
    """From zero on: that something is level is to be seen as well as that it grows."""
    points = _thinned(series.values)
    if not any(value for _, value in points):
        return "" if not points else f'<text x="{x}" y="{y + _HEIGHT}" font-size="9" fill="#868e96">0</text>'
    most = max(value for _, value in points)
    path = _polyline([(round(x + share * _WIDTH), round(y + _HEIGHT - value / most * (_HEIGHT - 4), 1))
                      for share, value in points])
    color = _COLORS[verdict]
    before, after = series.medians()
    about = "" if before is None or after is None else f": {_number(before)} → {_number(after)}, {verdict}"
    return (f'<g><title>{html.escape(f"{series.party}, {series.metric}{about}")}</title>'
            f'<path d="M{x},{y}v{_HEIGHT}h{_WIDTH}" fill="none" stroke="#ced4da"/>'
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
            f'<text x="{x + _WIDTH}" y="{y + _HEIGHT + 10}" text-anchor="end" font-size="9" fill="{color}">'
            f'{_number(points[-1][1])}</text></g>')


def _rows(series):
    """Of parties with their processes first, then what is of a whole side; each with its columns."""
    parties = list(dict.fromkeys(each.party for each in series))
    by_name = {(each.party, each.metric): each for each in series}
    for columns in (METRICS, {**TOTALS, "spawns_per_second": "spawns a second"}):
        rows = [(party, [by_name.get((party, metric)) for metric in columns]) for party in parties]
        rows = [(party, cells) for party, cells in rows if any(cell and any(cell.values) for cell in cells)]
        yield list(columns.values()), rows


def draw(series, tolerance, about):
    """series: of Series; about: lines below."""
    parts, y = [], _TOP
    tables = list(_rows(series))
    width = _LEFT + (_WIDTH + _GAP) * max(len(columns) for columns, _ in tables)
    for columns, rows in tables:
        parts += [f'<text x="{_LEFT + (_WIDTH + _GAP) * i}" y="{y - 8}" font-size="9">{html.escape(text)}</text>'
                  for i, text in enumerate(columns)]
        for party, cells in rows:
            parts.append(f'<text x="{_LEFT - 8}" y="{y + _HEIGHT // 2 + 4}" text-anchor="end">{html.escape(party)}'
                         '</text>')
            parts += [_panel(cell, _LEFT + (_WIDTH + _GAP) * i, y, cell.verdict(tolerance))
                      for i, cell in enumerate(cells) if cell]
            y += _HEIGHT + _GAP
        y += 30
    height = y - 30 + _BOTTOM + 13 * len(about)
    parts += [f'<text x="{width / 2:.0f}" y="{y + 13 * line}" text-anchor="middle" font-size="9" fill="#868e96">'
              f'{html.escape(text)}</text>' for line, text in enumerate(about)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="sans-serif" font-size="11" fill="#212529">\n'
            f'<rect width="{width}" height="{height}" fill="white"/>\n'
            f'<text x="{_LEFT}" y="18" font-size="14">What each party has over time (each panel from zero)</text>\n'
            + "\n".join(part for part in parts if part) + "\n</svg>\n")
