"""What the estimates of `benchmarks.memorisation` are held against."""

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import rankdata

from jaxinf.applications.memorisation import RetrainedOutputs, memorisation_scores
from jaxinf.evaluation import mean_interval

TOP = 100


class Truth:
    """What estimates are held against: scores of both kinds, and their ranks in resamples."""

    def __init__(self, found: RetrainedOutputs, seed: int, num_resamples: int):
        self.outputs = {"right": found.correct, "p": found.probability}
        self.scores = {
            name: memorisation_scores(found.subsets, outputs).scores
            for name, outputs in self.outputs.items()
        }
        if any(np.isnan(scores).any() for scores in self.scores.values()):
            raise SystemExit("an example is in every subset or in none: raise --models")
        # ties at the top are broken by the probability
        order = np.lexsort((-self.scores["p"], -self.scores["right"]))
        self.top = order[: min(TOP, len(order) // 10)]
        count = len(order)
        rng = np.random.default_rng(seed)
        self.resamples = rng.integers(0, count, (num_resamples, count))
        self.ranks = {
            name: [unit(rankdata(scores[rows])) for rows in self.resamples]
            for name, scores in self.scores.items()
        }

    def judge(self, scores: np.ndarray) -> dict[str, Any]:
        """Agreement of scores [seeds, N]: mean over seeds, intervals over seeds and examples."""
        found: dict[str, Any] = {}
        drawn = [
            unit(rankdata(scores[:, rows], axis=1)) for rows in self.resamples
        ]  # the slow part, shared by both kinds
        ranks = unit(rankdata(scores, axis=1))
        for name, of_truth in self.scores.items():
            each = ranks @ unit(rankdata(of_truth))
            means = [(a @ b).mean() for a, b in zip(drawn, self.ranks[name], strict=True)]
            low, high = np.quantile(means, [0.025, 0.975])
            found[f"spearman_{name}"] = {
                "estimate": float(each.mean()),
                "low": float(low),
                "high": float(high),
                "raw": each.tolist(),
                "over_seeds": asdict(mean_interval(each)),
            }
        hits = [
            np.isin(np.argsort(-row, kind="stable")[: len(self.top)], self.top).mean()
            for row in scores
        ]
        found["precision"] = asdict(mean_interval(hits)) | {"raw": [float(h) for h in hits]}
        return found


def unit(ranks: np.ndarray) -> np.ndarray:
    """Ranks, centred and of length 1: their products are rank correlations."""
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True)
