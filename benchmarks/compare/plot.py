"""The record as a picture: a row each, its ratio to llama.cpp on the left and its share of the limit on the right."""
from xml.sax.saxutils import escape

COLOURS = {"aim": "#1a7f5a", "must": "#4c8fd6", "short": "#d9822b", "void": "#a8adb5", "failed": "#c23b3b"}
WORDS = {"aim": "aim reached", "must": "as it must", "short": "falls short", "void": "void", "failed": "failed"}

ROW = 17  # height of a row, in pixels as all below
GROUP = 26  # of the heading of a model
TOP, BOTTOM = 74, 26
LABELS, RATIOS, GAP, SHARES, RIGHT = 230, 300, 70, 200, 30
WIDTH = LABELS + RATIOS + GAP + SHARES + RIGHT


def svg(record):
    rows = record["rows"]
    groups = []
    for row in rows:
        name = f"{row['shape']} {row['type']}"
        if not groups or groups[-1][0] != name:
            groups.append((name, []))
        groups[-1][1].append(row)
    height = TOP + sum(GROUP + ROW * len(group) for _, group in groups) + BOTTOM
    marks = [row[wanted].get("ratio_min", 0.0) for row in rows for wanted in ("must", "aim") if wanted in row]
    top = scale_end(max([row["ratio"] for row in rows if "ratio" in row] + marks, default=1.0))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(12, 20, "Veritas SDR beside llama.cpp", size=15, weight="bold"),
        *legend(),
        text(LABELS, 58, "times as good as llama.cpp"),
        text(LABELS + RATIOS + GAP, 58, "share of the machine's limit"),
        *axes(top, height),
    ]
    y = TOP
    for name, group in groups:
        parts.append(text(12, y + 18, name, weight="bold"))
        y += GROUP
        for row in group:
            parts += bars(row, y, top)
            y += ROW
    parts.append(text(12, height - 9, f"{record['machine']['processor']}, {record['date']}, llama.cpp {record['versions']['llama_cpp']}"[:150], fill="#667080", size=10))
    return "\n".join(parts + ["</svg>", ""])


def scale_end(largest):
    """Where the axis of ratios ends: at a whole number that no bar and no mark exceeds, at least 2."""
    return max(2, int(largest) + (largest > int(largest)))


def legend():
    x, parts = LABELS, []
    for verdict, word in WORDS.items():
        parts.append(f'<rect x="{x}" y="29" width="10" height="10" fill="{COLOURS[verdict]}"/>')
        parts.append(text(x + 14, 38, word))
        x += 24 + 5.5 * len(word)
    x = LABELS + RATIOS + GAP
    return parts + [*must_mark(x, 27), text(x + 8, 38, "must"), *aim_mark(x + 52, 26), text(x + 60, 38, "aim")]


def axes(top, height):
    parts = []
    step = 1 if top <= 8 else 2 if top <= 16 else 10
    for ratio in range(0, top + 1, step):
        x = LABELS + RATIOS * ratio / top
        parts.append(line(x, TOP - 4, x, height - BOTTOM, "#5a6270" if ratio == 1 else "#e3e6ea"))
        parts.append(text(x, TOP - 6 + 2, f"{ratio} ×", anchor="middle", size=9, fill="#667080"))
    for percent in range(0, 101, 25):
        x = LABELS + RATIOS + GAP + SHARES * percent / 100
        parts.append(line(x, TOP - 4, x, height - BOTTOM, "#e3e6ea"))
        parts.append(text(x, TOP - 6 + 2, f"{percent} %", anchor="middle", size=9, fill="#667080"))
    return parts


def bars(row, y, top):
    name = f"{row['test']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}{' (disturbed)' if row.get('disturbed') else ''}"
    parts = [text(24, y + 12, name)]
    colour = COLOURS[row["verdict"]]
    if "failed" in row:
        return parts + [text(LABELS + 4, y + 12, "failed", fill=colour)]
    parts += bar(LABELS, RATIOS / top, row["ratio"], y, colour, row, "ratio_min")
    parts.append(text(LABELS - 6, y + 12, f"{row['ratio']:.2f} ×", anchor="end"))
    left = LABELS + RATIOS + GAP
    if "share" in row:
        share = min(row["share"], 1.0)
        parts += bar(left, SHARES, share, y, colour, row, "share_min")
        parts.append(text(left - 6, y + 12, f"{row['share']:.0%}", anchor="end"))
    elif "file_share" in row:
        parts.append(text(left, y + 12, f"{row['file_share']:.2f} × the size of the file"))
    elif row["kind"] in ("load", "first"):
        parts.append(text(left, y + 12, f"{row['ours']:.0f} ms, llama.cpp {row['llama_cpp']:.0f} ms"))
    return parts


def bar(left, unit, value, y, colour, row, condition):
    """A bar of `value` times `unit` pixels, with a mark where the row must end and a dot where it should."""
    parts = [f'<rect x="{left}" y="{y + 3}" width="{unit * value:.1f}" height="{ROW - 6}" fill="{colour}"/>']
    if condition in row["must"]:
        parts += must_mark(left + unit * row["must"][condition], y)
    if condition in row["aim"]:
        parts += aim_mark(left + unit * row["aim"][condition], y)
    return parts


def must_mark(x, y):
    return [line(x, y + 1, x, y + ROW - 1, "#30363d", 2)]


def aim_mark(x, y):
    return [f'<circle cx="{x:.1f}" cy="{y + ROW / 2}" r="2.5" fill="#30363d" stroke="#ffffff"/>']


def line(x1, y1, x2, y2, colour, width=1):
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'


def text(x, y, words, size=11, weight="normal", anchor="start", fill="#1f2328"):
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'
