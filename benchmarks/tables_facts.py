"""The tables of `benchmarks.facts` and `benchmarks.facts_explore`, and what their numbers say."""

from collections import defaultdict
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
        f"{mean('fitted'):.2f} nats per token.",
        "",
        "| method | looks at | MRR | recall@10 |",
        "|---|---|---|---|",
    ]
    for row in results["methods"]:
        lines.append(
            f"| {row['method']} | {_KINDS[row['kind']]} | {_interval(row['mrr'])} | "
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


def facts_explore_table(document: dict[str, Any]) -> str:
    """Of every method the best of its settings by MRR, on the development part."""
    found: dict[tuple[str, str, str, bool], list[Any]] = defaultdict(list)
    seeds = set()
    for row in document["results"]:
        if "method" in row:
            found[row["method"], row["side"], row["by"], row["centred"]].append(row["figures"])
            seeds.add(row["seed"])
    whole = {key: rows for key, rows in found.items() if len(rows) == len(seeds)}
    best: dict[str, tuple[float, float, Any]] = {}
    for key, rows in whole.items():
        mrr, recall = (sum(row[i] for row in rows) / len(rows) for i in range(2))
        best[key[0]] = max(best.get(key[0], (0.0, 0.0, key)), (mrr, recall, key))
    lines = [
        f"Development part, {len(seeds)} seeds, {document['settings']['epochs']} epochs: of each "
        "method the setting with the highest MRR.",
        "",
        "| method | training loss of | divided by | centred | MRR | recall@10 |",
        "|---|---|---|---|---|---|",
    ]
    for name, (mrr, recall, (_, side, by, centred)) in sorted(
        best.items(), key=lambda item: -item[1][0]
    ):
        lines.append(
            f"| {name} | {side} | {by or '–'} | {'yes' if centred else 'no'} | {mrr:.3f} | "
            f"{recall:.3f} |"
        )
    return "\n".join(lines)


def _interval(entry: dict[str, Any]) -> str:
    # Student's interval knows nothing of the ends of the scale
    low, high = max(entry["low"], 0.0), min(entry["high"], 1.0)
    return f"{entry['estimate']:.3f} ({low:.3f}–{high:.3f})"


def _signed(entry: dict[str, Any]) -> str:
    return f"{entry['estimate']:+.3f} ({entry['low']:+.3f} to {entry['high']:+.3f})"
