"""Blind controls: scores by attacks that never see the model in question.

Where one of them tells members from non-members, the two sets differ by themselves, and an attack
on the model that does no better shows nothing. A third control needs no code of its own:
`cosine_similarity_attack` on the features of another model, which never saw the pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra
from jaxinf.membership.checks import check_features
from jaxinf.typing import AnyArray


def bag_of_words_control(
    captions: Sequence[str],
    is_member: ArrayLike,
    *,
    seed: int,
    num_folds: int = 5,
    groups: ArrayLike | None = None,
) -> Float[np.ndarray, " N"]:
    """How much like a member a caption reads, by its words alone.

    TF-IDF of single words, and a logistic regression of membership on it. Scores are
    cross-fitted: the words of a caption are judged by a model of the other folds, so no example
    is scored by a model that was trained on it. Without any signal such scores lean a little
    below chance where few words are shared by many captions: each caption held out takes its
    label along.

    Args:
        captions: N texts; empty ones carry no word and get the intercept.
        is_member: bool[N]; each kind at least `num_folds` times.
        seed: the folds.
        num_folds: how many, at least 2.
        groups: int or string[N], examples that must share a fold, such as near-duplicates.

    Returns:
        float64[N], log-odds, higher = more likely a member.

    Raises:
        InputError: for captions that are not strings, one for each label, without any word, labels
            that are not bool or too few of a kind, or options out of range.
        MissingExtraError: scikit-learn is not installed.

    Reference:
        Das, Zhang and Tramèr, "Blind Baselines Beat Membership Inference Attacks for Foundation
        Models" (arXiv 2406.16201).

    Example:
        >>> captions = ["red dog", "red cat", "red cow", "blue dog", "blue cat", "blue cow"]
        >>> member = np.array([True, True, True, False, False, False])
        >>> scores = bag_of_words_control(captions, member, seed=0, num_folds=3)
        >>> bool(scores[:3].min() > scores[3:].max())
        True
    """
    texts = list(captions)
    wrong = next((n for n, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"captions[{wrong}] is {type(texts[wrong]).__name__}, not a string")
    vectoriser = require_extra("sklearn.feature_extraction.text", "cli").TfidfVectorizer(
        token_pattern=r"(?u)\b\w+\b"  # single letters and digits are words too
    )
    analyse = vectoriser.build_analyzer()
    if not any(analyse(text) for text in texts):
        raise InputError(f"the {len(texts)} captions hold no word: nothing can be counted")
    return _cross_fit(vectoriser, np.asarray(texts, object), is_member, seed, num_folds, groups)


def feature_control(
    features: AnyArray,
    is_member: ArrayLike,
    *,
    seed: int,
    num_folds: int = 5,
    groups: ArrayLike | None = None,
) -> Float[np.ndarray, " N"]:
    """How much like a member an example looks, by features that never saw the training set.

    A logistic regression of membership on standardised features, cross-fitted as
    `bag_of_words_control`. Meant for an untrained encoder (the model in question with random
    weights), or one trained on other data.

    Args:
        features: number[N, d].
        is_member: bool[N]; each kind at least `num_folds` times.
        seed: the folds.
        num_folds: how many, at least 2.
        groups: int or string[N], examples that must share a fold.

    Returns:
        float64[N], log-odds, higher = more likely a member.

    Raises:
        InputError: for features that are not [N, d] or not finite, or as
            `bag_of_words_control`.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> features = np.array([[1.0], [2.0], [3.0], [-1.0], [-2.0], [-3.0]], np.float32)
        >>> member = features[:, 0] > 0
        >>> scores = feature_control(features, member, seed=0, num_folds=3)
        >>> bool(scores[:3].min() > scores[3:].max())
        True
    """
    rows = np.asarray(check_features(features, "features"))
    scaler = require_extra("sklearn.preprocessing", "cli").StandardScaler()
    return _cross_fit(scaler, rows, is_member, seed, num_folds, groups)


def _cross_fit(
    preparation: Any,
    rows: np.ndarray,
    is_member: ArrayLike,
    seed: int,
    num_folds: int,
    groups: ArrayLike | None,
) -> Float[np.ndarray, " N"]:
    member = np.asarray(is_member)
    if member.shape != (len(rows),) or member.dtype != bool:
        raise InputError(
            f"is_member is {member.dtype}{list(member.shape)}: bool[{len(rows)}], one for each "
            "example"
        )
    if num_folds < 2:
        raise InputError(f"num_folds is {num_folds}: at least 2")
    if groups is not None and np.shape(groups) != (len(rows),):
        raise InputError(f"groups have shape {np.shape(groups)}: one for each of {len(rows)}")
    selection = require_extra("sklearn.model_selection", "cli")
    for kind, mask in (("members", member), ("non-members", ~member)):
        units = mask.sum() if groups is None else len(np.unique(np.asarray(groups)[mask]))
        if units < num_folds:
            what = "" if groups is None else "groups of "
            raise InputError(
                f"{units} {what}{kind}: a control with {num_folds} folds needs as many"
            )
    folds = selection.StratifiedKFold if groups is None else selection.StratifiedGroupKFold
    model = require_extra("sklearn.pipeline", "cli").make_pipeline(
        preparation, require_extra("sklearn.linear_model", "cli").LogisticRegression(max_iter=2000)
    )
    return selection.cross_val_predict(
        model,
        rows,
        member,
        groups=groups,
        cv=folds(num_folds, shuffle=True, random_state=seed),
        method="decision_function",
    )
