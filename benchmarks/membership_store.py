"""What `benchmarks.membership` has found so far, trial by trial: the JSON that it resumes from."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import write_result
from benchmarks.membership_trials import Settings
from jaxinf.evaluation import mean_interval
from jaxinf.membership import TRANSFORMATIONS


class Store:
    """Trials of one result file; those of other settings are never mixed in.

    Each set keeps its trials beside the rows of means that follow from them, and so does the
    growth curve.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], device: dict[str, Any], *, fresh: bool
    ):
        """Go on from a file of the same settings, or start anew where there is none."""
        self.path, self.settings, self.device = path, settings, device
        self.results: dict[str, Any] = {"sets": [], "growth": [], "growth_trials": []}
        if path.exists() and not fresh:
            document = json.loads(path.read_text())
            other = {name for name in settings if document["settings"].get(name) != settings[name]}
            if other:
                sys.exit(
                    f"{path} holds trials of another {', '.join(sorted(other))}: --fresh "
                    "overwrites it, --output writes elsewhere"
                )
            self.results = document["results"]

    def chosen(self, name: str) -> Settings | None:
        """The attacks' settings of a set, where they have been chosen."""
        one = self._set(name)
        if one is None:
            return None
        return Settings(
            tuple(_NAMES.index(kind) for kind in one["chosen"]["transformations"]),
            one["chosen"]["weight"],
            one["chosen"]["threshold_std"],
        )

    def choose(self, name: str, members: int, settings: Settings, epochs: int) -> None:
        """Note the attacks' settings of a set."""
        chosen = {
            "transformations": [_NAMES[at] for at in settings.transformations],
            "weight": settings.weight,
            "threshold_std": settings.threshold_std,
            "at_epochs": epochs,
        }
        one = {"set": name, "members": members, "chosen": chosen, "rows": [], "trials": []}
        self.results["sets"].append(one)
        self.write()

    def has_trial(self, name: str, epochs: int, seed: int) -> bool:
        """Whether a trial is there."""
        one = self._set(name)
        return one is not None and any(
            (trial["epochs"], trial["seed"]) == (epochs, seed) for trial in one["trials"]
        )

    def add_trial(
        self,
        name: str,
        epochs: int,
        seed: int,
        scores: dict[str, dict[str, Any]],
        *,
        controls: list[str],
        seconds: float,
    ) -> None:
        """Add one trial of a set, and make the rows of means anew."""
        one = self._set(name)
        assert one is not None
        made = {"epochs": epochs, "seed": seed, "seconds": round(seconds, 1), "scores": scores}
        one["trials"].append(made)
        one["rows"] = rows_of(one["trials"], controls)
        self.write()

    def has_growth(self, members: int, epochs: int, seed: int) -> bool:
        """Whether a trial of the growth curve is there."""
        return any(
            (trial["members"], trial["epochs"], trial["seed"]) == (members, epochs, seed)
            for trial in self.results["growth_trials"]
        )

    def add_growth(self, members: int, epochs: int, seed: int, found: dict[str, Any]) -> None:
        """Add one trial of the growth curve, and make its rows anew."""
        trials = self.results["growth_trials"]
        trials.append({"members": members, "epochs": epochs, "seed": seed, **found})
        rows = []
        for size, number in sorted({(trial["members"], trial["epochs"]) for trial in trials}):
            same = [t for t in trials if (t["members"], t["epochs"]) == (size, number)]
            same.sort(key=lambda trial: trial["seed"])
            row = {"members": size, "epochs": number}
            rows.append(row | {figure: summary(same, figure) for figure in ("auc", "gap")})
        self.results["growth"] = rows
        self.write()

    def write(self) -> None:
        """Write the file; how many seeds there are is counted, not asked for."""
        counts = [
            len(row["auc"]["raw"])
            for part in (*(one["rows"] for one in self.results["sets"]), self.results["growth"])
            for row in part
        ]
        seeds = max(counts, default=0)
        write_result(self.path, self.settings | self.device | {"seeds": seeds}, self.results)

    def _set(self, name: str) -> dict[str, Any] | None:
        return next((one for one in self.results["sets"] if one["set"] == name), None)


_NAMES = [type(transformation).__name__ for transformation in TRANSFORMATIONS]


def rows_of(trials: list[dict[str, Any]], controls: list[str]) -> list[dict[str, Any]]:
    """Means over seeds of every score at every number of epochs."""
    rows = []
    for epochs in sorted({trial["epochs"] for trial in trials}):
        same = [trial for trial in trials if trial["epochs"] == epochs]
        same.sort(key=lambda trial: trial["seed"])
        for score in dict.fromkeys(score for trial in same for score in trial["scores"]):
            found = [trial["scores"][score] for trial in same if score in trial["scores"]]
            row: dict[str, Any] = {"epochs": epochs, "score": score}
            row |= {"role": "control" if score in controls else "attack"}
            rows.append(row | {figure: summary(found, figure) for figure in ("auc", "tpr")})
    return rows


def summary(entries: list[dict[str, Any]], figure: str) -> dict[str, Any] | None:
    """Mean over seeds with its interval, and every seed's figure."""
    raw = [value for entry in entries if (value := entry[figure]) is not None]
    if not raw:
        return None
    found: dict[str, Any] = {"mean": float(np.mean(raw)), "raw": raw}
    if len(raw) > 1:
        interval = mean_interval(raw)
        found["interval"] = [interval.low, interval.high]
    return found
