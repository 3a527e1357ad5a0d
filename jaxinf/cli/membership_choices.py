"""What `jaxinf membership` offers by name; light, since every command's help imports it."""

from collections.abc import Sequence
from enum import StrEnum

from jaxinf.errors import InputError


class Attack(StrEnum):
    """A membership attack; its value is what the user types."""

    CSA = "csa"
    AEA = "aea"
    WSA = "wsa"


class Precision(StrEnum):
    """What the encoders compute in; its value is what the user types."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def chosen_attacks(names: Sequence[str] | None, has_unlabeled: bool) -> tuple[Attack, ...]:
    """The attacks that were asked for, or all that the sets at hand allow.

    Args:
        names: as typed, separated by commas or given one by one; None for all that can run.
        has_unlabeled: whether there are unlabelled pairs, which WSA learns from.

    Raises:
        InputError: for an unknown name, or WSA without unlabelled pairs.

    Example:
        >>> chosen_attacks(["csa,aea"], False) == (Attack.CSA, Attack.AEA)
        True
    """
    if not names:
        return tuple(a for a in Attack if a is not Attack.WSA or has_unlabeled)
    typed = [name.strip().lower() for part in names for name in part.split(",") if name.strip()]
    for name in typed:
        if name not in list(Attack):
            raise InputError(f"--attack {name} is unknown: choose from {', '.join(Attack)}")
    if not typed:
        raise InputError(f"--attack names nothing: choose from {', '.join(Attack)}")
    if Attack.WSA in typed and not has_unlabeled:
        raise InputError(
            "--attack wsa learns from unlabelled pairs, of which some are members: give them by "
            "--unlabeled, or leave wsa out"
        )
    return tuple(attack for attack in Attack if attack in typed)
