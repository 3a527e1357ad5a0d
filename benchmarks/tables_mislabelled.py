"""The tables of `benchmarks.mislabelled`, and what their numbers say."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

NAMES = {
    "trusted_jvp": "minus influence, JVP",
    "trusted_jvp_cos": "minus influence over the gradient's norm, JVPs",
    "trusted_finite": "minus influence, finite steps",
    "trusted_finite_loss": "loss after finite steps on the trusted set",
    "trusted_preconditioned": "minus influence, preconditioned JVP",
    "trusted_early_ensemble": "minus influence, early ensemble",
    "trusted_consensus": "consensus with the trusted set",
    "trusted_grad_dot": "grad-dot",
    "trusted_grad_cos": "grad-cos",
    "trusted_tracin": "TracIn over early models",
    "loss": "training loss",
    "gradient_norm": "gradient norm",
    "self_jvp": "gradient norm by JVPs",
    "self_preconditioned": "self-influence, preconditioned (LoGra)",
    "out_of_fold_loss": "out-of-fold loss",
    "out_of_fold_margin": "out-of-fold margin",
    "confident_learning": "confident learning's margin",
    "early_loss": "loss of early models",
    "early_margin": "margin of early models",
    "consensus": "consensus",
    "knn_shapley": "KNN-Shapley",
    "lava": "LAVA",
    "nearest_validation": "nearest validation example",
    "trusted_logistic": "loss of a logistic regression on the trusted set",
    "out_of_fold_logistic": "out-of-fold loss, logistic regression",
    "knn_vote": "vote of 10 nearest neighbours",
    "cleanlab": "cleanlab, adjusted probabilities",
}
_RATE = 0.2
SHOWN = (
    "trusted_finite_loss",
    "trusted_finite",
    "trusted_consensus",
    "consensus",
    "trusted_jvp",
    "trusted_jvp_cos",
    "trusted_grad_cos",
    "gradient_norm",
    "self_jvp",
    "self_preconditioned",
    "loss",
    "early_loss",
    "out_of_fold_margin",
    "out_of_fold_logistic",
    "trusted_logistic",
    "knn_vote",
    "knn_shapley",
    "lava",
)
# forward-only and by influence; the other forward-only ones are plain baselines
INFLUENCE = (
    "trusted_jvp",
    "trusted_jvp_cos",
    "trusted_finite",
    "trusted_finite_loss",
    "trusted_preconditioned",
    "trusted_early_ensemble",
    "self_jvp",
)
# the mean rank by several: ours only if influence is among them
PARTS = {
    "consensus": ("out_of_fold_margin", "early_loss", "loss"),
    "trusted_consensus": ("out_of_fold_margin", "early_loss", "loss", "trusted_finite_loss"),
}
Row = dict[str, Any]


def kind_of(name: str, entry: Row) -> str:
    """Whether a method is ours, by influence and forward-only, a gradient or a plain baseline.

    A combination is ours if influence is among its parts.
    """
    if any(part in INFLUENCE for part in PARTS.get(name, (name,))):
        return "ours"
    return "gradients" if entry["forward_only"] is False else "baseline"


_POOLS: dict[str, Callable[[Row], bool]] = {
    "use the trusted set": lambda entry: entry["trusted"],
    "use none": lambda entry: not entry["trusted"],
    "use it or not": lambda entry: True,
}
# what the tally counts: title, (name, entry) -> whether it is meant, kind of its rivals
_COUNTED: tuple[tuple[str, Callable[[str, Row], bool], str], ...] = (
    ("forward-only, any kind", lambda name, entry: entry["forward_only"] is True, "gradients"),
    ("by influence", lambda name, _: name in INFLUENCE, "gradients"),
    (
        "by influence, no loss added",
        lambda name, _: name in INFLUENCE and name != "trusted_finite_loss",
        "gradients",
    ),
    (NAMES["trusted_finite_loss"], lambda name, _: name == "trusted_finite_loss", "gradients"),
    (NAMES["consensus"], lambda name, _: name == "consensus", "gradients"),
    ("by influence", lambda name, _: name in INFLUENCE, "baseline"),
    ("ours, combined or not", lambda name, entry: kind_of(name, entry) == "ours", "baseline"),
)
# one against one: what influence adds to a loss, and the likely choices
_PAIRS = (
    ("trusted_finite_loss", "loss"),
    ("trusted_consensus", "consensus"),
    ("trusted_finite_loss", "trusted_logistic"),
    ("trusted_finite_loss", "early_loss"),
    ("consensus", "early_loss"),
    ("self_jvp", "gradient_norm"),
)


def mislabelled_table(document: Row) -> str:
    """Tallies, AUC and detection of every method, verdicts, other rates, gains, estimates."""
    rows = document["results"]
    at = [row for row in rows if row["rate"] == _RATE]
    seeds, known = document["settings"]["seeds"], _entries(rows)
    without = [name for name, entry in known.items() if not entry["trusted"]]
    parts = [
        *_kind_lines(),
        "",
        *tally(rows),
        "",
        *_lag_lines(rows, "with a trusted set", list(known)),
        *_lag_lines(rows, "without a trusted set", without),
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
    parts += [*_gain_lines([row for row in rows if "gains" in row]), "", *_rate_lines(rows)]
    return "\n".join(parts).rstrip()


def _kind_lines() -> list[str]:
    """What the column of kinds means, and what the combinations are made of."""
    said = []
    for name, parts in PARTS.items():
        ours = sum(part in INFLUENCE for part in parts)
        by = f"{ours} of {len(parts)} by influence" if ours else "none by influence: a baseline"
        said.append(f"{NAMES[name]}, of {_listed(parts)} ({by})")
    return [
        "Kinds: *ours* are by influence and forward-only, *gradients* take gradients of the "
        "training examples, *baseline* is all else. *Combined* are mean ranks: "
        f"{'; '.join(said)}."
    ]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def tally(rows: list[Row]) -> list[str]:
    """In how many of all cases the best of some methods is at or above the best of others."""
    lines = [
        f"Over all {len(rows)} cases (set, noise, share), by mean AUC to three digits: in how many "
        "the best of some methods is at or above the best of others; in how many the 95 % interval "
        "of their difference, paired by seed, is above and below zero. In brackets how many there "
        "are to pick from: the best are picked after the fact, which favours the longer list.",
        "",
        "| among methods that | the best | against the best | at or above | interval above / below "
        "0 | worst difference |",
        "|---|---|---|---|---|---|",
    ]
    for where, allowed in _POOLS.items():
        seen = []
        pool = [(name, entry) for name, entry in _entries(rows).items() if allowed(entry)]
        for label, chosen, rival in _COUNTED:
            ours = [name for name, entry in pool if chosen(name, entry)]
            others = [name for name, entry in pool if kind_of(name, entry) == rival]
            if not ours or not others or (ours, rival) in seen:
                continue
            seen.append((ours, rival))
            title = f"{label} ({len(ours)})"
            if len(ours) == 1:
                title = label if label == NAMES[ours[0]] else f"{label}: {NAMES[ours[0]]}"
            counted = _counted([_lead(row, ours, others) for row in rows])
            lines.append(f"| {where} | {title} | {rival} ({len(others)}) | {counted} |")
    for one, other in _PAIRS:
        if {one, other} <= set(_entries(rows)):
            counted = _counted([_lead(row, [one], [other]) for row in rows], named=False)
            lines.append(f"| one against one | {NAMES[one]} | {NAMES[other]} | {counted} |")
    forward = [name for name, entry in _entries(rows).items() if entry["forward_only"]]
    plain = [name for name in forward if name not in INFLUENCE and name not in PARTS]
    return [
        *lines,
        "",
        f"*By influence* are {_listed(name for name in forward if name in INFLUENCE)}. "
        "`trusted_finite_loss` is a training loss less the influence: *no loss added* leaves it "
        f"out. *Forward-only, any kind* are these, {_listed(plain)}, and the combinations: plain "
        "losses and margins are in it. What does not look at the network (KNN-Shapley, LAVA, the "
        "logistic regressions, votes) and cleanlab's ranking are baselines that it does not hold.",
    ]


def _entries(rows: list[Row]) -> Row:
    """The methods that every case has."""
    return {
        name: entry
        for name, entry in rows[0]["methods"].items()
        if all(name in row["methods"] for row in rows)
    }


def _best(row: Row, names: Iterable[str]) -> str:
    return max(names, key=lambda name: row["methods"][name]["auc"]["mean"])


def _lead(row: Row, ours: list[str], others: list[str]) -> tuple[float, int, str, str]:
    """Lead of one best over the other to three digits, the side of its interval; case, names."""
    best, other = _best(row, ours), _best(row, others)
    one, two = (row["methods"][name] for name in (best, other))
    lead = round(round(one["auc"]["mean"], 3) - round(two["auc"]["mean"], 3), 3)
    low, high = _paired(one, two)[1:]
    case = f"{row['set']}, {row['kind']}, {row['rate']:.0%}"
    return lead, (low > 0) - (high < 0), case, f": {NAMES[best]} against {NAMES[other]}"


def _counted(leads: list[tuple[float, int, str, str]], named: bool = True) -> str:
    lead, _, case, names = min(leads, key=lambda lead: lead[0])
    sides = [side for _, side, *_ in leads]
    return (
        f"{sum(each[0] >= 0 for each in leads)} of {len(leads)} | "
        f"{sides.count(1)} / {sides.count(-1)} | {lead:+.3f} ({case}{names if named else ''})"
    )


def _lag_lines(rows: list[Row], where: str, pool: list[str]) -> list[str]:
    """How far each method is behind the best on a case: what choosing it always would cost."""
    groups = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        for is_few in (True, False):
            part = [row for row in rows if row["kind"] == kind and (row["rate"] < 0.1) == is_few]
            if part:
                shares = " and ".join(f"{r:.0%}" for r in sorted({row["rate"] for row in part}))
                groups[f"{kind}, {shares}"] = part
    groups["all"] = rows
    mean = lambda row, name: row["methods"][name]["auc"]["mean"]
    lags = {
        name: [
            [max(mean(row, other) for other in pool) - mean(row, name) for row in part]
            for part in groups.values()
        ]
        for name in pool
        if name in SHOWN
    }
    lines = [
        f"What always choosing one method costs {where}: AUC behind the best of {len(pool)} "
        "methods on each case, mean (worst) over the sets and shares.",
        "",
        f"| method | kind | {' | '.join(groups)} |",
        "|---" * (2 + len(groups)) + "|",
    ]
    least = [min(np.mean(each[i]) for each in lags.values()) for i in range(len(groups))]
    for name in sorted(lags, key=lambda name: np.mean(lags[name][-1])):
        texts = [f"{np.mean(lag):.3f} ({max(lag):.3f})" for lag in lags[name]]
        cells = [
            f"**{text}**" if np.mean(lag) == low else text
            for text, lag, low in zip(texts, lags[name], least, strict=True)
        ]
        kind = _kind_cell(name, _entries(rows)[name])
        lines.append(f"| {NAMES[name]} | {kind} | {' | '.join(cells)} |")
    return [*lines, ""]


def verdict(row: Row) -> str:
    """The best of each kind of method under one noise, paired by seed where they are compared."""
    named: dict[tuple[str, bool], list[str]] = {}
    for name, entry in row["methods"].items():
        named.setdefault((kind_of(name, entry), bool(entry["trusted"])), []).append(name)
    best = {key: _best(row, names) for key, names in named.items()}
    auc = lambda name: row["methods"][name]["auc"]["mean"]
    lead = lambda name, other: _difference(row["methods"][name], row["methods"][other])
    head = f"**{row['set']}, {row['kind']}, {row['rate']:.0%}**: "
    said = []
    for trusted, where in ((True, "with a trusted set"), (False, "without")):
        ours = best.get(("ours", trusted))
        if ours is None:
            continue
        against = [
            f"{what} {NAMES[other]} ({lead(ours, other)})"
            for kind, what in (
                ("gradients", "the best gradient method"),
                ("baseline", "the best baseline"),
            )
            if (other := best.get((kind, trusted)))
        ]
        said.append(
            f"{where}, ours is {NAMES[ours]}, {auc(ours):.3f}, against " + " and ".join(against)
        )
    return head + "; ".join(said) + "."


def _difference(ours: Row, other: Row) -> str:
    mean, low, high = _paired(ours, other)
    return f"{mean:+.3f}" if low == -np.inf else f"{mean:+.3f}, {low:+.3f} to {high:+.3f}"


def _paired(ours: Row, other: Row) -> tuple[float, float, float]:
    """Mean difference of AUC by seed and its 95 % interval; without bounds for one seed."""
    from jaxinf.evaluation import mean_interval

    differences = np.subtract(ours["auc"]["raw"], other["auc"]["raw"])
    if len(differences) < 2:
        return float(differences.mean()), -np.inf, np.inf
    interval = mean_interval(differences)
    return interval.estimate, interval.low, interval.high


def _kind_cell(name: str, entry: Row) -> str:
    return kind_of(name, entry) + (", combined" if name in PARTS else "")


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
            f"| {NAMES[name]} | {_kind_cell(name, entry)} | "
            f"{'yes' if entry['trusted'] else 'no'} | {' | '.join(cells)} |"
        )
    return lines


def _gain_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "Test accuracy, in points above doing nothing: flagged rows (as many as are wrong) "
        "removed / relabelled; means ± the half-width of the 95 % interval.",
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
