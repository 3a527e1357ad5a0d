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
        lines.append(
            f"| {row['better']} − {row['than']} | {_signed(row['mrr'])} | "
            f"{_signed(row['recall'])} |"
        )
    return "\n".join(lines)


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
