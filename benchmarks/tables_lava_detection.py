"""The tables of `benchmarks.lava_detection`, and what they say of LAVA's default in words."""

from typing import Any

import numpy as np

from jaxinf.evaluation import mean_interval

# LAVA as libraries have it
_LIBRARIES = ("lava, released", "opendataval lava")
_BASELINES = (
    "nearest validation",
    "nearest, features only",
    "knn-shapley",
    "mmd",
    "sava",
    "data-oob",
    "leave-one-out",
    "data banzhaf",
    "data shapley",
    "beta shapley",
)
_FIGURES = {
    "auroc": "AUROC",
    "at_true_count": "Share found at the true count",
    "f1": "F1 after k-means",
}
# differences of AUROC below this are none
_LEVEL = 0.005


def lava_detection_table(document: dict[str, Any]) -> str:
    """AUROC of every method: wrong labels per set, then every corruption over sets."""
    results = document["results"]
    # ours first, and the others as they were measured
    methods = sorted(dict.fromkeys(row["method"] for row in results), key=lambda m: m != "lava")
    parts = ["Means and 95 % intervals over the seeds; the best of each column in bold."]
    for figure, title in _FIGURES.items():
        for corruption in dict.fromkeys(row["corruption"] for row in results):
            if figure != "auroc" and corruption != "wrong labels":
                continue
            rows = [row for row in results if row["corruption"] == corruption]
            parts += ["", f"**{title}, {corruption}**", "", *_grid(rows, methods, figure)]
    parts += ["", _against_baselines(results), "", *_against_libraries(results)]
    parts += ["", *_other_figures(results), "", _chance(results)]
    return "\n".join(parts)


def _grid(rows: list[dict[str, Any]], methods: list[str], figure: str) -> list[str]:
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = ["| method | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    found = {(row["set"], row["method"]): row[figure] for row in rows}
    best = {
        name: max(found[name, method]["mean"] for method in methods if (name, method) in found)
        for name in sets
    }
    for method in (m for m in methods if any((name, m) in found for name in sets)):
        cells = []
        for name in sets:
            entry = found.get((name, method))
            if entry is None:
                cells.append("")
                continue
            half = (entry["interval"][1] - entry["interval"][0]) / 2 if "interval" in entry else 0
            text = f"{entry['mean']:.3f} ± {half:.3f}"
            cells.append(f"**{text}**" if entry["mean"] >= best[name] - 5e-4 else text)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def _cells(
    results: list[dict[str, Any]], figure: str = "auroc"
) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """A figure by method of each set and corruption on which the default was run."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in results:
        found.setdefault((row["set"], row["corruption"]), {})[row["method"]] = row[figure]
    return {key: methods for key, methods in found.items() if "lava" in methods}


def _best(methods: dict[str, dict[str, Any]], rivals: tuple[str, ...]) -> str | None:
    there = [name for name in rivals if name in methods]
    return max(there, key=lambda name: methods[name]["mean"], default=None)


def _against_baselines(results: list[dict[str, Any]]) -> str:
    """Where a baseline wins."""
    behind, count = [], 0
    for (name, corruption), methods in _cells(results).items():
        best = _best(methods, _BASELINES)
        if best is None:
            continue
        count += 1
        ahead = methods[best]["mean"] - methods["lava"]["mean"]
        if ahead > _LEVEL:
            behind.append(f"{name} ({corruption}): {best} by {ahead:.3f}")
    return (
        f"LAVA's default is level with or ahead of the best baseline (to {_LEVEL}) on "
        f"{count - len(behind)} of {count}. Another wins on: {'; '.join(behind) or 'none'}."
    )


def _against_libraries(results: list[dict[str, Any]]) -> list[str]:
    """Our default beside the best LAVA of a library: means of sets, and every cell it is behind."""
    cells, of_sets = _cells(results), _means(results, "auroc")
    lines = [
        "**Ours beside the LAVA of libraries**: AUROC, means over all corruptions of a set that "
        "all have",
        "",
        "| set | corruptions | lava | " + " | ".join(_LIBRARIES) + " |",
        "|---|---|---|" + "---|" * len(_LIBRARIES),
    ]
    for name, (count, means) in of_sets.items():
        texts = [f"{means[m]:.3f}" if m in means else "" for m in ("lava", *_LIBRARIES)]
        lines.append(f"| {name} | {count} | " + " | ".join(texts) + " |")
    behind, count = [], 0
    for (name, corruption), methods in cells.items():
        best = _best(methods, _LIBRARIES)
        if best is None:
            continue
        count += 1
        if methods[best]["mean"] - methods["lava"]["mean"] > 0:
            behind.append(_row_behind(name, corruption, methods["lava"], best, methods[best]))
    level = sum(means["lava"] == max(means.values()) for _, means in of_sets.values())
    lines += ["", f"At or above the best of them in the mean of {level} of {len(of_sets)} sets."]
    lines[-1] += f" Cell by cell, it is behind in {len(behind)} of {count}" + (
        ", by however little; the difference is over the same seeds:" if behind else "."
    )
    if behind:
        lines += [
            "",
            "| set | corruption | lava | best of a library | which | difference | intervals |",
            "|---|---|---|---|---|---|---|",
            *behind,
        ]
    return lines


def _means(results: list[dict[str, Any]], figure: str) -> dict[str, tuple[int, dict[str, float]]]:
    """Of each set: how many corruptions all of them have, and each one's mean over these."""
    cells, found = _cells(results, figure), {}
    for name in dict.fromkeys(name for name, _ in cells):
        of_set = [methods for (which, _), methods in cells.items() if which == name]
        there = [m for m in _LIBRARIES if any(m in methods for methods in of_set)]
        shared = [methods for methods in of_set if all(m in methods for m in there)]
        if there and shared:
            means = {m: float(np.mean([f[m]["mean"] for f in shared])) for m in ("lava", *there)}
            found[name] = len(shared), means
    return found


def _other_figures(results: list[dict[str, Any]]) -> list[str]:
    """The same means of the other two figures, in words."""
    lines = []
    for figure in ("at_true_count", "f1"):
        behind = []
        found = _means(results, figure)
        for name, (_, means) in found.items():
            if max(means.values()) > means["lava"]:
                behind.append(f"{name} {means['lava']:.3f} against {max(means.values()):.3f}")
        said = f"behind on {'; '.join(behind)}" if behind else "nowhere behind"
        lines.append(
            f"{_FIGURES[figure]}, means of the same: at or above on "
            f"{len(found) - len(behind)} of {len(found)} sets, {said}."
        )
    return [" ".join(lines)]


def _row_behind(
    name: str, corruption: str, ours: dict[str, Any], which: str, theirs: dict[str, Any]
) -> str:
    if len(ours["raw"]) > 1 and len(ours["raw"]) == len(theirs["raw"]):
        paired = mean_interval(np.subtract(ours["raw"], theirs["raw"]))
        difference = f"{paired.estimate:+.3f} ({paired.low:+.3f} to {paired.high:+.3f})"
    else:
        difference = f"{ours['mean'] - theirs['mean']:+.3f}"
    both = "interval" in ours and "interval" in theirs
    apart = both and ours["interval"][1] < theirs["interval"][0]
    overlap = ("apart" if apart else "overlap") if both else ""
    cells = [name, corruption, _with_interval(ours), _with_interval(theirs), which, difference]
    return "| " + " | ".join([*cells, overlap]) + " |"


def _with_interval(entry: dict[str, Any]) -> str:
    if "interval" not in entry:
        return f"{entry['mean']:.3f}"
    # of the t distribution, which knows no bounds of an AUROC
    low, high = np.clip(entry["interval"], 0, 1)
    return f"{entry['mean']:.3f} ({low:.3f} to {high:.3f})"


def _chance(results: list[dict[str, Any]]) -> str:
    """Where the default's mean is under 0.5, and whether its interval says so too."""
    under = []
    for (name, corruption), methods in _cells(results).items():
        ours = methods["lava"]
        if ours["mean"] < 0.5:
            within = "interval" in ours and ours["interval"][1] >= 0.5
            said = f"{name} ({corruption}) {_with_interval(ours)}"
            under.append(said + (", which is chance" if within else ""))
    least = [
        f"{name} ({corruption}) {min(methods['lava']['raw']):.3f}"
        for (name, corruption), methods in _cells(results).items()
        if min(methods["lava"]["raw"]) < 0.45
    ]
    single = f" Of single draws, below 0.45: {'; '.join(least)}." if least else ""
    return "Means below random: " + ("; ".join(under) or "never") + "." + single
