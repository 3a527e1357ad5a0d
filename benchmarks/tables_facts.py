"""The table of `benchmarks.facts`."""

from typing import Any

_KINDS = {
    "lexical": "words alone",
    "representation": "hidden states",
    "gradient": "gradients of training sentences",
    "forward": "forward passes of training sentences",
    "combined": "combined with BM25",
}


def facts_table(document: dict[str, Any]) -> str:
    """MRR and recall at 10 with intervals, BM25 first, and how the methods compare."""
    settings, results = document["settings"], document["results"]
    about, size = results["subjects"], settings["size"]
    mean = lambda key: sum(one[key] for one in about) / len(about)
    lines = [
        f"{len(about)} seeds, means with 95 % intervals over seeds; {mean('sentences'):.0f} "
        f"training sentences of {size['facts']} facts, {mean('queries'):.0f} questions per seed, "
        f"{100 * mean('several'):.0f} % of them about subjects with several facts. The model has "
        f"{mean('parameters') / 1e6:.1f} million parameters; it answers "
        f"{100 * mean('right'):.0f} % of all questions right, and those are asked. Mean loss "
        f"{mean('fitted'):.2f} nats per token. Seeds by machine: {_machines(about)}.",
        "",
        "| method | looks at | MRR | recall@10 |",
        "|---|---|---|---|",
    ]
    for row in shown(document):
        fewer = "" if row["seeds"] == len(about) else f" ({row['seeds']} of the seeds)"
        lines.append(
            f"| {row['method']}{fewer} | {_KINDS[row['kind']]} | {_interval(row['mrr'])} | "
            f"{_interval(row['recall'])} |"
        )
    lines += [
        "",
        "| difference, paired by seed | MRR | recall@10 |",
        "|---|---|---|",
    ]
    for row in results["differences"]:
        fewer = "" if row.get("seeds", len(about)) == len(about) else f" ({row['seeds']} seeds)"
        if row.get("is_new"):
            fewer = f" (the {row['seeds']} seeds first looked at after the choice)"
        lines.append(
            f"| {row['better']} − {row['than']}{fewer} | {_signed(row['mrr'])} | "
            f"{_signed(row['recall'])} |"
        )
    return "\n".join([*lines, "", *_combined(results)])


def _combined(results: dict[str, Any]) -> list[str]:
    """What every way to combine with BM25 changes, in the seeds that have it."""
    methods, per_seed = results["methods"], results["per_seed"]
    alone = next(row["method"] for row in methods if row["kind"] == "lexical")
    names = [row["method"] for row in methods if row["kind"] == "combined"]
    split = {name: name.removeprefix("BM25 + ").rpartition(", ")[::2] for name in names}
    ways = list(dict.fromkeys(way for _, way in split.values()))
    lines = [
        "Every way to combine that was run, less BM25 alone, MRR / recall@10 in hundredths, paired "
        "by seed: rank fusion or a sum of z-scores, by the method's weight beside 1 for BM25.",
        "",
        f"| with | {' | '.join(ways)} |",
        "|---" * (1 + len(ways)) + "|",
    ]
    for method in dict.fromkeys(method for method, _ in split.values()):
        cells = []
        for way in ways:
            name = f"BM25 + {method}, {way}"
            less = [
                [100 * (found[name][i] - found[alone][i]) for i in (0, 1)]
                for found in per_seed
                if name in found
            ]
            mrr, recall = (sum(column) / len(less) for column in zip(*less, strict=True))
            cells.append(f"{mrr:+.1f} / {recall:+.1f}")
        fewer = len(less) < len(per_seed)
        lines.append(f"| {method}{f' ({len(less)} seeds)' * fewer} | {' | '.join(cells)} |")
    return lines


def _machines(about: list[dict[str, Any]]) -> str:
    devices: dict[str, list[str]] = {}
    for one in about:
        devices.setdefault(one.get("device", "unknown"), []).append(str(one["seed"]))
    return "; ".join(f"{device}: {', '.join(seeds)}" for device, seeds in devices.items())


def shown(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table and the figure: of the ways to combine, the one that was chosen."""
    chosen = document["settings"]["fusion"]
    return [
        row
        for row in document["results"]["methods"]
        if row["kind"] != "combined" or row["method"].endswith(chosen)
    ]


def _interval(entry: dict[str, Any]) -> str:
    # Student's interval knows nothing of the ends of the scale
    low, high = max(entry["low"], 0.0), min(entry["high"], 1.0)
    return f"{entry['estimate']:.3f} ({low:.3f}–{high:.3f})"


def _signed(entry: dict[str, Any]) -> str:
    return f"{entry['estimate']:+.3f} ({entry['low']:+.3f} to {entry['high']:+.3f})"
