"""The tables of `benchmarks.mirrored_hypothesis` and `benchmarks.retraining`."""

from typing import Any

NAMES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "digits"}
KINDS = {
    "swept": "swept share of wrong labels",
    "shuffled": "the same examples at random",
    "clean": "clean examples at random",
}


def mirrored_hypothesis_table(document: dict[str, Any]) -> str:
    """Leave-one-out against its mirror: convex models, and groups on networks."""
    results = document["results"]
    lines = [
        "**Convex.** Least and largest correlation over the test points; all models to a gradient "
        "norm of 1e-10.",
        "",
        "| set | weight decay | training points, left out | Pearson | Spearman "
        "| released code: Pearson, Spearman | truth per mirror | leave-one-out takes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = [row for row in results["convex"] if not row["draw"]]
    for row in first:
        released = row.get("released_code")
        beside = (
            f"{_span(released['pearson'], 4)}, {_span(released['spearman'])}" if released else ""
        )
        lines.append(
            f"| {NAMES[row['set']]} | {row['weight_decay']:g} | {row['train']:,}, "
            f"{row['left_out']:,} | {_span(row['pearson'], 4)} | {_span(row['spearman'])} "
            f"| {beside} | {_span(row['truth_per_mirror'], 2)} | {_times(row)} |"
        )
    lines += _other_draws(results["convex"])
    lines += _by_mass(results.get("masses", []), first)
    if not results["groups"]:
        return "\n".join(lines)
    lines += [
        "",
        "**Groups on networks.** Correlation over the groups of the means over seeds; in brackets "
        "a 95 % bootstrap interval over groups. *Given the share*: Spearman after the share of "
        "wrong labels is taken out of both. *Two seeds*: mean Spearman of the truths of two seeds. "
        "*Ceiling*: what a score that knew the expected truth would reach against the mean over "
        "the seeds, the square root of its reliability (Spearman and Brown); 0 where the seeds do "
        "not agree at all.",
        "",
        "| set | model | groups | seeds | Pearson | Spearman | given the share | two seeds "
        "| ceiling | released code: Pearson, Spearman |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = lambda row: (list(NAMES).index(row["set"]), -row["train"], row["model"] != "mlp")
    for row in sorted(results["groups"], key=order):
        given = f"{row['given_share']:.3f}" if "given_share" in row else ""
        seeds = f"{row['seeds_agree']:.3f}" if "seeds_agree" in row else ""
        ceiling = _within(row["ceiling"], row["ceiling_interval"]) if "ceiling" in row else ""
        lines.append(
            f"| {NAMES[row['set']]} "
            f"| {row['model']}, {row['train']:,} examples, {row['epochs']} epochs "
            f"| {len(row['wrong_share'])} of {row['group_size']}, {KINDS[row['kind']]} "
            f"| {row['seeds']} "
            f"| {row['pearson']:.3f} | {_within(row['spearman'], row['spearman_interval'])} "
            f"| {given} | {seeds} | {ceiling} | {_released(row)} |"
        )
    return "\n".join(lines)


def _times(row: dict[str, Any]) -> str:
    """How many times as long all retrainings take as the mirror's ten."""
    reckoned = row["left_out"] < row["train"]
    return f"{row['seconds']['ratio_for_all']:.0f}×" + f" (from {row['left_out']})" * reckoned


def _other_draws(rows: list[dict[str, Any]]) -> list[str]:
    """The correlations of every draw of the training points, at the first weight decay."""
    lines = []
    for name, shown in NAMES.items():
        drawn = [row for row in rows if row["set"] == name and "released_code" in row]
        if len(drawn) < 2:
            continue
        each = "; ".join(_span(row["pearson"], 4) for row in drawn)
        lines += [
            "",
            f"{shown}, weight decay {drawn[0]['weight_decay']:g}, {len(drawn)} draws of the "
            f"training points ({', '.join(str(row['left_out']) for row in drawn)} left out), "
            f"Pearson: {each}.",
        ]
    return lines


def _by_mass(rows: list[dict[str, Any]], at_one: list[dict[str, Any]]) -> list[str]:
    """Least and mean correlation for every mass of the query, by the form of the mirror."""
    if not rows:
        return []
    released = {row["set"]: row["released_code"] for row in at_one if row.get("released_code")}
    lines = [
        "",
        f"**The query's mass**, at weight decay {rows[0]['weight_decay']:g}, "
        f"{rows[0]['left_out']:,} left out: least and mean correlation over the test points. "
        "*Added*: the query counts for so many examples; *taken*: minus so many; *symmetric*: half "
        "the difference of the two. In brackets the released code's least.",
        "",
        "| set | mass | Pearson: added | taken | symmetric | Spearman: added | taken | symmetric |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, drawn in dict.fromkeys((row["set"], row.get("draw", 0)) for row in rows):
        each = [r for r in rows if (r["set"], r.get("draw", 0)) == (name, drawn)]
        title = NAMES[name]
        if drawn:
            title += f", draw {drawn + 1}, {each[0]['left_out']:,} left out"
        elif name in released:
            least = (f"{min(released[name][of]):.4f}" for of in ("pearson", "spearman"))
            title += f" ({', '.join(least)})"
        found = {(row["mass"], row["form"]): row for row in each}
        for mass in sorted({row["mass"] for row in each}, reverse=True):
            cells = [
                _least_and_mean(found[mass, form][of])
                for of in ("pearson", "spearman")
                for form in ("added", "taken", "symmetric")
            ]
            lines.append(f"| {title} | {mass:g} | {' | '.join(cells)} |")
    return lines


def retraining_table(document: dict[str, Any]) -> str:
    """Models per second of every contender, and what the mirror costs."""
    results = document["results"]
    widths = sorted({c["at_once"] for row in results for c in row["contenders"] if "at_once" in c})
    lines = [
        "| network, subset | loop | compiled loop | "
        + " | ".join(f"vmap {width}" for width in widths)
        + " | best per loop | best per compiled loop |",
        "|---|---|---|" + "---|" * len(widths) + "---|---|",
    ]
    for row in results:
        rates = {(c["contender"], c.get("at_once")): c["median"] for c in row["contenders"]}
        vmapped = [rates.get(("vmap", width)) for width in widths]
        cells = [rates["loop", None], rates["compiled", None], *vmapped]
        shown = " | ".join("" if rate is None else f"{rate:.3g}" for rate in cells)
        lines.append(
            f"| {row['problem']}; {row['train'] // 2:,} examples, {row['epochs']} epochs, batch "
            f"{row['batch']} | {shown} | {row['vmap_per_loop']:.1f} "
            f"| {row['vmap_per_compiled']:.1f} |"
        )
    cost = document["settings"].get("mirror")
    if cost:
        lines += [
            "",
            f"One retraining scores all: for {cost['queries']} queries and {cost['train']:,} "
            f"training examples, mirrored leave-one-out took {cost['mirror_seconds']:.1f} s, "
            f"leave-one-out {cost['leave_one_out_seconds']:.0f} s (from {cost['left_out']} "
            f"examples): **{cost['ratio']:.0f} times** as long.",
        ]
    return "\n".join(lines)


def _released(row: dict[str, Any]) -> str:
    """What the released code found on the CNN where the share is swept."""
    found = row.get("released_code")
    if row["kind"] != "swept" or not found:
        return ""
    return f"{found['pearson']:.4f}, {found['spearman']:.4f}"


def _span(values: list[float], digits: int = 3) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def _within(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _least_and_mean(values: list[float]) -> str:
    return f"{min(values):.4f}, {sum(values) / len(values):.4f}"
