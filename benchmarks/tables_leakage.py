"""The table of `benchmarks.leakage`, and what its numbers say."""

from typing import Any


def leakage_table(document: dict[str, Any]) -> str:
    """Hit rates with intervals, best first, and which methods lose to comparing pixels."""
    settings, results = document["settings"], document["results"]
    rows = sorted(results["methods"], key=lambda row: -row["top1"]["estimate"])
    fits = results["fit"]
    means = {key: sum(fit[key] for fit in fits) / len(fits) for key in fits[0]}
    lines = [
        f"**{settings['model']}**, {settings['copies']} planted copies, {settings['seeds']} seeds, "
        "means with 95 % intervals over seeds; training accuracy "
        f"{means['train_accuracy']:.3f}, mean training loss {means['train_loss']:.1e}, test "
        f"accuracy {means['test_accuracy']:.3f}.",
        "",
        "| method | top-1 | top-5 |",
        "|---|---|---|",
    ]
    for row in rows:
        name = f"*{row['method']}* (baseline)" if row["baseline"] else row["method"]
        lines.append(f"| {name} | {_interval(row['top1'])} | {_interval(row['top5'])} |")
    return "\n".join([*lines, "", verdict(rows)])


def verdict(rows: list[dict[str, Any]]) -> str:
    """Which methods are below, not told apart from and above the pixel baseline, at top-1."""
    groups: dict[str, list[str]] = {"below": [], "not told apart from": [], "above": []}
    for row in rows:
        if row["baseline"]:
            continue
        difference = row["top1_minus_pixels"]
        side = "not told apart from"
        if difference["high"] < 0:
            side = "below"
        elif difference["low"] > 0:
            side = "above"
        groups[side].append(f"{row['method']} ({difference['estimate']:+.2f})")
    sentences = [
        f"{len(names)} of {sum(map(len, groups.values()))} methods are {side} the nearest "
        f"neighbour in pixels at top-1: {', '.join(names)}."
        for side, names in groups.items()
        if names
    ]
    return (
        " ".join(sentences)
        + " (Below and above: the 95 % interval of the difference, paired by seed, leaves out 0.)"
    )


def _interval(entry: dict[str, Any]) -> str:
    # Student's interval knows nothing of the ends of the scale
    low, high = max(entry["low"], 0.0), min(entry["high"], 1.0)
    return f"{entry['estimate']:.3f} ({low:.3f}–{high:.3f})"
