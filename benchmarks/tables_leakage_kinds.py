"""The tables of `benchmarks.leakage_kinds`, and what their numbers say."""

from typing import Any

FAMILIES = {
    "trivial": "trivial",
    "gradients": "gradients",
    "forward": "forward-only",
    "whitened gradients": "gradients",
}
NAMES = {
    "digits": "Digits, a small BatchNorm network",
    "resnet18": "CIFAR-10, ResNet-18 trained here",
    "resnet20": "CIFAR-10, published ResNet-20",
    "resnet56": "CIFAR-10, published ResNet-56",
}


def leakage_kinds_table(document: dict[str, Any]) -> str:
    """For each subject: is the source found, is a leak told from a clean query, who is ahead."""
    return "\n\n".join(_subject(document, found) for found in document["results"])


def _subject(document: dict[str, Any], found: dict[str, Any]) -> str:
    settings = document["settings"]
    kinds, sizes = settings["kinds"], settings["sizes"][found["subject"]]
    fits = found["fit"]
    mean = lambda key: sum(fit[key] for fit in fits) / len(fits)
    by = lambda key: lambda row: (row["family"] != "trivial", -row[key]["all"]["estimate"])
    methods = sorted(found["methods"], key=by("top1"))
    head = (
        f"**{NAMES[found['subject']]}** ({settings['device']}). {sizes['train']:,} training "
        f"examples, {sizes['copies']} copies of each kind, {len(fits)} draws; training accuracy "
        f"{mean('train_accuracy'):.3f}, test accuracy {mean('test_accuracy'):.3f}. Source on top, "
        "by kind; all kinds with 95 % interval, and among the five on top:"
    )
    lines = [head, "", f"| method | training side | {' | '.join(kinds)} | all | all, top-5 |"]
    lines.append("|---|---|" + "---|" * (len(kinds) + 2))
    for row in methods:
        cells = [f"{row['top1'][kind]['estimate']:.2f}" for kind in kinds]
        cells += [_interval(row["top1"]["all"]), f"{row['top5']['all']['estimate']:.2f}"]
        mark = "" if row["ranking"] == "signed" else " ±"
        mark += _draws(row["seeds"], len(fits))
        lines.append(f"| {row['method']}{mark} | {FAMILIES[row['family']]} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Told from clean queries: AUROC by kind, and power at {settings['fdr']:.0%} FDR (share of "
        "the leaks that is called) with the false share of what was called:",
        "",
        f"| method | statistic | {' | '.join(kinds)} | all | power, exact | power, all | false |",
        "|---|---|" + "---|" * (len(kinds) + 4),
    ]
    decided = [row for row in methods if "auroc" in row]
    for row in sorted(decided, key=by("auroc")):
        cells = [f"{row['auroc'][kind]['estimate']:.2f}" for kind in kinds]
        cells += [
            _interval(row["auroc"]["all"]),
            f"{row['power']['exact']['estimate']:.2f}",
            _interval(row["power"]["all"]),
            f"{row['false']['estimate']:.2f}",
        ]
        name = row["method"] + _draws(row.get("judged", row["seeds"]), len(fits))
        lines.append(f"| {name} | {row['statistic']} | {' | '.join(cells)} |")
    lines += ["", _verdict(found["methods"], kinds)]
    return "\n".join(lines)


def _draws(count: int, every: int) -> str:
    """A note on how many of the draws a row is of, where it is not of all."""
    return "" if count == every else f" ({count} draw{'s' * (count > 1)})"


def _verdict(methods: list[dict[str, Any]], kinds: list[str]) -> str:
    """The forward-only method that development chose, against the others, paired by draw."""
    chosen = max(
        (row for row in methods if row["family"] == "forward"),
        key=lambda row: row["development_top1"],
    )
    said = [f"Of the forward-only methods development chose **{chosen['method']}**."]
    rivals = [("gradient", [row for row in methods if row["family"] == "gradients"])]
    # our own, with the exact norms in place of estimates
    whitened = [row for row in methods if row["family"] == "whitened gradients"]
    rivals.append(("whitened gradient", whitened))
    rivals.append(("trivial", [row for row in methods if row["family"] == "trivial"]))
    for name, group in rivals:
        if not group:
            continue
        best = max(group, key=lambda row: row["development_top1"])
        said.append(
            f"Best {name} baseline: {best['method']}, top-1 {_difference(chosen, best, 'top1')}"
            + (
                f", AUROC {_difference(chosen, best, 'auroc')}, power "
                f"{_difference(chosen, best, 'power')}."
                if "auroc" in chosen and "auroc" in best
                else "."
            )
        )
    relabelled = "relabelled"
    if relabelled in kinds:
        others = [chosen["opposed"][kind] for kind in kinds if kind != relabelled]
        said.append(
            f"Its score of the true source is negative for {chosen['opposed'][relabelled]:.0%} of "
            f"the relabelled copies and {sum(others) / len(others):.0%} of the others."
        )
    return " ".join(said)


def _difference(ours: dict[str, Any], theirs: dict[str, Any], key: str) -> str:
    """Ours minus theirs over all kinds, with the interval of the paired difference."""
    pairs = zip(ours[key]["all"]["raw"], theirs[key]["all"]["raw"], strict=False)
    gaps = [a - b for a, b in pairs]
    mean = sum(gaps) / len(gaps)
    if len(gaps) < 2:
        return f"{mean:+.3f}"
    from jaxinf.evaluation import mean_interval

    found = mean_interval(gaps)
    return f"{mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _interval(entry: dict[str, Any]) -> str:
    if "low" not in entry:
        return f"{entry['estimate']:.2f}"
    low, high = max(entry["low"], 0.0), min(entry["high"], 1.0)
    return f"{entry['estimate']:.2f} ({low:.2f}–{high:.2f})"


def leakage_development_table(document: dict[str, Any]) -> str:
    """Power of every statistic for every way to size training examples, on draws of their own."""
    settings, rows = document["settings"], document["results"]
    lines = [
        f"Digits, {len(settings['seeds'])} draws that no report has; power at 5 % FDR, mean over "
        "draws and kinds, the best statistic of each row in bold:",
        "",
    ]
    shown = [name for name in settings["statistics"] if not name.startswith("ratio")]
    shown = [name for name in shown if any(name in row["power"] for row in rows)]
    lines.append("| statistic | " + " | ".join(row["scores"] for row in rows) + " |")
    lines.append("|---|" + "---|" * len(rows))
    best = [max(row["power"][name]["estimate"] for name in shown) for row in rows]
    for name in shown:
        cells = []
        for row, top in zip(rows, best, strict=True):
            value = row["power"][name]["estimate"]
            cells.append(f"**{value:.2f}**" if value == top else f"{value:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    cells = " | ".join(_interval(row["top1"]) for row in rows)
    return "\n".join([*lines, f"| *source on top, absolute* | {cells} |"])
