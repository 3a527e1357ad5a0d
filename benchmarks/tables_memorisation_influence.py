"""The table of `benchmarks.memorisation_influence`: who finds the pairs, at which cost."""

from typing import Any

from benchmarks.tables_memorisation import TITLES

Row = dict[str, Any]
_FIGURES = ("recall_at_1", "recall_at_10", "mrr", "auc", "pearson")


def memorisation_influence_table(document: dict[str, Any]) -> str:
    """A table per set, the best by mean reciprocal rank first."""
    return "\n\n".join(_of_set(name, found) for name, found in document["results"].items())


def _of_set(name: str, found: Row) -> str:
    size = found["size"]
    lines = [
        f"**{TITLES.get(name, name)}**: {size['train']:,} training examples, of which "
        f"{found['memorised']:,} are memorised; truth from {found['truth_models']:,} models "
        f"({found['truth_training']:,.0f} training runs, {found['truth_seconds']:,.0f} s), "
        f"{found['pairs']:,} pairs of "
        f"{found['tests']:,} test examples. Two halves of the models agree in their influence on "
        f"such a test example by {_figure(found['reliability'])} (Pearson).",
        "",
        "| method | looks at | models | runs | training, s | scoring, s | recall@1 | recall@10 | "
        "MRR | AUC | Pearson | precision |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found["rows"], key=lambda row: -row["mrr"]["estimate"]):
        figures = " | ".join(_figure(row[name]) for name in _FIGURES)
        lines.append(
            f"| {row['method']}{_epochs(row)} | {row['kind']} | {row['models']} | "
            f"{row['training']:.3g} | {row['training_seconds']:.1f} | {row['scoring_seconds']:.1f} "
            f"| {figures} | {row['precision']:.2f} |"
        )
    return "\n".join(lines)


def _epochs(row: Row) -> str:
    """Models of a fifth of the epochs are named, as a method may stand with both."""
    is_named = row["kind"] == "retraining" or row["method"].startswith("early")
    return "" if is_named or not 0 < row["training"] / row["models"] < 0.5 else ", early models"


def _figure(value: Row) -> str:
    if "low" not in value:
        return f"{value['estimate']:.2f}"
    return f"{value['estimate']:.2f} ({value['low']:.2f}–{value['high']:.2f})"
