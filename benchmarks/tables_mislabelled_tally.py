"""How often the best of some methods of `benchmarks.mislabelled` is above the best of others."""

from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.mislabelled_kinds import (
    INFLUENCE,
    NAMES,
    PARTS,
    SHOWN,
    Row,
    entries,
    kind_cell,
    kind_of,
    listed,
)

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
        pool = [(name, entry) for name, entry in entries(rows).items() if allowed(entry)]
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
        if {one, other} <= set(entries(rows)):
            counted = _counted([_lead(row, [one], [other]) for row in rows], named=False)
            lines.append(f"| one against one | {NAMES[one]} | {NAMES[other]} | {counted} |")
    forward = [name for name, entry in entries(rows).items() if entry["forward_only"]]
    plain = [name for name in forward if name not in INFLUENCE and name not in PARTS]
    return [
        *lines,
        "",
        f"*By influence* are {listed(name for name in forward if name in INFLUENCE)}. "
        "`trusted_finite_loss` is a training loss less the influence: *no loss added* leaves it "
        f"out. *Forward-only, any kind* are these, {listed(plain)}, and the combinations: plain "
        "losses and margins are in it. What does not look at the network (KNN-Shapley, LAVA, the "
        "logistic regressions, votes) and cleanlab's ranking are baselines that it does not hold.",
    ]


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


def lag_lines(rows: list[Row], where: str, pool: list[str]) -> list[str]:
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
        kind = kind_cell(name, entries(rows)[name])
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
