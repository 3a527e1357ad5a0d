"""What the scores of one method are worth: is the source on top, is a leak told from a clean query?

Queries are split in two halves, alternating within each kind: settings (which statistic, signed or
not) are chosen on the development half and everything reported is measured on the other.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.leakage_methods import Scores
from benchmarks.leakage_subjects import Subject
from jaxinf.applications.leakage import LeakStatistics, decide_leaks, leak_statistics
from jaxinf.evaluation import detection_auc, mean_interval, ranks

FDR = 0.05
STATISTICS: dict[str, dict[str, Any]] = {
    f"{name}{'' if signed else ', absolute'}": {**options, "signed": signed}
    for signed in (True, False)
    for name, options in {
        "top": {"statistic": "top"},
        "contrast with 2nd": {"rest": 2},
        "contrast with 3rd": {"rest": 3},
        "contrast with 5th": {"rest": 5},
        "gap to 2nd": {"statistic": "gap", "rest": 2},
        "gap to 3rd": {"statistic": "gap", "rest": 3},
        "gap to 5th": {"statistic": "gap", "rest": 5},
        "ratio to 2nd": {"statistic": "ratio"},
        "ratio to 5th": {"statistic": "ratio", "rest": 5},
    }.items()
    if signed or not name.startswith("ratio")
}
# ratios are of squared distances
DISTANCES = ("pixels", "pixels, best of 9 shifts", "features")


def measure(found: Scores, subject: Subject, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Every figure of one method on one draw, under every setting, for both halves."""
    kind, source = subject.kind[found.rows], subject.source[found.rows]
    part = {name: np.isin(found.rows, rows) for name, rows in subject.parts.items()}
    copies = np.flatnonzero(part["copies"])
    places: dict[bool, np.ndarray] = {}
    for signed in (True, False):
        strength = found.scores[copies] if signed else np.abs(found.scores[copies])
        places[signed] = np.full(len(kind), -1)
        places[signed][copies] = ranks(strength, source[copies])
    own = found.scores[copies, source[copies]]
    opposed = np.zeros(len(kind), bool)
    opposed[copies] = own < 0
    figures: dict[str, Any] = {"hits": {}, "opposed": {}, "decisions": {}}
    halves = _halves(kind, part, kinds)
    for half, rows_of in halves.items():
        figures["hits"][half] = {
            "signed" if signed else "absolute": {
                name: [float(np.mean(places[signed][rows_of[name]] <= k)) for k in (1, 5)]
                for name in kinds
            }
            for signed in (True, False)
        }
    figures["opposed"] = {name: float(np.mean(opposed[halves["report"][name]])) for name in kinds}
    if part["clean"].any() and part["calibration"].any():
        kept = {signed: condensed(found.scores, signed) for signed in (True, False)}
        for name, options in STATISTICS.items():
            if name.startswith("ratio") and found.method not in DISTANCES:
                continue
            by = leak_statistics(kept[options["signed"]], **options)
            figures["decisions"][name] = {
                half: _decisions(by, part["calibration"], rows_of, kinds)
                for half, rows_of in halves.items()
            }
    return figures


def condensed(scores: np.ndarray, signed: bool, most: int = 5) -> np.ndarray:
    """Twelve scores of each query that give the statistics of all: the highest, and the median."""
    strength = scores if signed else np.abs(scores)
    middle = (strength.shape[1] - 1) // 2
    # from the sixth highest on, in order of rows: the median stays where it was
    kept = np.partition(strength, (middle, strength.shape[1] - most - 1), axis=1)
    centre = np.repeat(kept[:, middle, None], most + 2, axis=1)
    return np.concatenate([centre, kept[:, -most:]], axis=1)


def _halves(
    kind: np.ndarray, part: dict[str, np.ndarray], kinds: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    groups = {name: np.flatnonzero(kind == name) for name in kinds}
    groups["clean"] = np.flatnonzero(part["clean"])
    return {
        half: {name: rows[first::2] for name, rows in groups.items()}
        for half, first in (("development", 0), ("report", 1))
    }


def _decisions(
    by: LeakStatistics,
    calibration: np.ndarray,
    rows_of: dict[str, np.ndarray],
    kinds: tuple[str, ...],
) -> dict[str, Any]:
    """AUROC of each kind against clean queries; power and false discoveries at the rate."""
    clean = rows_of["clean"]
    # infinite contrasts rank above all others
    value = np.minimum(by.statistic, np.finfo(np.float64).max)
    auroc = {}
    for name in kinds:
        both = np.concatenate([rows_of[name], clean])
        auroc[name] = detection_auc(value[both], np.arange(len(both)) < len(rows_of[name]))
    asked = np.concatenate([rows_of[name] for name in (*kinds, "clean")])
    take = lambda rows: LeakStatistics(*(column[rows] for column in by))
    called = np.zeros(len(value), bool)
    called[asked] = decide_leaks(take(asked), take(np.flatnonzero(calibration)), fdr=FDR).is_leak
    return {
        "auroc": auroc,
        "power": {name: float(np.mean(called[rows_of[name]])) for name in kinds},
        "false": float(called[clean].sum() / max(1, called.sum())),
        "called": int(called.sum()),
    }


def interval(values: list[float]) -> dict[str, Any]:
    """Mean and 95 % interval of the draws' values, of a single one itself."""
    found = asdict(mean_interval(values)) if len(values) > 1 else {"estimate": values[0]}
    return found | {"raw": values}


def summarise(runs: list[dict[str, Any]], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Means over draws with 95 % intervals, under the settings that development chose."""
    average = lambda values: float(np.mean(list(values)))
    of_signs = {
        sign: average(run["hits"]["development"][sign][name][0] for run in runs for name in kinds)
        for sign in ("signed", "absolute")
    }
    sign = "absolute" if of_signs["absolute"] > of_signs["signed"] else "signed"
    summary: dict[str, Any] = {
        "ranking": sign,
        "development_top1": of_signs[sign],
        "opposed": {name: average(run["opposed"][name] for run in runs) for name in kinds},
    }
    for at, key in enumerate(("top1", "top5")):
        of_kind = lambda run, name, at=at: run["hits"]["report"][sign][name][at]
        summary[key] = {name: interval([of_kind(run, name) for run in runs]) for name in kinds}
        summary[key]["all"] = interval(
            [average(of_kind(run, name) for name in kinds) for run in runs]
        )
    # a method may have been asked about fewer queries on some draws, and no clean ones
    judged = [run for run in runs if run["decisions"]]
    if not judged:
        return summary
    # what is wanted is power at the rate; where there is none, an ordering
    of_statistics = {
        name: tuple(
            average(
                run["decisions"][name]["development"][key][kind] for run in judged for kind in kinds
            )
            for key in ("power", "auroc")
        )
        for name in judged[0]["decisions"]
    }
    chosen = max(of_statistics, key=lambda name: of_statistics[name])
    summary |= {
        "judged": len(judged),
        "statistic": chosen,
        "development_power": of_statistics[chosen][0],
    }
    report = [run["decisions"][chosen]["report"] for run in judged]
    for key in ("auroc", "power"):
        summary[key] = {name: interval([each[key][name] for each in report]) for name in kinds}
        summary[key]["all"] = interval(
            [average(each[key][name] for name in kinds) for each in report]
        )
    summary["false"] = interval([each["false"] for each in report])
    return summary
