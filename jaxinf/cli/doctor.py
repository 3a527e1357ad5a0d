"""`jaxinf doctor`: is this machine fit? Versions, devices, and answers known beforehand."""

from typing import Annotated

import typer

from jaxinf.cli.devices import describe_devices, use_all_cores, versions


def doctor(
    progress: Annotated[bool, typer.Option(help="Show a progress bar on stderr.")] = True,
) -> None:
    """Show versions and devices, and check known answers on every device.

    Every check prints the error it measured beside the error it allows. Exit code 1 if any fails.
    """
    use_all_cores()
    import jax

    from jaxinf.cli.checkup import CHECKS, device_groups, run_check
    from jaxinf.cli.console import say, show_table, steps
    from jaxinf.report.sections import Column, Table

    show_table(Table((Column("package"), Column("version")), tuple(versions().items())))
    groups = device_groups()
    say(f"Devices: {describe_devices([d for group in groups for d in group])}")
    say(f"Backend used by default: {jax.default_backend()}\n")
    outcomes = []
    with steps(len(groups) * len(CHECKS), enabled=progress) as begin:
        for devices in groups:
            for check in CHECKS:
                begin(f"{devices[0].platform}: {check.title}")
                outcomes.append((describe_devices(devices), check, run_check(check, devices)))
    columns = (
        Column("devices"),
        Column("check"),
        Column("measured", ".2g"),
        Column("allowed", ".2g"),
        Column("result"),
    )
    rows = tuple(
        (where, check.title, outcome.measured, check.allowed, outcome.verdict)
        for where, check, outcome in outcomes
    )
    show_table(Table(columns, rows))
    for where, check, outcome in outcomes:
        if outcome.failure:
            say(f"{where}, {check.title}: {outcome.failure}")
    failed = sum(not outcome.passed for _, _, outcome in outcomes)
    if failed:
        say(f"{failed} of {len(outcomes)} checks failed.")
        raise typer.Exit(1)
    say(f"All {len(outcomes)} checks passed.")
