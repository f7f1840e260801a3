"""A certificate as PDF, its canonical JSON attached; the same document makes the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.model.errors import Exit, MailboxError
from sandbox.report import words
from sandbox.report.canonical import canonical
from sandbox.report.pages import Part, Row, parts

ATTACHED = "certificate.json"
_FONTS = (
    Path("/usr/share/fonts/truetype/dejavu"),
    Path("/usr/share/fonts/dejavu-sans-fonts"),
    Path("/usr/share/fonts/TTF"),
)
_MARGIN, _LABEL, _LINE = 18, 56, 4.6  # millimetres


def as_pdf(document: Mapping[str, Any], language: str) -> bytes:
    """The certificate's pages.

    Raises:
        MailboxError: `font-missing`.
    """
    from fpdf import FPDF

    regular, bold = _font("DejaVuSans.ttf"), _font("DejaVuSans-Bold.ttf")
    number = _number(document)
    page_of = {"de": "Seite {} von {{nb}}", "en": "Page {} of {{nb}}"}[language]

    pdf: Any = FPDF(format="A4")

    def footer() -> None:
        pdf.set_y(-14)
        pdf.set_font("DejaVu", size=7)
        text = f"{number}   {document['digest']}   {page_of.format(pdf.page_no())}"
        pdf.cell(0, 4, text, align="C")

    pdf.footer = footer
    pdf.add_font("DejaVu", fname=regular)
    pdf.add_font("DejaVu", style="B", fname=bold)
    _describe(pdf, document, language)
    pdf.set_margins(_MARGIN, _MARGIN, _MARGIN)
    pdf.set_auto_page_break(True, margin=20)
    pdf.add_page()
    sheet = _Sheet(pdf)
    sheet.title(words.title(language))
    sheet.small(words.legend(language))
    for part in parts(document, language):
        sheet.part(part)
    pdf.ln(4)
    sheet.small(f"{words.digest_line(language)}: {document['digest']}")
    return bytes(pdf.output())


def _describe(pdf: Any, document: Mapping[str, Any], language: str) -> None:
    issued = _time(str(document.get("issued", "")))
    pdf.creation_date = issued
    pdf.set_lang(language)
    pdf.set_title(f"{words.title(language)} {_number(document)}")
    pdf.set_creator("mailbox")
    # Uncompressed, so that every program can read it and `certificate verify` needs no PDF library.
    pdf.embed_file(
        bytes=canonical(document), basename=ATTACHED, mime_type="application/json", compress=False
    )


def attached_json(content: bytes) -> bytes | None:
    """The canonical JSON that a PDF of ours carries; None when there is none."""
    begin = content.find(b'{"digest":"sha256:')
    end = content.find(b"}\n", begin) if begin >= 0 else -1
    return content[begin : end + 2] if end >= 0 else None


def _number(document: Mapping[str, Any]) -> str:
    return str(document.get("number", ""))


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _font(name: str) -> Path:
    for folder in _FONTS:
        if (folder / name).is_file():
            return folder / name
    raise MailboxError(
        "The font for the PDF is not installed; nothing was written.",
        resolution="apt install fonts-dejavu-core; or take --format text or json.",
        code="font-missing",
        exit_code=Exit.HOST,
    )


class _Sheet:
    """Writes the parts of a certificate onto pages."""

    def __init__(self, pdf: Any) -> None:
        self._pdf = pdf
        self._known = set(pdf.fonts["dejavu"].cmap) if "dejavu" in pdf.fonts else None

    def title(self, text: str) -> None:
        self._style(15, "B")
        self._pdf.multi_cell(0, 8, self._shown(text), new_x="LMARGIN", new_y="NEXT")

    def small(self, text: str) -> None:
        self._style(7.5)
        self._pdf.ln(1.5)
        self._pdf.multi_cell(0, 3.8, self._shown(text), align="L", new_x="LMARGIN", new_y="NEXT")

    def part(self, part: Part) -> None:
        needed = 14 + (len(part.to_sign) * 12 if part.to_sign else 0)
        if self._pdf.will_page_break(needed):
            self._pdf.add_page()
        self._pdf.ln(3)
        self._style(10.5, "B")
        self._pdf.multi_cell(0, 6, self._shown(part.heading), new_x="LMARGIN", new_y="NEXT")
        self._pdf.line(_MARGIN, self._pdf.get_y(), 210 - _MARGIN, self._pdf.get_y())
        self._pdf.ln(0.8)
        for row in part.rows:
            self._row(row)
        for index, line in enumerate(part.to_sign):
            self._to_sign(line, first=index == 0)

    def _row(self, row: Row) -> None:
        pdf = self._pdf
        says = self._shown(f"{row.says} [{row.source}]" if row.source else row.says)
        width = 210 - 2 * _MARGIN - _LABEL
        self._style(8.5)
        lines = pdf.multi_cell(width, _LINE, says, align="L", dry_run=True, output="LINES")
        if pdf.will_page_break(_LINE * len(lines)):
            pdf.add_page()
        top = pdf.get_y()
        self._style(8.5, "B")
        pdf.multi_cell(_LABEL - 2, _LINE, self._shown(row.label), align="L")
        bottom = pdf.get_y() + 0 if pdf.get_y() > top else top + _LINE
        pdf.set_xy(_MARGIN + _LABEL, top)
        self._style(8.5)
        pdf.multi_cell(width, _LINE, says, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.set_y(max(bottom, pdf.get_y()))

    def _to_sign(self, line: str, *, first: bool) -> None:
        pdf = self._pdf
        self._style(8.5)
        if first:
            pdf.multi_cell(0, _LINE, self._shown(line), new_x="LMARGIN", new_y="NEXT")
            return
        pdf.ln(6)
        pdf.cell(30, _LINE, self._shown(line))
        bottom = pdf.get_y() + _LINE
        pdf.line(_MARGIN + 30, bottom, _MARGIN + 120, bottom)
        pdf.ln(_LINE)

    def _style(self, size: float, style: str = "") -> None:
        self._pdf.set_font("DejaVu", style, size)

    def _shown(self, text: str) -> str:
        """What the font has no sign for is shown by its number; the attached data has it."""
        if self._known is None:
            return text
        return "".join(c if ord(c) in self._known else f"<U+{ord(c):04X}>" for c in text)
