"""`jaxinf membership`: were these image-text pairs in a CLIP's training set?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxinf.cli.devices import provenance, use_all_cores
from jaxinf.cli.membership_choices import Precision
from jaxinf.cli.options import Report


def membership(
    model: Annotated[
        Path,
        typer.Option(
            help="The CLIP in question: a checkpoint file or its folder (OpenAI, open_clip or "
            "Hugging Face).",
            show_default=False,
        ),
    ],
    targets: Annotated[
        Path,
        typer.Option(
            help="The pairs in question: a folder of images with a table captions.csv, .jsonl or "
            ".parquet (columns file, caption, and perhaps url and is_member), such a table, a "
            "webdataset .tar shard, or a folder of shards.",
            show_default=False,
        ),
    ],
    nonmembers: Annotated[
        Path,
        typer.Option(
            help="Pairs that the model cannot have seen, in the same form, and as much like the "
            "targets as can be had: from the same source, but younger than the model, say.",
            show_default=False,
        ),
    ],
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            help="Further pairs like the targets, for the attack wsa to learn from.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Another CLIP that cannot have seen the pairs: its similarities are a further "
            "blind control, and what csa is measured against.",
            show_default=False,
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="One table of captions for all folders; files are named relative to each.",
            show_default="a table in each folder",
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Attacks, separated by commas. csa: cosine similarity. aea: its loss when the "
            "image is changed. wsa: a classifier that learns from unlabelled pairs.",
            show_default="csa,aea, and wsa where there are unlabelled pairs",
        ),
    ] = None,
    weight: Annotated[
        float, typer.Option(help="Weight of the loss of similarity in aea; fix it beforehand.")
    ] = 0.1,
    draws: Annotated[
        int, typer.Option(help="Random views per transformation in aea; there are 6 of these.")
    ] = 4,
    threshold_std: Annotated[
        float,
        typer.Option(
            help="In wsa, how many standard deviations above the non-members' mean similarity an "
            "unlabelled pair must lie to pass for a member; fix it beforehand."
        ),
    ] = 1.5,
    attack_seeds: Annotated[
        int, typer.Option(help="How many times wsa starts anew; the mean score counts.")
    ] = 8,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Architecture, such as ViT-B-32, of a checkpoint without a config.",
            show_default="as the checkpoint's config says",
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            help="Activation of such a checkpoint: quick_gelu (OpenAI's) or gelu.",
            show_default="as the checkpoint's config says",
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="What the encoders compute in.")
    ] = Precision.FLOAT32,
    batch_size: Annotated[int, typer.Option(help="Pairs per step, over all devices.")] = 64,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut captions that are longer than the context.")
    ] = False,
    near_duplicates: Annotated[
        bool,
        typer.Option(help="Look for images that look alike in two sets, by perceptual hashes."),
    ] = True,
    keep_shared: Annotated[
        bool,
        typer.Option(
            "--keep-shared",
            help="Keep pairs that two sets share, and only count them: for captions by template.",
        ),
    ] = False,
    output: Annotated[
        Path,
        typer.Option(help="Folder for scores.parquet, dropped.csv, report.html and the features."),
    ] = Path("jaxinf-membership"),
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    report: Report = True,
    progress: Annotated[bool, typer.Option(help="Show progress bars on stderr.")] = True,
) -> None:
    """Score image-text pairs for membership, and say what the scores are worth.

    Every attack is judged beside blind controls that never see the model: where one of them does
    as well, the verdict is "no evidence of membership". The same line again resumes a killed run.
    """
    use_all_cores()
    import jax

    from jaxinf.cli import membership_attacks as attacks
    from jaxinf.cli.console import say, show_table
    from jaxinf.cli.membership_choices import Attack, chosen_attacks
    from jaxinf.cli.membership_features import encode_pairs, make_encoders
    from jaxinf.cli.membership_outputs import write_dropped, write_scores
    from jaxinf.cli.membership_overlaps import drop_shared_images, drop_shared_texts
    from jaxinf.cli.membership_pairs import NONMEMBERS, TARGETS, UNLABELED, read_pairs
    from jaxinf.cli.membership_rows import tokenize_sets
    from jaxinf.cli.membership_sections import figures_table
    from jaxinf.errors import check_count

    wanted = chosen_attacks(attack, unlabeled is not None)
    counts = {"--draws": draws, "--attack-seeds": attack_seeds, "--batch-size": batch_size}
    for name, value in counts.items():
        check_count(value, name)
    given = {TARGETS: targets, NONMEMBERS: nonmembers, UNLABELED: unlabeled}
    if Attack.WSA not in wanted:
        del given[UNLABELED]
    sets = {name: read_pairs(path, name, captions) for name, path in given.items() if path}
    attacks.check_enough(sets, wanted)
    checkpoint = _load(model, precision, architecture, activation)
    other = None if reference is None else _load(reference, precision)
    sets, shared = drop_shared_texts(sets, keep_shared)
    attacks.check_enough(sets, wanted)
    tokens = tokenize_sets(list(sets.values()), checkpoint.tokenize, truncate)
    draw_key, judge_key = jax.random.split(jax.random.key(seed))
    encoders = make_encoders(
        checkpoint,
        key=draw_key,
        draws=draws if Attack.AEA in wanted else 0,
        keep_features=Attack.WSA in wanted,
        hash_images=near_duplicates,
    )
    encoded = {}
    for (name, pairs), ids in zip(sets.items(), tokens, strict=True):
        if progress:
            say(f"Encoding {len(pairs):,} pairs of {name}.")
        encoded[name] = encode_pairs(
            pairs,
            ids,
            encoders,
            batch_size=batch_size,
            store=output / "features" / name,
            progress=progress,
        )
    if near_duplicates:
        encoded, alike = drop_shared_images(encoded, keep_shared)
        shared += alike
    sets = {name: pairs for name, (pairs, _) in encoded.items()}
    attacks.check_enough(sets, wanted)
    if other is not None:
        encoded = _with_reference(encoded, other, truncate, batch_size, output, progress)
    options = attacks.Options(wanted, weight, threshold_std, attack_seeds)
    judged = attacks.judge(encoded, options, key=judge_key)
    written = [write_scores(output, sets, judged), write_dropped(output, sets.values())]
    if report:
        settings = {"model": model, **given, "attack": ", ".join(wanted), "weight": weight}
        settings |= {"draws": draws, "threshold_std": threshold_std, "seed": seed}
        settings |= {"precision": precision.value, "reference": reference}
        written.append(_write(output, sets, judged, shared, settings))
    show_table(figures_table(judged.report), "Attacks and blind controls")
    for each in shared:
        if each.any:
            say(f"{each}.")
    for name, pairs in sets.items():
        bad = [file for file, reason in pairs.dropped if reason.startswith("unreadable")]
        if bad:
            listed = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
            say(f"{name}: {len(bad)} images could not be read and were left out ({listed}).")
    say(str(judged.report))
    say(f"Wrote {', '.join(str(file) for file in written)}.")


def _load(
    path: Path, precision: Precision, architecture: str | None = None, activation: Any = None
) -> Any:
    import jax.numpy as jnp

    from jaxinf.models.clip import fused_attention, load

    dtype = jnp.bfloat16 if precision is Precision.BFLOAT16 else jnp.float32
    return load(
        path,
        architecture=architecture,
        activation=activation,
        dtype=dtype,
        kernel=fused_attention(dtype),
    )


def _with_reference(
    encoded: Any, other: Any, truncate: bool, batch_size: int, output: Path, progress: bool
) -> Any:
    """What was encoded, with another model's similarities beside it."""
    from jaxinf.cli.membership_features import reference_similarity
    from jaxinf.cli.membership_rows import tokenize_sets

    tokens = tokenize_sets([pairs for pairs, _ in encoded.values()], other.tokenize, truncate)
    found = {}
    for (name, (pairs, codes)), ids in zip(encoded.items(), tokens, strict=True):
        similar = reference_similarity(
            pairs,
            ids,
            other,
            batch_size=batch_size,
            store=output / "features" / f"{name}-reference",
            progress=progress,
        )
        found[name] = pairs, codes._replace(reference=similar)
    return found


def _write(output: Path, sets: Any, judged: Any, shared: Any, settings: dict[str, Any]) -> Path:
    from jaxinf.cli.membership_findings import findings_sections
    from jaxinf.cli.membership_sections import sentence
    from jaxinf.report import write_report

    return write_report(
        output / "report.html",
        "Membership",
        findings_sections(sets, judged, shared),
        provenance(settings),
        summary=sentence(judged.report.verdict.text),
    )
