"""The tables of `benchmarks.diffusion`, and what their numbers say."""

import itertools
from dataclasses import asdict
from typing import Any

import numpy as np

from jaxinf.evaluation import mean_interval

_KINDS = {"trivial": "trivial", "gradient": "gradients", "ours": "ours", "both models": "no query"}


def diffusion_table(document: dict[str, Any]) -> str:
    """A table per strength and mean of ln σ, best mean average precision first."""
    settings, rows = document["settings"], document["results"]["methods"]
    chance = min(1.0, 10 / settings["candidates"])
    means = sorted({row["p_mean"] for row in rows if row["p_mean"] is not None})
    lines = [
        f"{settings['size']} x {settings['size']} pixels; {settings['exemplars']} exemplars among "
        f"{settings['candidates']:,} candidates of their class, {settings['images']} generated "
        f"images each; {settings['draws']} draws; means with 95 % intervals over the models. "
        f"Chance: recall@10 {chance:.3f}. Base model: {settings['parameters']:,} parameters, "
        f"{settings['base_steps']:,} steps; {settings['device']}.",
    ]
    if settings.get("unrelated"):
        lines.insert(
            0,
            "**Control.** The images asked about are others of the base model, which no exemplar "
            "is behind: what a method finds here it finds whatever the image shows.\n",
        )
    for strength, mean in itertools.product(settings["strengths"], means):
        of_both = [row for row in rows if (row["strength"], row["p_mean"]) == (strength, mean)]
        if of_both:
            # what knows of no noise levels stands beside all of them
            known = lambda row, s=strength, m=mean: (
                row["strength"] == s and row["p_mean"] in (None, m)
            )
            raw = [row for row in document["results"]["rows"] if known(row)]
            sets = len({row["set"] for row in raw if row["p_mean"] is not None})
            shown = [row for row in rows if known(row)]
            head = (
                f"**Tuned for {strength} steps**, {sets} customised models; ln σ around {mean:g}."
            )
            lines += ["", head, "", *_table(shown), "", verdict(shown, chance)]
            if not settings.get("unrelated") and sets > 1:
                lines += ["", *paired(raw)]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| method | kind | weights | recall@10 | mAP | recall@10, contrast | mAP, contrast | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    most = lambda row: max(row["map"]["estimate"], row["map_contrast"]["estimate"])
    for row in sorted(rows, key=lambda row: -most(row)):
        cells = [row["method"], _KINDS[row["kind"]], row["at"]]
        figures = ("recall10", "map", "recall10_contrast", "map_contrast")
        cells += [_interval(row[name]) for name in figures]
        cells.append(f"{row['seconds']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdict(rows: list[dict[str, Any]], chance: float) -> str:
    """The best of each kind by mean average precision, raw or as a contrast."""
    best = {}
    for kind in _KINDS:
        members = [
            (row[figure]["estimate"], row, figure)
            for row in rows
            if row["kind"] == kind
            for figure in ("map", "map_contrast")
        ]
        if members:
            best[kind] = max(members, key=lambda member: member[0])
    said = []
    for kind, (value, row, figure) in best.items():
        suffix = " as a contrast" if figure == "map_contrast" else ""
        recall = row[figure.replace("map", "recall10")]["estimate"]
        said.append(
            f"{_KINDS[kind]}: {row['method']} ({row['at']}){suffix}, mAP {value:.3f}, recall@10 "
            f"{recall:.3f}, {recall / chance:.0f} times chance"
        )
    return "Best of each kind. " + "; ".join(said) + "."


def paired(raw: list[dict[str, Any]]) -> list[str]:
    """Our best by mAP less the best of every other group, set by set."""
    by_name: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in raw:
        by_name.setdefault((row["kind"], row["method"], row["at"]), []).append(row)
    sides = {(*name, side): rows for name, rows in by_name.items() for side in ("", "_contrast")}
    mean = lambda key: float(np.mean([row[f"map{key[3]}"] for row in sides[key]]))
    groups = {
        "ours": lambda key: key[0] == "ours",
        "pixels": lambda key: key[1].startswith("pixels"),
        "features": lambda key: key[1].endswith("features"),
        "gradients": lambda key: key[0] == "gradient",
    }
    best = {
        group: max(filter(belongs, sides), key=mean)
        for group, belongs in groups.items()
        if any(map(belongs, sides))
    }
    if "ours" not in best:
        return []
    said = lambda key: f"{key[1]}, {key[2]}{key[3].replace('_', ', ')}"
    lines = [
        f"The best of ours by mAP ({said(best['ours'])}) less the best of the others, paired by "
        "model:",
        "",
        "| less | recall@10 | mAP |",
        "|---|---|---|",
    ]
    for group in list(best)[1:]:
        cells = [f"{group}: {said(best[group])}"]
        for figure in ("recall10", "map"):
            values = [
                {row["set"]: row[figure + best[side][3]] for row in sides[best[side]]}
                for side in ("ours", group)
            ]
            less = [values[0][number] - values[1][number] for number in values[0]]
            cells.append(_signed(asdict(mean_interval(less))))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def development_table(document: dict[str, Any]) -> str:
    """Mean average precision of what the settings were chosen from, a column per mean of ln σ."""
    settings, rows = document["settings"], document["results"]["methods"]
    means = sorted({row["p_mean"] for row in rows if row["p_mean"] is not None})
    found: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    for row in rows:
        for ranked, figure in (("image", "map"), ("contrast", "map_contrast")):
            if row["p_mean"] is not None:
                of_method = found.setdefault((row["method"], row["at"], ranked), {})
                of_method.setdefault(row["p_mean"], []).append(row[figure]["estimate"])
    best = {
        key: max(sum(values) / len(values) for values in of_method.values())
        for key, of_method in found.items()
    }
    sets = len({row["set"] for row in document["results"]["rows"]})
    strengths = ", ".join(map(str, settings["strengths"]))
    lines = [
        f"mAP on {sets} development models tuned for {strengths} steps, by the mean of ln σ of the "
        f"draws, of the image's scores or of the contrast with the base's; {settings['size']} x "
        f"{settings['size']} pixels, {settings['device']}.",
        "",
        f"| method | weights | scores | {' | '.join(f'{mean:g}' for mean in means)} |",
        "|---" * (3 + len(means)) + "|",
    ]
    for key in sorted(found, key=lambda key: -best[key]):
        cells = [
            f"{sum(values) / len(values):.3f}" if (values := found[key].get(mean)) else "–"
            for mean in means
        ]
        lines.append(f"| {' | '.join(key)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def less_control_table(document: dict[str, Any]) -> str:
    """Report, control and difference of every method, and who is ahead by the difference."""
    rows = sorted(document["results"], key=lambda row: (row["p_mean"], -row["less"]["estimate"]))
    lines = [
        "mAP of the contrast at the tuned weights, of images that the exemplars are behind and of "
        "others, and the difference, paired by model, with a 95 % interval:",
        "",
        "| ln σ around | method | kind | models | of their images | of others | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['p_mean']:g} | {row['method']} | {_KINDS[row['kind']]} | {len(row['sets'])} | "
        f"{row['report']:.3f} | {row['control']:.3f} | {_signed(row['less'])} |"
        for row in rows
        if row["kind"] in ("ours", "gradient")
    ]
    lines.append("")
    best = {
        (mean, kind): max(
            (row for row in rows if (row["p_mean"], row["kind"]) == (mean, kind)),
            key=lambda row: row["less"]["estimate"],
        )
        for mean, kind in sorted({(row["p_mean"], row["kind"]) for row in rows})
        if kind in ("ours", "gradient")
    }
    first = max(
        (row for (_, kind), row in best.items() if kind == "ours"),
        key=lambda row: row["less"]["estimate"],
    )
    name = lambda row: f"{row['method']} at {row['p_mean']:g}"
    for row in best.values():
        if row is not first and row["sets"] == first["sets"]:
            gaps = [a - b for a, b in zip(first["raw"], row["raw"], strict=True)]
            gap = asdict(mean_interval(gaps))
            lines.append(f"- {name(first)} less {name(row)}: {_signed(gap)}")
    return "\n".join(lines)


def _signed(entry: dict[str, Any]) -> str:
    return f"{entry['estimate']:+.3f} ({entry['low']:+.3f} to {entry['high']:+.3f})"


def draws_table(document: dict[str, Any]) -> str:
    """Agreement of scores from different draws, by their number and how they are shared."""
    rows = document["results"]
    counts = sorted({row["draws"] for row in rows})
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = [
        "Spearman's correlation of two measurements of the same 200 scores, with a 95 % interval "
        f"over {document['settings']['queries']} queries; {document['settings']['device']}.",
        "",
        f"| draws | {' | '.join(ways)} |",
        "|---" * (1 + len(ways)) + "|",
    ]
    for count in counts:
        cells = [
            # Student's interval knows nothing of the ends of the scale
            f"{row['estimate']:.3f} ({max(row['low'], -1):.3f}–{min(row['high'], 1):.3f})"
            for way in ways
            for row in rows
            if (row["way"], row["draws"]) == (way, count)
        ]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(entry: dict[str, Any]) -> str:
    if "low" not in entry:
        return f"{entry['estimate']:.3f}"
    # Student's interval knows nothing of the ends of the scale
    low, high = max(entry["low"], 0.0), min(entry["high"], 1.0)
    return f"{entry['estimate']:.3f} ({low:.3f}–{high:.3f})"
