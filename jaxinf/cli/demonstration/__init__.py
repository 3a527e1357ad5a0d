"""The demonstration: a network with planted faults, and the questions asked of it.

Each question is a function `(subject, contenders, begin) -> Answer | None`; the report, the
terminal and the files on disk are made of the answers.
"""

from jaxinf.cli.demonstration.answer import Answer
from jaxinf.cli.demonstration.contenders import CONTENDERS, Contender
from jaxinf.cli.demonstration.labels import find_wrong_labels
from jaxinf.cli.demonstration.leaks import find_leaks
from jaxinf.cli.demonstration.membership import find_members
from jaxinf.cli.demonstration.mistakes import explain_mistakes
from jaxinf.cli.demonstration.subject import Settings, Subject, train_subject
from jaxinf.cli.demonstration.values import value_the_data

QUESTIONS = (find_leaks, find_wrong_labels, value_the_data, find_members, explain_mistakes)

__all__ = [
    "CONTENDERS",
    "QUESTIONS",
    "Answer",
    "Contender",
    "Settings",
    "Subject",
    "train_subject",
]
