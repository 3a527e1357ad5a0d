"""The tables of `benchmarks.memorisation`, and what their numbers say."""

from typing import Any

TITLES = {"fashion_mnist": "Fashion-MNIST", "mnist": "MNIST", "digits": "digits"}
SHARES = (2000, 500, 200, 50)
Row = dict[str, Any]


def memorisation_table(document: dict[str, Any]) -> str:
    """Per set: how far to trust the truth, the best of each family at each cost, removal."""
    parts = []
    for name, of_set in document["results"].items():
        if "report" in of_set and of_set["report"]["rows"]:
            parts += [_of_set(name, of_set)]
    return "\n\n".join([*parts, f"Trained on: {document['settings']['device']}."])


def cost(row: Row) -> float:
    """Of an estimate, in training runs on the whole set."""
    return row["training"] + row["scoring"]


def frontier(rows: list[Row]) -> set[tuple[str, str]]:
    """The choice: settings that at some cost rank best within their method, for no more.

    By the Spearman correlation with memorisation by right or wrong.
    """
    return {row_key[:2] for kept in _frontier(rows).values() for row_key in kept}


def chosen(of_set: dict[str, Any]) -> dict[str, list[Row]]:
    """Report rows by family: at each cost the setting that did best in development for no more."""
    report = {_key(row): row for row in of_set["report"]["rows"]}
    tried = of_set.get("development", of_set["report"])["rows"]
    found = _frontier([row for row in tried if _key(row) in report])
    return {method: [report[key] for key in kept] for method, kept in found.items()}


def _frontier(tried: list[Row]) -> dict[str, list[tuple[Any, ...]]]:
    """Keys of each method's rows that beat all that are cheaper."""
    found = {}
    for method in dict.fromkeys(row["method"] for row in tried):
        best, kept = -2.0, []
        for row in sorted((row for row in tried if row["method"] == method), key=cost):
            if row["spearman_right"]["estimate"] > best:
                best = row["spearman_right"]["estimate"]
                kept.append(_key(row))
        found[method] = kept
    return found


def _key(row: Row) -> tuple[Any, ...]:
    return row["method"], row["setting"], row["models"]


def _of_set(name: str, of_set: dict[str, Any]) -> str:
    report = of_set["report"]
    size, total = report["size"], report["truth_training"] + report["truth_scoring"]
    right, p = report["truth_right"], report["truth_p"]
    lines = [
        f"**{TITLES.get(name, name)}**: {size['train']:,} training examples, truth from "
        f"{size['models']:,} models of {report['fraction']:.0%} of them each, right on "
        f"{report['train_accuracy']:.2%} of what they saw and {report['left_out_accuracy']:.2%} of "
        f"what they did not. {right['above_0.25']:.1%} of the examples have a score above 0.25. "
        f"Split-half reliability {right['reliability']['full']:.3f} (right or wrong) and "
        f"{p['reliability']['full']:.3f} (probability): the exact scores would agree with these by "
        f"{right['reliability']['ceiling']:.3f} and {p['reliability']['ceiling']:.3f}. Ties, of "
        "examples that every model is right about, hold whatever gives each example a number of "
        f"its own to {right['tie_ceiling']:.3f} in the first column. The two truths agree by "
        f"{report['truths_agree']:.3f}.",
        "",
        "| estimate | setting | models | runs | share of the truth's compute | Spearman, right or "
        "wrong | Spearman, probability | top 100 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, rows in chosen(of_set).items():
        for row in _at_shares(rows, total):
            lines.append(
                f"| {method} | {row['setting']} | {row['models']} | {cost(row):.3g} | "
                f"1/{total / cost(row):,.0f} | {_interval(row['spearman_right'])} | "
                f"{_interval(row['spearman_p'])} | {row['precision']['estimate']:.2f} |"
            )
    lines += ["", verdict(of_set)]
    if "influence" in report:
        lines += ["", _influence(report["influence"], report["size"])]
    if "removal" in report:
        lines += ["", _removal(report["removal"])]
    return "\n".join(lines)


def _at_shares(rows: list[Row], total: float) -> list[Row]:
    """Of each share of the truth's compute the dearest row that keeps to it, and the cheapest."""
    found: list[Row] = []
    for share in SHARES:
        within = [row for row in rows if cost(row) <= total / share]
        if within and within[-1] not in found:
            found.append(within[-1])
    return found


def verdict(of_set: dict[str, Any]) -> str:
    """The method that development prefers at each share of the compute; how little reaches 0.7."""
    report, families = of_set["report"], chosen(of_set)
    total = report["truth_training"] + report["truth_scoring"]
    tried = {_key(row): row for row in of_set.get("development", report)["rows"]}
    said = []
    for share in SHARES:
        best = [
            (method, row) for method, rows in families.items() for row in _at_shares(rows, total)
            if cost(row) <= total / share
        ]  # fmt: skip
        if best:
            preferred = lambda pair: tried[_key(pair[1])]["spearman_right"]["estimate"]
            method, row = max(best, key=preferred)
            said.append(
                f"at 1/{share} {method} ({row['setting']}), {row['spearman_right']['estimate']:.3f}"
            )
    reaching = [
        (cost(row), method) for method, rows in families.items() for row in rows
        if row["spearman_right"]["low"] >= 0.7
    ]  # fmt: skip
    where = "the development part" if "development" in of_set else "this part itself"
    text = f"By right or wrong, methods and settings chosen on {where}: " + "; ".join(said)
    if not reaching:
        return text + ". None reaches 0.7 with its whole interval."
    least, method = min(reaching)
    return (
        text + f". The cheapest to reach 0.7 with its whole interval is {method}, at "
        f"1/{total / least:,.0f} of the truth's compute."
    )


def _influence(found: dict[str, Any], size: dict[str, Any]) -> str:
    return (
        f"Of {found['memorised']:,} training examples with a score of 0.25 or more and "
        f"{found['of_test']:,} test examples, {found['pairs']:,} pairs have an influence of 0.15 "
        f"or more, {found['pairs_beyond_4_standard_errors']:,} of them beyond 4 standard errors: "
        f"{found['test_examples']:,} test examples "
        f"({found['test_examples'] / found['of_test']:.1%}) are right because of some one "
        "memorised example."
    )


def _removal(rows: list[Row]) -> str:
    shares = sorted({row["removed"] for row in rows if row["removed"]})
    by = {(row["removed"], row["by"]): row["accuracy"] for row in rows}
    names = [row["by"] for row in rows if row["removed"] == shares[0]]
    whole = by[0.0, "none"]
    lines = [
        f"Test accuracy after removal (nothing removed: {_percent(whole)}):",
        "",
        "| removed | " + " | ".join(f"{share:.0%}" for share in shares) + " |",
        "|---|" + "---|" * len(shares),
    ]
    for name in names:
        cells = " | ".join(_percent(by[share, name]) for share in shares)
        label = "at random" if name == "random" else f"most memorised ({name})"
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def _percent(entry: dict[str, float]) -> str:
    return f"{entry['estimate']:.2%} ± {entry['high'] - entry['estimate']:.2%}"


def _interval(entry: dict[str, Any]) -> str:
    return f"{entry['estimate']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"
