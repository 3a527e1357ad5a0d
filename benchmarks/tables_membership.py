"""The tables of `benchmarks.membership` and `benchmarks.clip`."""

from typing import Any


def membership_table(document: dict[str, Any]) -> str:
    """AUC and TPR of attacks and controls per set, and how the AUC falls with size."""
    results, seeds = document["results"], document["settings"]["seeds"]
    parts = [
        f"Means over {seeds} training seeds, each with a deal of its own; ± half the 95 % "
        "interval of the mean."
    ]
    for one in results["sets"]:
        chosen = one["chosen"]
        parts += [
            "",
            f"**{one['set']}**, {one['members']:,} members asked for; chosen on a model of its "
            f"own: w = {chosen['weight']:g} on {', '.join(chosen['transformations'])}; "
            f"λ = {chosen['threshold_std']:g}.",
            "",
            *_grid(one["rows"]),
            "",
            _verdict(one["rows"]),
        ]
    if results["growth"]:
        parts += ["", *_growth(results["growth"])]
    return "\n".join(parts)


def _grid(rows: list[dict[str, Any]]) -> list[str]:
    epochs = list(dict.fromkeys(row["epochs"] for row in rows))
    heads = [f"AUC, {n} epochs | TPR at 1 % FPR" for n in epochs]
    lines = ["| score | " + " | ".join(heads) + " |", "|---" * (2 * len(epochs) + 1) + "|"]
    found = {(row["score"], row["epochs"]): row for row in rows}
    for score in dict.fromkeys(row["score"] for row in rows):
        cells = []
        for number in epochs:
            row = found.get((score, number))
            cells += ["", ""] if row is None else [_show(row["auc"]), _show(row["tpr"])]
        blind = any(row["score"] == score and row["role"] == "control" for row in rows)
        lines.append(f"| {score}{' (blind)' if blind else ''} | " + " | ".join(cells) + " |")
    return lines


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Which attack gains on CSA, seed by seed, and whether a control is off chance."""
    said = []
    epochs = list(dict.fromkeys(row["epochs"] for row in rows))
    found = {(row["score"], row["epochs"]): row["auc"]["raw"] for row in rows}
    for number in epochs:
        plain = found["CSA", number]
        for score in ("AEA", "WSA"):
            other = found.get((score, number))
            if other is not None and len(other) == len(plain):
                gains = [a - b for a, b in zip(other, plain, strict=True)]
                mean = sum(gains) / len(gains)
                ahead = sum(gain > 0 for gain in gains)
                said.append(
                    f"{score} {mean:+.3f} at {number} epochs (ahead on {ahead} of {len(gains)})"
                )
    off = [
        f"{row['score']} at {row['epochs']} epochs"
        for row in rows
        if row["role"] == "control"
        and "interval" in row["auc"]
        and not row["auc"]["interval"][0] <= 0.5 <= row["auc"]["interval"][1]
    ]
    return (
        f"AUC against CSA's: {'; '.join(said) or 'nothing to compare'}. Blind controls off chance: "
        f"{', '.join(off) or 'none'}."
    )


def _growth(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"**As the training set grows** (digit scenes, {rows[0]['epochs']} epochs, CSA)",
        "",
        "| members | AUC | gap of mean similarity |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['members']:,} | {_show(row['auc'])} | {_show(row['gap'], '.4f')} |" for row in rows
    ]
    return lines


def _show(entry: dict[str, Any] | None, style: str = ".3f") -> str:
    if entry is None:
        return "–"
    text = format(entry["mean"], style)
    if "interval" in entry:
        text += f" ± {format((entry['interval'][1] - entry['interval'][0]) / 2, style)}"
    return text


def clip_table(document: dict[str, Any]) -> str:
    """Pairs per second of every contender, and what share of the device that is."""
    settings = document["settings"]
    lines = [
        f"**{settings['device']}**, {settings['architecture']}; median of alternating repetitions "
        "(least to largest).",
        "",
        "| task | batch | repetitions | contender | precision | pairs per second | TFLOP/s "
        "| share of measured peak | first call, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["results"]:
        rate = row["pairs_per_second"]
        peak = row.get("peak_share")
        lines.append(
            f"| {row['task']} | {row['batch_size']} | {row['repeats']} | {row['contender']} "
            f"| {row['precision']} | {rate['median']:,.4g} ({rate['min']:,.4g}–{rate['max']:,.4g}) "
            f"| {row['tflops']:.3g} | {'–' if peak is None else f'{peak:.0%}'} "
            f"| {row['first_call_s']:.1f} |"
        )
    theirs = settings.get("torch_matmul_peak_flops")
    peaks = [] if theirs is None else ["", _peaks(settings["matmul_peak_flops"], theirs)]
    return "\n".join([*lines, "", *_ratios(document["results"]), *peaks])


def _peaks(ours: float, theirs: float) -> str:
    return (
        f"The measured peak is jax's on one large matrix product, {ours / 1e12:.3g} TFLOP/s; "
        f"PyTorch's own product reaches {theirs / 1e12:.3g} TFLOP/s here."
    )


def _ratios(results: list[dict[str, Any]]) -> list[str]:
    said = []
    for task in dict.fromkeys(row["task"] for row in results):
        rows = [row for row in results if row["task"] == task]
        ours = [row for row in rows if row["contender"].startswith("jaxinf")]
        peers = [row for row in rows if not row["contender"].startswith("jaxinf")]
        if ours and peers:
            rate = lambda row: row["pairs_per_second"]["median"]
            best, peer = max(ours, key=rate), max(peers, key=rate)
            said.append(
                f"{task}: {best['contender']} ({best['precision']}) at "
                f"{rate(best) / rate(peer):.2f}× the best of PyTorch ({peer['contender']}, "
                f"{peer['precision']})"
            )
    return ["; ".join(said) + "."] if said else []
