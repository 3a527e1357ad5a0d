"""What `jaxinf membership` found, as chapters of a report."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from jaxinf.cli.membership_attacks import Judged
from jaxinf.cli.membership_overlaps import Shared
from jaxinf.cli.membership_pairs import NONMEMBERS, TARGETS, Pairs
from jaxinf.cli.membership_sections import judgement_section
from jaxinf.errors import require_extra
from jaxinf.report.sections import Column, Example, Mark, Section, Strip, Table

_LISTED, _SHOWN, _THUMBNAIL = 20, 8, 96


def findings_sections(
    sets: Mapping[str, Pairs], judged: Judged, shared: Sequence[Shared]
) -> list[Section]:
    """The verdict, the pairs that score highest, and what was read and left out."""
    found = judged.report
    targets, others = len(sets[TARGETS]), len(sets[NONMEMBERS])
    text = (
        (
            f"The table of the targets says which are members ({int(found.is_member.sum()):,}) and "
            f"which are not ({int((~found.is_member).sum()):,}): the attacks are judged by that. "
            f"The {others:,} known non-members set the thresholds."
        )
        if judged.by_truth
        else (
            f"The claim: the {targets:,} targets were in the training set. They are judged "
            f"against {int((~found.is_member).sum()):,} pairs that the model cannot have seen. If "
            "the two come from different sources, whatever tells the sources apart passes for "
            "membership: the blind controls, which never look at the model, say how far."
        ),
        "One pair's score is no proof about that pair: look at the rates at 1 % and below.",
    )
    sections = [judgement_section(found, "Were the targets in the training set?", text)]
    if judged.learnt is not None:
        sections.append(_learnt_section(judged))
    sections += [_examples_section(sets[TARGETS], judged), _reading_section(sets, shared)]
    return sections


def _learnt_section(judged: Judged) -> Section:
    learnt = judged.learnt
    assert learnt is not None
    rows = (
        ("unlabelled pairs taken for members", f"{learnt.num_pseudo_members:,}"),
        ("similarity from which on they were", f"{learnt.threshold:.3f}"),
        ("pairs of each class that every start learnt from", f"{learnt.num_per_class:,}"),
        ("starts, epochs of each", ", ".join(map(str, learnt.epochs.tolist()))),
        ("held-out loss, nats", ", ".join(f"{loss:.3f}" for loss in learnt.validation_loss)),
    )
    return Section(
        title="What the weakly supervised attack learnt from",
        text=(
            "It tells known non-members from unlabelled pairs that fit the model well. A held-out "
            "loss near 0.693 says that it learnt nothing.",
        ),
        tables=(Table((Column("of this run"), Column("")), rows),),
    )


def _examples_section(targets: Pairs, judged: Judged) -> Section:
    name = judged.report.verdict.attack
    scores = judged.scores[TARGETS][name]
    order = np.argsort(scores, kind="stable")
    ends = ("Highest scores", order[::-1][:_SHOWN]), ("Lowest scores", order[:_SHOWN])
    return Section(
        title="The targets that score highest and lowest",
        text=(
            f"By {name}. Pairs whose caption says plainly what the image shows score high whether "
            "or not the model has seen them.",
        ),
        strips=tuple(
            Strip(((heading, tuple(_card(targets, scores, row) for row in rows.tolist())),))
            for heading, rows in ends
        ),
        legend=() if targets.is_member is None else (("good", "a member by the table"),),
    )


def _card(targets: Pairs, scores: np.ndarray, row: int) -> Example:
    image = require_extra("PIL.Image", "cli")
    with image.open(io.BytesIO(targets.places[row].read())) as opened:
        small = opened.convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "PNG")
    caption = targets.captions[row]
    shown = caption if len(caption) <= 60 else caption[:59] + "…"
    mark: Mark = "good" if targets.is_member is not None and targets.is_member[row] else ""
    return Example((shown, f"score {scores[row]:.3f}", targets.files[row]), file.getvalue(), mark)


def _reading_section(sets: Mapping[str, Pairs], shared: Sequence[Shared]) -> Section:
    read = tuple(
        (
            name,
            len(pairs) + len(pairs.dropped),
            sum(reason.startswith("unreadable") for _, reason in pairs.dropped),
            sum(" also in " in reason for _, reason in pairs.dropped),
            len(pairs.dropped),
            len(pairs),
        )
        for name, pairs in sets.items()
    )
    columns = ("set", "found", "unreadable images", "shared with another set", "left out", "used")
    gone = [(name, *each) for name, pairs in sets.items() for each in pairs.dropped]
    tables = [
        Table(
            tuple(Column(title, "," if title != "set" else None) for title in columns),
            read,
            "Pairs of each set. Left out: all reasons together.",
        )
    ]
    if gone:
        tables.append(
            Table(
                (Column("set"), Column("file"), Column("why it was left out")),
                tuple(gone[:_LISTED]),
                f"The first {min(_LISTED, len(gone))} of {len(gone):,} pairs that were left out; "
                "dropped.csv lists them all.",
            )
        )
    said = [str(each) for each in shared if each.any]
    compared = sorted({each.by for each in shared})
    text = (
        f"Compared between the sets: {', '.join(compared)}. "
        + ("; ".join(said) if said else "Nothing is shared")
        + ". Captions are compared in lower case, without digits, punctuation and stop-words; a "
        "target that is also among the non-members is dropped from both.",
    )
    return Section(
        title="What was read, and what was left out",
        text=text if compared else (),
        tables=tuple(tables),
    )
