"""The table of `benchmarks.lds_beyond`."""

from typing import Any


def lds_beyond_table(document: dict[str, Any]) -> str:
    """Every idea's LDS on the development part, and on the report part where it was looked at."""
    rows = document["results"]
    lines = [
        "| idea | what | LDS, development | LDS, report |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['idea']} | {row['what']} | {_figure(row, 'development')} "
            f"| {_figure(row, 'report')} |"
        )
    held_out = [row for row in rows if "development_held_out_loss" in row]
    if held_out:
        by = {
            name: min(held_out, key=lambda row, key=key, sign=sign: sign * row[key])["what"]
            for name, key, sign in (
                ("held-out loss", "development_held_out_loss", 1),
                ("LDS", "development", -1),
            )
        }
        losses = ", ".join(
            f"{row['what'].split(' epochs')[0]}: {row['development_held_out_loss']:.4f}"
            for row in held_out
        )
        said = "; ".join(f"by {name}, {what}" for name, what in by.items())
        lines += [
            "",
            f"Held-out loss of the ensemble by the epochs of its models, development: {losses}. "
            f"Chosen {said}.",
        ]
    return "\n".join(lines)


def _figure(row: dict[str, Any], part: str) -> str:
    return f"{row[part]:.3f}" if part in row else ""
