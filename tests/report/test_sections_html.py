"""The page is well-formed, self-contained, and escapes whatever a user's data says."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.report import (
    Column,
    Example,
    Figure,
    Passage,
    Section,
    Strip,
    Table,
    render_report,
    write_report,
)
from jaxinf.report.figures import image_png

EVIL = "<script>alert(\"x\" & 'y')</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Balanced(HTMLParser):
    """Keeps the stack of open tags, and all text, tags and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def everything(text: str) -> list[Section]:
    image = image_png(np.eye(4))
    example = Example((text, text), image, "bad")
    return [
        Section(
            title=text,
            text=(text,),
            tables=(Table((Column(text), Column("n", ".2f", best=True)), ((text, 0.5),), text),),
            figures=(Figure(image, text),),
            strips=(
                Strip(((text, (example, Example((text,)))),), Example((text,), image, "query")),
            ),
            legend=(("bad", text),),
            passages=(Passage(((text, 0.5), ("plain", 0.0)), text),),
        )
    ] * 3


def test_page_is_well_formed_and_user_text_is_never_markup():
    parsed = parse(render_report(EVIL, everything(EVIL), {EVIL: EVIL}, summary=EVIL))
    assert "script" not in parsed.tags
    shown = "".join(parsed.text)
    # title, h1, summary, two of provenance; per section: contents, heading, text, column, cell,
    # caption, figcaption, legend, strip heading, the cards' 2 + 1 + 1 lines, passage and heading
    assert shown.count(EVIL) == 5 + 3 * 15


def test_page_fetches_nothing():
    page = render_report("t", everything("x"), {})
    parsed = parse(page)
    sources = [value for name, value in parsed.attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    assert not re.search(r"@import|url\(|https?://", page)


def test_links_of_the_contents_lead_somewhere():
    parsed = parse(render_report("t", everything("x"), {}))
    targets = {value for name, value in parsed.attributes if name == "id"}
    links = {value[1:] for name, value in parsed.attributes if name == "href"}
    assert links == targets == {"section-1", "section-2", "section-3", "provenance"}


def test_pictures_are_embedded_whole():
    page = render_report("t", everything("x"), {})
    found = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert base64.b64decode(found[1]) == image_png(np.eye(4))


def test_the_best_of_a_column_is_marked_and_ties_are_all_best():
    table = Table(
        (Column("m"), Column("a", ".1f", best=True), Column("b", ".1f")),
        (("x", 0.5, 9.0), ("y", 0.5, 1.0), ("z", None, 2.0)),
    )
    assert [[best for _, best in row] for row in table.shown()] == [
        [False, True, False],
        [False, True, False],
        [False, False, False],
    ]
    assert table.shown()[2][1][0] == "–"
    assert Table((Column("m", best=True),), ()).shown() == []


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", "t", [], {})
