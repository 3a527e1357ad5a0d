"""The tables of `benchmarks.mislabelled`, and what their numbers say."""

from typing import Any

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
# the methods by influence and the combinations; the other forward-only ones are plain baselines
OURS = (
    "trusted_jvp",
    "trusted_jvp_cos",
    "trusted_finite",
    "trusted_finite_loss",
    "trusted_preconditioned",
    "trusted_early_ensemble",
    "trusted_consensus",
    "self_jvp",
    "consensus",
)


def kind_of(name: str, entry: dict[str, Any]) -> str:
    """Whether a method is ours and forward-only, a gradient baseline, or a trivial one."""
    if name in OURS:
        return "ours"
    return "gradients" if entry["forward_only"] is False else "baseline"


def mislabelled_table(document: dict[str, Any]) -> str:
    """AUC and detection of every method, verdicts, other rates, gains, and estimated rates."""
    rows = document["results"]
    at = [row for row in rows if row["rate"] == _RATE]
    others = [row for row in rows if row["rate"] != _RATE]
    seeds = document["settings"]["seeds"]
    parts = [
        f"Means over {seeds} seeds, {_RATE:.0%} of the labels wrong: area under the ROC curve.",
        "",
        *_figure_lines(at, "auc"),
        "",
        "The best of each kind, with the difference of AUC paired by seed and its 95 % interval:",
        "",
        *[f"- {verdict(row)}" for row in at],
        "",
        *tally(rows),
        "",
        "Share of the wrong labels found when as many as there are have been inspected:",
        "",
        *_figure_lines(at, "found_at_true_count"),
        "",
        "Average precision:",
        "",
        *_figure_lines(at, "average_precision", SHOWN),
        "",
        *_other_lines(others),
        *_gain_lines([row for row in rows if "gains" in row]),
        "",
        *_rate_lines(rows),
    ]
    return "\n".join(parts).rstrip()


def tally(rows: list[dict[str, Any]]) -> list[str]:
    """In how many of all cases the best of ours is at or above the best of the others."""
    lines = [f"Over all {len(rows)} cases (set, noise, share), by mean AUC to three digits:", ""]
    for trusted, where in ((True, "with a trusted set"), (False, "without")):
        for kind, what in (("gradients", "gradient method"), ("baseline", "plain baseline")):
            leads = []
            for row in rows:
                best = {"ours": 0.0, kind: 0.0}
                for name, entry in row["methods"].items():
                    if entry["trusted"] == trusted and kind_of(name, entry) in best:
                        own = kind_of(name, entry)
                        best[own] = max(best[own], round(entry["auc"]["mean"], 3))
                leads.append(best["ours"] - best[kind])
            lines.append(
                f"- {where}, the best of ours is at or above the best {what} in "
                f"{sum(lead >= 0 for lead in leads)}; least lead {min(leads):+.3f}"
            )
    return lines


def verdict(row: dict[str, Any]) -> str:
    """The best of each kind of method under one noise, paired by seed where they are compared."""
    best: dict[tuple[str, bool], tuple[str, dict[str, Any]]] = {}
    for name, entry in row["methods"].items():
        key = kind_of(name, entry), bool(entry["trusted"])
        if key not in best or entry["auc"]["mean"] > best[key][1]["auc"]["mean"]:
            best[key] = name, entry
    head = f"**{row['set']}, {row['kind']}, {row['rate']:.0%}**: "
    said = []
    for trusted, where in ((True, "with a trusted set"), (False, "without")):
        ours = best.get(("ours", trusted))
        if ours is None:
            continue
        against = [
            f"{what} {NAMES[other[0]]} ({_difference(ours[1], other[1])})"
            for kind, what in (("gradients", "the best gradient method"), ("baseline", "baseline"))
            if (other := best.get((kind, trusted)))
        ]
        said.append(
            f"{where}, ours is {NAMES[ours[0]]}, {ours[1]['auc']['mean']:.3f}, against "
            + " and ".join(against)
        )
    return head + "; ".join(said) + "."


def _difference(ours: dict[str, Any], other: dict[str, Any]) -> str:
    from jaxinf.evaluation import mean_interval

    pairs = zip(ours["auc"]["raw"], other["auc"]["raw"], strict=True)
    differences = [a - b for a, b in pairs]
    mean = sum(differences) / len(differences)
    if len(differences) < 2:
        return f"{mean:+.3f}"
    interval = mean_interval(differences)
    return f"{mean:+.3f}, {interval.low:+.3f} to {interval.high:+.3f}"


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
            text = "–" if entry is None else f"{entry[figure]['mean']:.3f}"
            cells.append(f"**{text}**" if entry and entry[figure]["mean"] == top else text)
        entry = names[name]
        lines.append(
            f"| {NAMES[name]} | {kind_of(name, entry)} | {'yes' if entry['trusted'] else 'no'} | "
            f"{' | '.join(cells)} |"
        )
    return lines


def _other_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "Other shares of wrong labels, AUC:",
        "",
        f"| set | noise | wrong | {' | '.join(NAMES[name] for name in SHOWN)} |",
        "|---" * (3 + len(SHOWN)) + "|",
    ]
    for row in sorted(rows, key=lambda row: (row["set"], row["kind"], row["rate"])):
        means = [row["methods"][name]["auc"]["mean"] for name in SHOWN]
        cells = [f"**{m:.3f}**" if m == max(means) else f"{m:.3f}" for m in means]
        lines.append(f"| {row['set']} | {row['kind']} | {row['rate']:.0%} | {' | '.join(cells)} |")
    return [*lines, ""]


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
                cells.append(f"accuracy {entry['removed']['mean']:.3f}")
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
            f"{rates[key]['mean']:.1%}"
            for key in ("true", "confident_joint", "mixture", "suggestion_right")
        )
        lines.append(f"| {row['set']} | {row['kind']} | {shown} |")
    return lines
