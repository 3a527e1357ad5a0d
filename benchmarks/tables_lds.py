"""The table of `benchmarks.lds`."""

from collections import Counter
from typing import Any

from benchmarks.lds_plot import TITLES


def lds_table(document: dict[str, Any]) -> str:
    """Per set: every method, best first, with what it costs; then where the best ones stand."""
    sets = document["results"]["sets"]
    parts = [_set(name, sets[name]) for name in TITLES if name in sets]
    return "\n\n".join(parts)


def lds_settings_table(document: dict[str, Any]) -> str:
    """Per set and kind of run: the best damping and power, and what the usual ones give."""
    parts = []
    for found in document["results"]:
        size = found["size"]
        lines = [
            f"**{TITLES[found['set']]}**, development part: {size['subsets']} half-subsets × "
            f"{_seeds(size)}.{' **Reduced size.**' if size['reduced'] else ''}",
            "",
            "| models × epochs | learning rate | training, full runs | best damping | best power | "
            "LDS | at damping 1, power 0.7 |",
            "|---|---|---|---|---|---|---|",
        ]
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in found["rows"]:
            groups.setdefault((row["epochs"], row["decay"], row["models"]), []).append(row)
        ranked = sorted(groups.values(), key=lambda rows: -_best(rows)["lds"])
        for rows in ranked:
            best = _best(rows)
            powers = {row["power"] for row in rows}
            as_usual = lambda row, powers=powers: (
                row["damping"] == 1 and row["power"] == (0.7 if 0.7 in powers else 0)
            )
            usual = "".join(f"{row['lds']:.3f}" for row in rows if as_usual(row))
            lines.append(
                f"| {best['models']} × {best['epochs']} | "
                f"{'falls to 0' if best['decay'] else 'constant'} | {best['training']:.3g} | "
                f"{best['damping']:g} | {best['power'] if len(powers) > 1 else ''} | "
                f"{best['lds']:.3f} | {usual} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: row["lds"])


def _set(name: str, found: dict[str, Any]) -> str:
    size, agreement = found["size"], found["agreement"]
    reduced = " **Reduced size.**" if size["reduced"] else ""
    rows = sorted(found["rows"], key=lambda row: -row["lds"]["estimate"])
    # most rows' machine; those of another are marked
    devices = Counter(row["device"] for row in rows if "device" in row)
    usual = devices.most_common(1)[0][0] if devices else None
    with_loo = any("loo" in row for row in rows)
    lines = [
        f"**{TITLES[name]}**: {size['train']:,} training examples, {size['queries']} queries, "
        f"{size['subsets']} half-subsets × {_seeds(size)}, {found['epochs']} epochs, "
        f"{'margin' if found['output'] == 'margin' else 'minus the loss'}.{reduced} "
        f"{_reachable(agreement)}A full run takes {found['full_run_flops'] / 1e12:.2g} TFLOP."
        + (f" {found['note']}" if "note" in found else ""),
        "",
        f"| method | models × epochs | training, full runs | then s | then TFLOP | LDS |"
        f"{' LOO Pearson / Spearman |' if with_loo else ''}",
        f"|---|---|---|---|---|---|{'---|' if with_loo else ''}",
    ]
    for row in rows:
        elsewhere = row.get("device", usual) != usual
        line = (
            f"| {_name(row, size['queries'])} | {_models(row)} | {row['training']:.3g} "
            f"| {_seconds(row)}{' ‡' * elsewhere} | {_flops(row)} | {_interval(row['lds'])} |"
        )
        if with_loo:
            loo = row.get("loo")
            line += f" {loo['pearson']:.3f} / {loo['spearman']:.3f} |" if loo else " |"
        lines.append(line)
    charts = ", ".join(
        f"{row['method']} ({row['models']}) {row['lds']['estimate']:.3g}"
        for row in found["published"]
    )
    if charts:
        lines += ["", f"dattri's own charts (models), of its own training recipes: {charts}."]
    return "\n".join(lines)


def _seeds(size: dict[str, Any]) -> str:
    return f"{size['seeds']} seed{'s' * (size['seeds'] > 1)}"


def _reachable(agreement: dict[str, float] | None) -> str:
    """What the noise of training leaves; one seed cannot say."""
    if agreement is None:
        return ""
    return (
        f"Two seeds of one subset agree to {agreement['seeds']:.2f}, so that "
        f"{agreement['ceiling']:.2f} is the most that can be reached. "
    )


def _name(row: dict[str, Any], queries: int) -> str:
    name = row["method"] if row["source"] == "jaxinf" else f"*dattri* {row['method']}"
    if row.get("queries", queries) < queries:
        name += f" ({row['queries']} queries)"
    return name + (" †" if row.get("forward_only") else "")


def _models(row: dict[str, Any]) -> str:
    epochs = row.get("epochs")
    if epochs is None:
        return str(row["models"])
    return f"{row['models']} × {', '.join(map(str, epochs))}"


def _seconds(row: dict[str, Any]) -> str:
    """Blank where it was not measured, as of a run that was paused."""
    return "" if row["seconds"] != row["seconds"] else f"{row['seconds']:.0f}"


def _flops(row: dict[str, Any]) -> str:
    flops = row.get("flops")
    return "" if flops is None or flops != flops else f"{flops / 1e12:.2g}"


def _interval(found: dict[str, Any]) -> str:
    return f"{found['estimate']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
