"""Searching for leaks by influence, on the user's own model."""

from typing import Any

import jax
import numpy as np

from jaxinf.applications.leakage import decide_leaks, leak_statistics, reference_influence
from jaxinf.applications.leakage.find import check_calibration
from jaxinf.cli.contract import Contract, load_contract
from jaxinf.cli.findings import default_description
from jaxinf.cli.leakage_choices import Influence
from jaxinf.cli.leakage_shared import Asked, Found
from jaxinf.cli.methods import Method, build_attributor
from jaxinf.engine import Source, as_source
from jaxinf.errors import InputError, check_examples
from jaxinf.influence import Attributor, QueryGroups

_MOST_REFERENCES = 128


def search_by_influence(name: str, method: Influence | None, asked: Asked) -> Found:
    """Score a contract's queries by influence, and decide which of them are leaks.

    Clean queries, where the contract brings some, calibrate; for the method `reference`, half
    of them (128 at most) take part in the directions in place of that.

    Raises:
        InputError: as `load_contract` and `find_leaks`; groups of queries; `reference` without
            clean queries.
    """
    contract = load_contract(name)
    if isinstance(contract.queries, QueryGroups):
        raise InputError(f"{name}: groups of examples are no single query that could be a copy")
    train, queries = as_source(contract.train), as_source(contract.queries, "queries")
    if not isinstance(train, Source) or not isinstance(queries, Source):
        raise InputError(f"{name}: train and queries must be readable by rows, not as a stream")
    clean = contract.clean
    count = 0 if clean is None else check_examples(clean, "clean")
    if method is None:
        method = Influence.REFERENCE if count else Influence.GRAD_COS
    attributor, apart = _attributor(name, method, contract, count)
    if clean is not None:
        check_calibration(count - apart, asked.fdr)
    found = leak_statistics(
        asked.score(attributor, contract.params, contract.queries, train, "queries"),
        **asked.settings,
    )
    null, calibration = (
        None,
        (
            "the bulk of the queries: at most a quarter of them leaked, and the statistic of "
            "the others falls off no slower than exponentially; clean queries would need neither "
            "assumption"
        ),
    )
    if count:
        left = jax.tree.map(lambda a: a[apart:], clean)
        null = leak_statistics(
            asked.score(attributor, contract.params, left, train, "clean"), **asked.settings
        )
        calibration = f"{count - apart:,} clean queries that the contract brings"
        calibration += f"; {apart} more are the references" if apart else ""
    leaks = decide_leaks(found, null, fdr=asked.fdr)
    signed = not asked.settings["signed"]
    return Found(
        leaks,
        null,
        attributor.name,
        calibration,
        len(train),
        {"labels_disagree": leaks.score < 0} if signed else {},
        lambda row: _card(contract, queries, row),
        lambda row: _card(contract, train, row),
        signed,
        ()
        if signed
        else ("Copies under another label score strongly negative: --absolute finds them too.",),
    )


def _attributor(
    name: str, method: Influence, contract: Contract, count: int
) -> tuple[Attributor, int]:
    """The attributor, and how many of the clean queries are its references."""
    if method is not Influence.REFERENCE:
        return build_attributor(Method(method.value), contract.loss_fn), 0
    if count < 4:
        raise InputError(
            f"{name}: the method reference needs clean queries: return some 200 as 'clean', or "
            "choose --method grad-cos"
        )
    apart = min(_MOST_REFERENCES, count // 2)
    reference = jax.tree.map(lambda a: np.asarray(a)[:apart], contract.clean)
    return reference_influence(contract.loss_fn, reference), apart


def _card(contract: Contract, source: Source, row: int) -> tuple[str, np.ndarray | None]:
    example: Any = jax.tree.map(lambda a: np.asarray(a)[0], source.read(row, row + 1))
    caption, picture = default_description(example)
    return f"row {row}" + (f", {caption}" if caption else ""), picture
