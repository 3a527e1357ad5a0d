"""The tables of `benchmarks.mislabelled`, and what their numbers say."""

from typing import Any

from benchmarks.mislabelled_kinds import (
    INFLUENCE,
    NAMES,
    PARTS,
    SHOWN,
    Row,
    entries,
    kind_cell,
    listed,
)
from benchmarks.tables_mislabelled_tally import lag_lines, tally, verdict

_RATE = 0.2


def mislabelled_table(document: Row) -> str:
    """Tallies, AUC and detection of every method, verdicts, other rates, gains, estimates."""
    rows = document["results"]
    at = [row for row in rows if row["rate"] == _RATE]
    seeds, known = document["settings"]["seeds"], entries(rows)
    without = [name for name, entry in known.items() if not entry["trusted"]]
    parts = [
        *_kind_lines(),
        "",
        *tally(rows),
        "",
        *lag_lines(rows, "with a trusted set", list(known)),
        *lag_lines(rows, "without a trusted set", without),
        f"±: half the 95 % interval, Student's t over {seeds} seeds of draws: each draws the parts "
        "and the wrong labels anew and trains anew. It takes the draws for independent, although "
        "their examples come from one pool. All methods see the same draws: compare two of them by "
        "their paired difference, as in the lines below the next table, rather than by whether "
        "their intervals overlap.",
        "",
        f"Means over the seeds, {_RATE:.0%} of the labels wrong: area under the ROC curve.",
        "",
        *_figure_lines(at, "auc"),
        "",
        "The best of each kind, of the methods that use the trusted set and of those that use "
        "none, with the difference of AUC paired by seed and its 95 % interval:",
        "",
        *[f"- {verdict(row)}" for row in at],
        "",
        "Share of the wrong labels found when as many as there are have been inspected:",
        "",
        *_figure_lines(at, "found_at_true_count"),
        "",
        "Average precision:",
        "",
        *_figure_lines(at, "average_precision", SHOWN),
        "",
    ]
    for rate in sorted({row["rate"] for row in rows} - {_RATE}):
        parts += [f"AUC, {rate:.0%} of the labels wrong:", ""]
        parts += [*_figure_lines([row for row in rows if row["rate"] == rate], "auc", SHOWN), ""]
    for rate in sorted({row["rate"] for row in rows}, key=lambda rate: (rate != _RATE, rate)):
        gained = [row for row in rows if "gains" in row and row["rate"] == rate]
        parts += [*_gain_lines(gained, rate), ""] if gained else []
    parts += _rate_lines(rows)
    return "\n".join(parts).rstrip()


def _kind_lines() -> list[str]:
    """What the column of kinds means, and what the combinations are made of."""
    said = []
    for name, parts in PARTS.items():
        ours = sum(part in INFLUENCE for part in parts)
        by = f"{ours} of {len(parts)} by influence" if ours else "none by influence: a baseline"
        said.append(f"{NAMES[name]}, of {listed(parts)} ({by})")
    return [
        "Kinds: *ours* are by influence and forward-only, *gradients* take gradients of the "
        "training examples, *baseline* is all else. *Combined* are mean ranks: "
        f"{'; '.join(said)}."
    ]


def _measured(entry: Row, style: str = ".3f") -> str:
    """Mean ± the half-width of its interval, where it has one that is not a point."""
    text = format(entry["mean"], style)
    low, high = entry.get("interval", (0, 0))
    return text if low == high else f"{text} ± {format((high - low) / 2, style)}"


def _figure_lines(rows: list[dict[str, Any]], figure: str, only: tuple[str, ...] = ()) -> list[str]:
    names = {name: entry for row in rows for name, entry in row["methods"].items()}
    mean = lambda name: (
        sum(row["methods"][name][figure]["mean"] for row in rows if name in row["methods"])
        / sum(name in row["methods"] for row in rows)
    )
    columns = [f"{row['set']}, {row['kind']}" for row in rows]
    lines = [
        f"| method | kind | trusted set | {' | '.join(columns)} |",
        "|---" * (3 + len(columns)) + "|",
    ]
    tops = [max(e[figure]["mean"] for e in row["methods"].values()) for row in rows]
    for name in sorted(names, key=mean, reverse=True):
        if only and name not in only:
            continue
        cells = []
        for row, top in zip(rows, tops, strict=True):
            entry = row["methods"].get(name)
            text = "–" if entry is None else _measured(entry[figure])
            cells.append(f"**{text}**" if entry and entry[figure]["mean"] == top else text)
        entry = names[name]
        lines.append(
            f"| {NAMES[name]} | {kind_cell(name, entry)} | "
            f"{'yes' if entry['trusted'] else 'no'} | {' | '.join(cells)} |"
        )
    return lines


def _gain_lines(rows: list[dict[str, Any]], rate: float) -> list[str]:
    lines = [
        f"Test accuracy, {rate:.0%} of the labels wrong, in points above doing nothing: flagged "
        "rows (as many as are wrong) removed / relabelled; means ± the half-width of the 95 % "
        "interval.",
        "",
        "| method | " + " | ".join(f"{row['set']}, {row['kind']}" for row in rows) + " |",
        "|---" * (1 + len(rows)) + "|",
    ]
    names = list(dict.fromkeys(name for row in rows for name in row["gains"]))
    for name in names:
        cells = []
        for row in rows:
            entry = row["gains"].get(name)
            if entry is None:
                cells.append("–")
            elif name == "(nothing done)":
                cells.append(f"accuracy {_measured(entry['removed'])}")
            elif name == "(all labels right)":
                cells.append(_points(entry["removed"]["gain"]))
            else:
                both = (_points(entry[way]["gain"]) for way in ("removed", "relabelled"))
                cells.append(" / ".join(both))
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    return lines


def _points(gain: dict[str, Any]) -> str:
    text = f"{100 * gain['mean']:+.1f}"
    if "interval" not in gain:
        return text
    return f"{text} ± {50 * (gain['interval'][1] - gain['interval'][0]):.1f}"


def _rate_lines(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| set | noise | truly wrong | confident joint | mixture | suggestions right |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        rates = row["rates"]
        shown = " | ".join(
            _measured(rates[key], ".1%")
            for key in ("true", "confident_joint", "mixture", "suggestion_right")
        )
        lines.append(f"| {row['set']} | {row['kind']} | {shown} |")
    return lines
