"""The table of `benchmarks.memory`."""

import statistics
from typing import Any


def memory_table(document: dict[str, Any]) -> str:
    """Peak memory per run, and how much more many examples take than few."""
    settings = document["settings"]
    runs: dict[tuple[int, int | None], list[dict[str, Any]]] = {}
    for row in document["results"]:
        runs.setdefault((row["rows"], row["top_k"]), []).append(row)
    lines = [
        f"**{settings['device']}**, {settings['queries']} queries, batches of "
        f"{settings['batch_size']}; median of {settings['repeats']} run(s), each its own process.",
        "",
        "| examples | kept | peak memory, MiB | kept scores, MiB | seconds |",
        "|---|---|---|---|---|",
    ]
    peaks = {}
    for (rows, top_k), found in runs.items():
        peaks[rows, top_k] = statistics.median(row["peak_bytes"] for row in found) / 2**20
        seconds = statistics.median(row["seconds"] for row in found)
        kept = "all scores" if top_k is None else f"top {top_k}"
        lines.append(
            f"| {rows:,} | {kept} | {peaks[rows, top_k]:.0f} "
            f"| {found[0]['kept_bytes'] / 2**20:.2f} | {seconds:.1f} |"
        )
    (few, top_k), (many, _), whole = list(peaks)
    growth = peaks[many, top_k] - peaks[few, top_k]
    lines += [
        "",
        f"{many // few} times the examples take {growth:+.0f} MiB with top {top_k}, "
        f"{peaks[whole] - peaks[few, top_k]:+.0f} MiB with all scores.",
    ]
    return "\n".join(lines)
