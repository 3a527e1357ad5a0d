"""Sentences that state facts, and questions about them in other words; used by `benchmarks.facts`.

A fact (relation, subject, object) is put into training in some of its relation's patterns and
asked for by another one, which ends in the object. Its own training sentences are the proponents.

Left out: P1001 (one pattern), P37, P47, P190, P530 (several objects for one subject), P30 (five
objects), P1376 (says what P36 says), P361 and P276 (two patterns); patterns that belong to several
relations; sentences that state two facts.
"""

import json
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

Part = Literal["report", "development"]
LEFT_OUT = {"P1001", "P37", "P47", "P190", "P530", "P30", "P1376", "P361", "P276"}


class Fact(NamedTuple):
    """One of the facts."""

    relation: str
    subject: str
    answer: str


class FactSet(NamedTuple):
    """Training sentences and questions.

    Attributes:
        sentences: N training texts.
        facts: int[N], which fact each states.
        objects: (first, last) character of the object in each.
        prompts: of every fact, without the object.
        answers: the objects.
        relations: of every fact.
        subjects: of every fact.
    """

    sentences: list[str]
    facts: np.ndarray
    objects: list[tuple[int, int]]
    prompts: list[str]
    answers: list[str]
    relations: list[str]
    subjects: list[str]


def load_facts(folder: Path) -> tuple[list[Fact], dict[str, list[str]]]:
    """Usable facts, and the patterns of their relations.

    Raises:
        FileNotFoundError: the data set is not there.
    """
    read = lambda name: map(json.loads, (folder / name).read_text().splitlines())
    patterns: dict[str, list[str]] = {
        row["relation"]: row["patterns"] for row in read("pararel_patterns.jsonl")
    }
    owners = defaultdict(set)
    for relation, texts in patterns.items():
        for text in texts:
            owners[_tidy(text)].add(relation)
    usable = {}
    for relation, texts in patterns.items():
        own = dict.fromkeys(_tidy(text) for text in texts)
        own = [text for text in own if owners[text] == {relation}]
        if relation not in LEFT_OUT and len(own) >= 3 and any(map(ends_in_object, own)):
            usable[relation] = own
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in read("pararel_facts.jsonl"):
        if row["relation"] in usable:
            found[row["relation"], row["subject"]].add(row["object"])
    facts = [
        Fact(relation, subject, next(iter(answers)))
        for (relation, subject), answers in found.items()
        if len(answers) == 1 and not answers & {subject}
    ]
    return facts, usable


def ends_in_object(pattern: str) -> bool:
    """Whether a causal model can be asked with it."""
    return pattern.endswith("[Y].") and pattern.startswith(("[X]", "The", "the"))


def draw_facts(
    facts: list[Fact], patterns: dict[str, list[str]], seed: int, part: Part, count: int,
    per_fact: int,
) -> FactSet:  # fmt: skip
    """A training set: facts of subjects with several of them first, since they are the hard ones.

    Args:
        facts: from `load_facts`.
        patterns: from `load_facts`.
        seed: of the draw.
        part: report or development: they share no subject.
        count: facts.
        per_fact: training sentences of each, at most; one pattern is always kept for asking.
    """
    rng = np.random.default_rng(seed)
    of_subject = defaultdict(list)
    for fact in facts:
        if (zlib.crc32(fact.subject.encode()) % 2 == 0) == (part == "report"):
            of_subject[fact.subject].append(fact)
    subjects = sorted(of_subject)
    rng.shuffle(subjects)
    many = [s for s in subjects if len(of_subject[s]) > 1]
    one = [s for s in subjects if len(of_subject[s]) == 1]
    chosen: list[Fact] = []
    for subject in [*many, *one]:
        if len(chosen) < count:
            chosen += of_subject[subject]
    chosen = chosen[:count]
    stated = defaultdict(set)
    drawn = []
    for number, fact in enumerate(chosen):
        order = [patterns[fact.relation][i] for i in rng.permutation(len(patterns[fact.relation]))]
        asking = next(text for text in order if ends_in_object(text))
        for text in [text for text in order if text != asking][:per_fact]:
            sentence, where = fill(text, fact)
            stated[sentence].add(number)
            drawn.append((sentence, where, number))
        drawn.append((None, (0, 0), asking))
    rows = [row for row in drawn if row[0] is not None and len(stated[row[0]]) == 1]
    asked = [row[2] for row in drawn if row[0] is None]
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    prompts = [
        fill(text.removesuffix(" [Y]."), fact)[0] for text, fact in zip(asked, chosen, strict=True)
    ]
    return FactSet(
        [row[0] for row in mixed],
        np.array([row[2] for row in mixed]),
        [row[1] for row in mixed],
        prompts,
        [fact.answer for fact in chosen],
        [fact.relation for fact in chosen],
        [fact.subject for fact in chosen],
    )  # fmt: skip


def fill(pattern: str, fact: Fact) -> tuple[str, tuple[int, int]]:
    """The sentence, and where its object stands."""
    text = pattern.replace("[X]", fact.subject)
    begins = text.find("[Y]")
    return text.replace("[Y]", fact.answer), (begins, begins + len(fact.answer))


def _tidy(pattern: str) -> str:
    text = " ".join(pattern.replace(" .", ".").split()).rstrip(" .,")
    return text + "."
