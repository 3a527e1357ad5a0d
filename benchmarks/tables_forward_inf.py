"""The table of `benchmarks.forward_inf`."""

from collections.abc import Callable
from typing import Any

PEERS = ("torch_released", "torch_tuned")
# per example and query; the original model's losses are computed once for all queries, or each time
FORWARD_PASSES: dict[str, Callable[[int], float]] = {
    "torch_released": lambda k: 2.0,
    "torch_tuned": lambda k: 1 + 1 / k,
    "jaxinf": lambda k: 1 + 1 / k,
    "jaxinf_one_device": lambda k: 1 + 1 / k,
}


def forward_inf_table(document: dict[str, Any]) -> str:
    """One row per model, K and contender; how jaxinf does against PyTorch is said below it."""
    results = document["results"]
    lines = [
        f"**{document['settings']['device']}**, seconds per training example and query: median of "
        f"{document['settings']['repeats']} alternating repetitions (least to largest).",
        "",
        "| model | K | contender | µs per example·query | against tuned PyTorch | GFLOP/s (of its "
        "large product) | compile, s | peak memory, MiB | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        pair = row["seconds_per_pair"]
        peer = find(results, row, "torch_tuned")
        memory = row["device_peak_bytes"] or row["peak_bytes"]
        lines.append(
            f"| {row['model']} | {row['queries']} | {row['contender']} "
            f"| {pair['median'] * 1e6:.4g} ({pair['min'] * 1e6:.4g}–{pair['max'] * 1e6:.4g}) "
            f"| {ratio(peer, row):.2f}× | {rate(row)} | {row['compile_seconds']:.1f} "
            f"| {memory / 2**20:.0f} | {row['relative_error']:.0e} |"
        )
    lines += ["", *verdicts(results), "", _settings_line(results)]
    return "\n".join(lines)


def rate(row: dict[str, Any]) -> str:
    """FLOP/s of the forward passes that a finite step takes, and their share of a large product."""
    if row["contender"] not in FORWARD_PASSES or "forward_flops_per_row" not in row:
        return ""
    passes = FORWARD_PASSES[row["contender"]](row["queries"])
    flops = passes * row["forward_flops_per_row"] / row["seconds_per_pair"]["median"]
    return f"{flops / 1e9:.0f} ({flops / row['product_flops']:.0%})"


def find(results: list[dict[str, Any]], like: dict[str, Any], contender: str) -> dict[str, Any]:
    """The row of another contender for the same model and K."""
    return next(
        row
        for row in results
        if (row["model"], row["queries"], row["contender"])
        == (like["model"], like["queries"], contender)
    )


def ratio(peer: dict[str, Any], row: dict[str, Any]) -> float:
    """How many times as fast as the peer: above 1 is faster."""
    return peer["seconds_per_pair"]["median"] / row["seconds_per_pair"]["median"]


def verdicts(results: list[dict[str, Any]]) -> list[str]:
    """One line per model: faster, slower or alike, from the numbers."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in results):
        parts = []
        for row in results:
            if row["model"] != model or row["contender"] != "jaxinf":
                continue
            ratios = [ratio(find(results, row, peer), row) for peer in PEERS]
            tuned = find(results, row, "torch_tuned")["seconds_per_pair"]
            own = row["seconds_per_pair"]
            apart = own["max"] < tuned["min"] or own["min"] > tuned["max"]
            word = ("faster" if ratios[1] > 1 else "slower") if apart else "ranges overlap"
            parts.append(
                f"K = {row['queries']}: {ratios[0]:.2f}× the released loop, {ratios[1]:.2f}× the "
                f"tuned one ({word})"
            )
        lines.append(f"- {model}: " + "; ".join(parts) + ".")
    return lines


def _settings_line(results: list[dict[str, Any]]) -> str:
    chosen = dict.fromkeys(
        f"{row['model']} {row['notes']}" for row in results if row["contender"] == "torch_tuned"
    )
    return "Tuned PyTorch chose: " + "; ".join(chosen) + "."
