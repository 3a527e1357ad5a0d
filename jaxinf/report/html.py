"""One HTML file that holds everything: style and pictures inside, nothing fetched from anywhere."""

import base64
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from jaxinf.errors import InputError, require_extra
from jaxinf.report.sections import Section


def render_report(
    title: str,
    sections: Sequence[Section],
    provenance: Mapping[str, str],
    *,
    summary: str = "",
) -> str:
    """Set a report as HTML. All text is escaped: what a user's data says is never markup.

    Args:
        title: of the page.
        sections: its chapters, in order.
        provenance: what made the numbers: versions, devices, seed, settings.
        summary: one or two sentences under the title.

    Returns:
        A whole HTML document.

    Raises:
        MissingExtraError: jinja2 is not installed.

    Example:
        >>> page = render_report("A < B", [Section("One", ("Text.",))], {"seed": "0"})
        >>> "A &lt; B" in page, "<h2" in page
        (True, True)
    """
    jinja2 = require_extra("jinja2", "cli")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    source = resources.files("jaxinf.report").joinpath("template.html.j2").read_text("utf-8")
    return environment.from_string(source).render(
        title=title, sections=sections, provenance=provenance, summary=summary
    )


def write_report(
    path: str | os.PathLike,
    title: str,
    sections: Sequence[Section],
    provenance: Mapping[str, str],
    *,
    summary: str = "",
) -> Path:
    """Write a report as one self-contained HTML file; its folder is created.

    Args:
        path: the file.
        title: of the page.
        sections: its chapters, in order.
        provenance: what made the numbers: versions, devices, seed, settings.
        summary: one or two sentences under the title.

    Returns:
        The path.

    Raises:
        InputError: the file cannot be written.
        MissingExtraError: jinja2 is not installed.

    Example:
        >>> import tempfile
        >>> file = write_report(Path(tempfile.mkdtemp(), "r.html"), "T", [Section("S")], {})
        >>> file.read_text(encoding="utf-8").startswith("<!doctype html>")
        True
    """
    page = render_report(title, sections, provenance, summary=summary)
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror})") from error
    return file
