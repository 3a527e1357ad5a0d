"""The tables of `benchmarks.lava*` but for detection's, which has a file of its own."""

from typing import Any

import numpy as np


def lava_table(document: dict[str, Any]) -> str:
    """Seconds, ratio and memory per size, solvers and pipelines apart."""
    results, settings = document["results"], document["settings"]
    lines = [
        f"d = {settings['width']}, C = {settings['classes']}, ε = {settings['epsilon']}, "
        f"{settings['cores']} cores; marginal error at most {settings['threshold']:g} for solvers.",
    ]
    for kind, first, ours in (
        ("solver", "geomloss", "jaxinf"),
        ("pipeline", "released_lava", "jaxinf_lava"),
    ):
        lines += [
            "",
            f"| n = m | {kind} | seconds (least–largest) | {first} takes | first call, + s "
            "| marginal error | peak memory, MiB |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in (row for row in results if row["kind"] == kind):
            peer = _find(results, row["size"], first)
            alike = peer and _cores(peer, settings) == _cores(row, settings)
            ratio = f"{_ratio(peer, row):.2f}× as long" if alike else ""
            few = "" if _cores(row, settings) == settings["cores"] else f", {row['cores']} core"
            error = row["marginal_error"]
            seconds = row["seconds"]
            lines.append(
                f"| {row['size']:,} | {row['contender']}{few} | {seconds['median']:.3g} "
                f"({seconds['min']:.3g}–{seconds['max']:.3g}) "
                f"| {ratio} | {row['first_call_extra_s']:.1f} "
                f"| {'' if error is None else f'{error:.1e}'} | {row['peak_bytes'] / 2**20:.0f} |"
            )
        sizes = dict.fromkeys(row["size"] for row in results)
        pairs = {n: (_find(results, n, first), _find(results, n, ours)) for n in sizes}
        said = [
            f"{_ratio(*pair):.1f}× at n = {n:,}"
            for n, pair in pairs.items()
            if all(pair) and _cores(pair[0], settings) == _cores(pair[1], settings)
        ]
        lines += ["", f"{ours} against {first}: " + ", ".join(said) + "."] if said else []
    return "\n".join(lines)


def _find(results: list[dict[str, Any]], size: int, contender: str) -> dict[str, Any]:
    """Its row, empty where it was not run at that size."""
    return next((r for r in results if (r["size"], r["contender"]) == (size, contender)), {})


def _cores(row: dict[str, Any], settings: dict[str, Any]) -> int:
    return row.get("cores", settings["cores"])


def _ratio(peer: dict[str, Any], row: dict[str, Any]) -> float:
    return peer["seconds"]["median"] / row["seconds"]["median"]


def lava_distance_table(document: dict[str, Any]) -> str:
    """Rank correlation of distance and accuracy, per data set and way of spoiling."""
    lines = [
        f"Spearman correlation over training sets of {document['settings']['train']} examples "
        "(95 % bootstrap interval); −1: the nearer set trains the better model.",
        "",
        "| set | spoiled by | training sets | distance | "
        + " | ".join(model := _models(document))
        + " |",
        "|---" * (4 + len(model)) + "|",
    ]
    for study in document["results"]:
        rows = study["correlations"]
        for spoil, distance in dict.fromkeys((r["spoiled by"], r["distance"]) for r in rows):
            found = [r for r in rows if (r["spoiled by"], r["distance"]) == (spoil, distance)]
            cells = " | ".join(
                f"{r['spearman']:.2f} ({r['interval'][0]:.2f} to {r['interval'][1]:.2f})"
                for r in found
            )
            lines.append(
                f"| {study['set']} | {spoil} | {found[0]['count']} | {distance} | {cells} |"
            )
    return "\n".join(lines)


def _models(document: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(r["model"] for r in document["results"][0]["correlations"]))


def lava_memory_table(document: dict[str, Any]) -> str:
    """Peak memory and seconds per number of rows."""
    settings = document["settings"]
    lines = [
        f"d = {settings['width']}, C = {settings['classes']}, {settings['cores']} cores, "
        '`route="streamed"`, the cost alone as float32 beside it.',
        "",
        "| solver | n | m | peak memory, MiB | the cost, MiB | seconds | iterations | converged "
        "| AUROC of wrong labels |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["results"]:
        cost = row["rows"] * row["valid"] * 4 / 2**20
        lines.append(
            f"| {row['solver']} | {row['rows']:,} | {row['valid']:,} "
            f"| {row['peak_bytes'] / 2**20:.0f} | {cost:.0f} "
            f"| {row['seconds']:.1f} | {row['iterations']} | {'yes' if row['converged'] else 'no'} "
            f"| {row['auroc']:.3f} |"
        )
    return "\n".join(lines)


def lava_on_paper_table(document: dict[str, Any]) -> str:
    """Seconds of every part on every machine, and what a device holds."""
    settings, results = document["settings"], document["results"]
    lines = [
        f"n = {settings['n']:,}, m = {settings['m']:,}, d = {settings['width']}, "
        f"C = {settings['classes']:,}, no certificate. The first line of each solver is that of "
        "the run above; **the others are worked out from its pieces.**",
        "",
        "| solver | machine | floor of a reading | one reading | its reductions | readings "
        "| label distances | in all | compiling, once |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        seconds = [f"{row[name]:.2g} s" for name in ("floor", "reading", "reductions")]
        cells = [row["solver"], row["machine"], *seconds, str(row["readings"])]
        cells += [f"{row[name]:.2g} s" for name in ("labels", "total")]
        compiling = row["compiling"]
        cells.append("not measured" if compiling is None else f"{compiling:.0f} s")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "What a device holds, in MB:", ""]
    machines = {row["machine"]: row["tensors"] for row in results}
    names = [tensor["name"] for tensor in next(iter(machines.values()))]
    lines += ["| tensor | " + " | ".join(machines) + " |", "|---" * (len(machines) + 1) + "|"]
    megabytes = lambda count: f"{count / 1e6:,.1f}"
    for name in names:
        found = [next(t for t in held if t["name"] == name) for held in machines.values()]
        cells = [f"{megabytes(t['bytes'])} {_shape(t['shape'])}" for t in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    totals = [megabytes(sum(t["bytes"] for t in held)) for held in machines.values()]
    lines.append("| in all | " + " | ".join(totals) + " |")
    peak = settings["device_peak_bytes"]
    lines += [
        "",
        f"The run on one {settings['device']} had {peak / 1e9:.1f} GB at its peak: the centred "
        "copy of the features, and the label distances' own blocks of classes, come on top.",
    ]
    return "\n".join(lines)


def _shape(shape: list[int]) -> str:
    return "(" + " × ".join(f"{length:,}" for length in shape) + ")"


def lava_scale_table(document: dict[str, Any]) -> str:
    """Seconds of the whole and of one reading of the cost, beside the floor; accuracy."""
    settings, results = document["settings"], document["results"]
    lines = [
        f"n = {settings['n']:,}, m = {settings['m']:,}, d = {settings['width']}, "
        f"C = {settings['classes']:,}, one {settings['device']}; a large product in float32's "
        f"precision runs at {settings['product_flops'] / 1e12:.0f} TFLOP/s there.",
        "",
        "| solver | route | first call | next call | label distances | one reading of the cost "
        "| its floor | reached | error of log-sums | marginal error | wrong labels, AUROC "
        "| values off, of their range | memory, GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        seconds = (row[name] for name in ("first_call_s", "seconds", "labels_s"))
        cells = [row["solver"], row["route"], *(f"{each:.1f} s" for each in seconds)]
        cells += [f"{row['reading_s']:.2f} s × {row['readings']}", f"{row['floor_s']:.2f} s"]
        cells += [f"{row['fraction_of_floor']:.0%}", f"{row['log_sum_error']:.0e}"]
        cells += [f"{row['marginal_error']:.1e}", f"{row['wrong_labels_auroc']:.3f}"]
        memory = row["device_peak_bytes"]
        cells += [f"{row['off_first_route']:.0e}", f"{memory / 1e9:.1f}" if memory else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def lava_contrast_table(document: dict[str, Any]) -> str:
    """Mean AUROC per contrast and corruption, and how often it is under random."""
    results, settings = document["results"], document["settings"]
    cells: dict[tuple[str, str, float], dict[tuple[str, str], float]] = {}
    for row in results:
        key = row["solver"], row["unit"], row["contrast"]
        cells.setdefault(key, {})[row["set"], row["corruption"]] = float(np.mean(row["auroc"]))
    # means are of what every row has
    shared = set.intersection(*(set(found) for found in cells.values()))
    left_out = sorted(set.union(*(set(found) for found in cells.values())) - shared)
    said = "; ".join(f"{name} ({corruption})" for name, corruption in left_out)
    cells = {key: {k: v for k, v in found.items() if k in shared} for key, found in cells.items()}
    pairs = [(row["set"], row["corruption"]) for row in results]
    corruptions = list(dict.fromkeys(c for s, c in pairs if (s, c) in shared))
    sets = list(dict.fromkeys(s for s, c in pairs if (s, c) in shared))
    lines = [
        f"AUROC, means over {', '.join(sets)} and {settings['seeds']} seeds from "
        f"{settings['first_seed']} on. The last columns: the mean and the least of all sets and "
        "corruptions, and how many are under 0.5. Contrasts of the *mean cost* take a fixed share "
        "of it; those *of the spread* a quarter, but at most that share of the ratio of the "
        "spreads of potentials and mean costs."
        + (f" Left out, as some rows lack them: {said}." if said else ""),
        "",
        "| solver | contrast | of | " + " | ".join(corruptions) + " | mean | least | under 0.5 |",
        "|---" * (len(corruptions) + 6) + "|",
    ]
    for (solver, unit, contrast), found in sorted(cells.items(), key=lambda cell: cell[0][:2]):
        means = [
            np.mean([auroc for (_, which), auroc in found.items() if which == corruption])
            for corruption in corruptions
        ]
        every = np.array(list(found.values()))
        figures = " | ".join(f"{value:.3f}" for value in (*means, every.mean(), every.min()))
        under = f"{(every < 0.5).sum()} of {len(every)}"
        lines.append(f"| {solver} | {contrast:g} | {unit} | {figures} | {under} |")
    return "\n".join(lines)
