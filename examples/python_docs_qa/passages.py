"""Cuts a topic of Python's language reference, as `pydoc` keeps it, into passages that can be read alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MIN_WORDS = 18
TARGET_WORDS = 75

_UNDERLINE = re.compile(r"([*=\-~^\"'#])\1{2,}")
_SIGNATURE = re.compile(
    r"(?:class |exception |coroutine |async |static |classmethod )?[A-Za-z_][\w.]*(?:\(.*\))?(?: -> .*)?"
)
_BULLET = re.compile(r"(?:\*|\d+\.|\([a-z\d]+\)) +")
_GRAMMAR = re.compile(r"[a-z_]+ *::=|[a-z]+_[a-z_]+: |[a-z]+: {2,}")
_FOOTNOTE = re.compile(r"\[\d+\] ")
_REFERENCE = re.compile(r" \[\d+\](?=[\s.,;:)]|$)")
_NAMES = frozenset({"None", "True", "False", "Ellipsis", "NotImplemented"})
_CODE = re.compile(
    r">>>|\.\.\. |[\w.]+ ?= |[\w.]+\(.*\)$|(?:def|class|if|for|while|try|with|import|from|return|print|del|assert|async|raise|match|case|except|finally|else)\b.*[:)\w]$|[-+|#=]|\$ "
)


@dataclass(slots=True)
class _Paragraph:
    indent: int
    lines: list[str]

    @property
    def text(self) -> str:
        """The lines as one; a word that was divided at its hyphen is whole again."""
        joined = ""
        for line in self.lines:
            joined += line.strip() if not joined or joined.endswith("-") else f" {line.strip()}"
        return re.sub(r" {2,}", " ", joined)


@dataclass(slots=True)
class _Passage:
    heading: str
    parts: list[str] = field(default_factory=list)
    words: int = 0

    def __str__(self) -> str:
        return "\n\n".join([self.heading, *self.parts])


def iter_passages(topic_text: str) -> Iterator[str]:
    """Give the passages of one topic, in order: heading or signature, then paragraphs, lists and short code."""
    for passage in _iter_drafts(list(_iter_paragraphs(topic_text))):
        if passage.words >= MIN_WORDS:
            yield str(passage)


def _iter_paragraphs(text: str) -> Iterator[_Paragraph]:
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = [line.rstrip() for line in block.split("\n") if line.strip()]
        if not lines:
            continue
        indents = [len(line) - len(line.lstrip()) for line in lines]
        # A term and, deeper on the next line, what it means.
        is_term = len(lines) > 1 and indents[1] > indents[0] and not _BULLET.match(lines[0].lstrip())
        if is_term and not _looks_like_code(lines):
            yield _Paragraph(indents[0], lines[:1])
            yield _Paragraph(indents[1], lines[1:])
        else:
            yield _Paragraph(indents[0], lines)


def _iter_drafts(paragraphs: list[_Paragraph]) -> Iterator[_Passage]:
    section = ""
    open_terms: list[tuple[int, str]] = []
    passage = _Passage("")
    skipped_below: int | None = None
    for index, paragraph in enumerate(paragraphs):
        if paragraph.text.startswith("-[ Footnotes ]-"):
            break
        if skipped_below is not None and paragraph.indent > skipped_below:
            continue
        skipped_below = paragraph.indent if paragraph.text == "See also:" else None
        if skipped_below is not None or paragraph.text.startswith("See also"):
            continue
        following = paragraphs[index + 1] if index + 1 < len(paragraphs) else None
        heading = _heading(paragraph)
        is_term = heading is None and _is_term(paragraph, following)
        is_left = any(paragraph.indent <= indent for indent, _ in open_terms)
        is_full = passage.words >= TARGET_WORDS and not _BULLET.match(paragraph.text)
        if heading or is_term or is_left or is_full:
            yield passage
            open_terms = [
                (indent, term) for indent, term in open_terms if indent < paragraph.indent and not heading
            ]
            section = heading or section
            if is_term:
                open_terms.append((paragraph.indent, _plain_term(paragraph)))
            begun = open_terms[-1][1] if open_terms else section
            passage = _Passage(begun if heading or is_term else f"{begun.splitlines()[0]} (continued)")
        if not (heading or is_term):
            _add(passage, paragraph)
    yield passage


def _add(passage: _Passage, paragraph: _Paragraph) -> None:
    text = paragraph.text
    if (
        text in ("Note:", "Warning:", "Hint:", "Tip:")
        or _GRAMMAR.match(paragraph.lines[0].strip())
        or _FOOTNOTE.match(text)
    ):
        return
    if _looks_like_code(paragraph.lines):
        if passage.parts and len(paragraph.lines) <= 12 and "|" not in text:
            passage.parts.append("\n".join(f"    {line[paragraph.indent :]}" for line in paragraph.lines))
        return
    passage.parts.append(_mark_code(text))
    passage.words += len(text.split())


def _heading(paragraph: _Paragraph) -> str | None:
    if len(paragraph.lines) == 2 and _UNDERLINE.fullmatch(paragraph.lines[1].strip()):
        return _mark_code(paragraph.lines[0].strip().replace("*", ""))
    return None


def _is_term(paragraph: _Paragraph, following: _Paragraph | None) -> bool:
    if following is None or following.indent <= paragraph.indent or _looks_like_code(following.lines):
        return False
    if all(_SIGNATURE.fullmatch(line.strip()) for line in paragraph.lines):
        return True
    return len(paragraph.lines) == 1 and len(paragraph.text.split()) <= 8 and paragraph.text[-1] not in ".:,;"


def _plain_term(paragraph: _Paragraph) -> str:
    """A name is put in backticks, as code is; a term of words stays as it is."""
    lines = [line.strip() for line in paragraph.lines]
    if lines[0].count("(") > lines[0].count(")"):
        lines = [paragraph.text]
    is_name = not re.match(r"(?:[A-Z][a-z]+(?:[ -]|$)|an? |the )", lines[0]) or lines[0] in _NAMES
    if not is_name:
        return _mark_code(" ".join(lines))
    return "\n".join("`{}`".format(line.strip('"')) for line in lines)


def _mark_code(text: str) -> str:
    """Put what `pydoc` has in straight quotes, which is code, in backticks; a quote inside of brackets ends none."""
    marked, position = "", 0
    while (start := text.find('"', position)) >= 0:
        end = _closing_quote(text, start)
        if end is None:
            break
        before, code = _REFERENCE.sub("", text[position:start]), text[start + 1 : end]
        position = end + 1
        if before.endswith("“") and text[position : position + 1] == "”":
            before, position = before[:-1], position + 1
        marked += f"{before}`{code}`"
    return marked + _REFERENCE.sub("", text[position:])


def _closing_quote(text: str, start: int) -> int | None:
    end = text.find('"', start + 2)
    while end >= 0:
        code = text[start + 1 : end]
        is_whole = all(code.count(opening) == code.count(closing) for opening, closing in ("()", "[]", "{}"))
        if (is_whole or len(code) <= 2) and (
            end + 1 == len(text) or not text[end + 1].isalnum() or text[end + 1] == "s"
        ):
            return end
        end = text.find('"', end + 1)
    return None


def _looks_like_code(lines: list[str]) -> bool:
    stripped = [line.strip() for line in lines]
    if _BULLET.match(stripped[0]):
        return False
    if _GRAMMAR.match(stripped[0]):
        return True
    codelike = sum(bool(_CODE.match(line)) for line in stripped)
    text = " ".join(stripped)
    if codelike * 2 >= len(stripped) and not re.match(r"[A-Z][a-z']* [a-z]", text):
        return True
    return "  #" in text or sum(char.isalpha() or char in " ,.'\"" for char in text) < 0.75 * len(text)
