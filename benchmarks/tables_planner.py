"""The table of `benchmarks.planner`."""

import statistics
from typing import Any


def planner_table(document: dict[str, Any]) -> str:
    """Each scorer measured beside what was predicted of it; the planner's choice in bold."""
    settings = document["settings"]
    lines = [
        f"**{settings['device']}**; scratch memory allowed: "
        f"{settings['memory_budget'] / 2**20:.0f} MiB. Measured (predicted); the choice in bold.",
        "",
        "| model | K | scorer | forward passes per example | µs per example | scratch, MiB "
        "| difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["results"]:
        name = f"**{row['scorer']}**" if row["chosen"] else row["scorer"]
        lines.append(
            f"| {row['model']} | {row['num_queries']} | {name} "
            f"| {row['forward_passes']:.2f} ({row['predicted_forward_passes']:.2f}) "
            f"| {row['seconds'] * 1e6:.3g} ({row['predicted_seconds'] * 1e6:.3g}) "
            f"| {row['temp_bytes'] / 2**20:.1f} ({row['predicted_temp_bytes'] / 2**20:.1f}) "
            f"| {row['difference']:.0e} |"
        )
    return "\n".join([*lines, "", *_summary(document["results"])])


def _summary(results: list[dict[str, Any]]) -> list[str]:
    lines = []
    for model in dict.fromkeys(row["model"] for row in results):
        rows = [row for row in results if row["model"] == model]
        most = max(row["num_queries"] for row in rows)
        chosen = next(row for row in rows if row["chosen"] and row["num_queries"] == most)
        at_k = [row for row in rows if row["num_queries"] == most]
        fastest = min(at_k, key=lambda row: row["seconds"])
        lines.append(
            f"- {model}, K = {most}: the planner's route takes {chosen['forward_passes']:.2f} "
            f"forward passes per example and {chosen['temp_bytes'] / 2**20:.0f} MiB; the fastest "
            f"measured is {fastest['scorer']}."
        )
    return [*lines, *_held_to_account(results)]


def _held_to_account(results: list[dict[str, Any]]) -> list[str]:
    """What the choices cost, and how far the predicted seconds were off."""
    cases: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in results:
        cases.setdefault((row["model"], row["num_queries"]), []).append(row)
    chosen = {case: next(row for row in rows if row["chosen"]) for case, rows in cases.items()}
    lost = {
        case: chosen[case]["seconds"] / min(row["seconds"] for row in rows if row["fits"])
        for case, rows in cases.items()
    }
    worst, worst_k = max(lost, key=lambda case: lost[case])
    off = lambda rows: sorted(row["seconds"] / row["predicted_seconds"] for row in rows)
    every, best = off(results), off(chosen.values())
    return [
        f"- The choice takes {statistics.median(lost.values()):.2f} times as long as the fastest "
        f"measured (median of {len(lost)} cases; at most {lost[worst, worst_k]:.2f}: {worst}, "
        f"K = {worst_k}).",
        f"- Measured over predicted time: of the choices {best[0]:.2g} to {best[-1]:.2g}, median "
        f"{statistics.median(best):.2g}; of all rows {every[0]:.2g} to {every[-1]:.2g}, median "
        f"{statistics.median(every):.2g}.",
    ]
