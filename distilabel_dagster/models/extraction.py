"""Questions about a passage of documentation, and their answers in it, found by rules alone.

A question is made of the form of one sentence ("If the name isn't found, …" gives "What happens if the name isn't
found?"), and its answer is that sentence and what hangs on it, word for word. Nothing here knows more than the
passage says.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from distilabel_dagster.models.question_rules import (
    BULLET,
    CONDITION_RANK,
    PLURAL_ENDING,
    ask_about_name,
    ask_about_sentence,
    lower_first,
)

_MAX_ANSWER_WORDS = 75

_ABBREVIATION = re.compile(r"(?:e\.g|i\.e|etc|cf|vs|resp|[A-Z])\.$")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"”)]))\s+(?=[A-Z`\"“(*])")
_CONNECTIVE = re.compile(
    r"(?:Note that|Note,|However,|Also,|In addition,|Additionally,|In particular,|Similarly,|Therefore,|Thus,|Moreover,"
    r"|Furthermore,|Hence,|Finally,|Normally,|Usually,|In general,|In other words,|That is,|Currently,|But|And|Note:"
    r"|\*\*[^*]+\*\*:?) +"
)
_VERSION_NOTE = re.compile(
    r"(?:Changed|New|Added|Deprecated) (?:in|since) version (?P<version>\d+(?:\.\d+)*)[:.]?\s*(?P<text>.*)"
)
_HANGS_ON = re.compile(
    r"(?:This|It|They|These|Otherwise|That|Such|If so|In that case|In this case|Its|Their|Both|There)\b"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and the part of the passage that answers it; the higher the rank, the better it reads."""

    question: str
    answer: str
    rank: float


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    paragraph: int
    index: int
    """Its position among the sentences of its paragraph."""


class Passage:
    """A passage taken apart: its title, if the first paragraph is one, and its sentences.

    Paragraphs are parted by blank lines; indented ones are code, and aren't read. A title that stands in backticks
    is the name of what the passage describes; a title of words says what it's about. A title that ends in
    " (continued)" says that the passage isn't where the description begins.
    """

    def __init__(self, text: str) -> None:
        blocks = [block.strip("\n") for block in re.split(r"\n[ \t]*\n", text.strip())]
        title = blocks.pop(0) if len(blocks) > 1 and _is_title(blocks[0]) else ""
        self.title = title.removesuffix(_CONTINUED)
        self.is_continued = self.title != title
        self.is_name = bool(self.title) and all(_NAME.fullmatch(line) for line in self.title.split("\n"))
        self.paragraphs = [[] if block.startswith("    ") else split_sentences(block) for block in blocks]

    def sentences(self) -> Iterator[_Sentence]:
        """Give the sentences of the prose in order."""
        for number, paragraph in enumerate(self.paragraphs):
            for index, sentence in enumerate(paragraph):
                yield _Sentence(sentence, number, index)

    def pairs(self) -> list[Pair]:
        """Give the questions that the rules find, the best first, each once."""
        found: dict[str, Pair] = {}
        for pair in self._iter_pairs():
            if pair.answer and (pair.question not in found or found[pair.question].rank < pair.rank):
                found[pair.question] = pair
        return sorted(found.values(), key=lambda pair: (-pair.rank, pair.question))

    def _iter_pairs(self) -> Iterator[Pair]:
        about = self._context()
        for number, sentence in enumerate(self.sentences()):
            note = _VERSION_NOTE.match(sentence.text)
            early = max(0.0, 1.0 - 0.1 * number)
            if note is not None:
                if note["text"] and self.title:
                    question = f"What changed about {self._subject()} in Python {note['version']}?"
                    yield Pair(question, self._answer(sentence), 2.0)
                continue
            if number == 0 and self.title and not self.is_continued:
                about_title = self._ask_about_title(sentence.text)
                if about_title:
                    yield Pair(about_title, self._answer(sentence, is_whole=True), 10.0)
            asked = ask_about_sentence(_CONNECTIVE.sub("", sentence.text, count=1))
            if asked is not None:
                question, rank = asked
                needs_context = rank == CONDITION_RANK and "`" not in question and " if " in question
                if about and needs_context and not _shares_words(about, question):
                    question = f"{about}, {question[0].lower()}{question[1:]}"
                yield Pair(_EMPHASIS.sub(r"\1", question), self._answer(sentence), rank + early)
        told = [sentence for sentence in self.sentences() if not _VERSION_NOTE.match(sentence.text)]
        if told:
            subject = self._subject() if self.title else "its subject"
            answer = next(filter(None, map(self._answer, told)), told[0].text)
            yield Pair(f"What does the passage say about {subject}?", answer, 1.0)

    def _ask_about_title(self, sentence: str) -> str | None:
        subject = self._subject()
        if self.is_name:
            return ask_about_name(subject, sentence)
        verb = "are" if PLURAL_ENDING.search(self.title.split(" (")[0]) else "is"
        if re.match(r"(?:These|This type|They|It|Such) (?!section|chapter)", sentence):
            return f"What {verb} {subject}?"
        if sentence.lower().startswith(
            (f"{subject.lower()} are ", f"a {subject.lower()} is ", f"{subject.lower()} is ")
        ):
            return f"What {verb} {subject}?"
        return None

    def _subject(self) -> str:
        """What the title names, fit for the middle of a question."""
        if not self.is_name:
            words = " ".join(map(lower_first, self.title.split()))
            needs_article = words.endswith(_NAMED_THINGS) and not words.startswith("the ")
            return f"the {words}" if needs_article else words
        signature = self.title.split("\n")[0].strip("`")
        kind, _, rest = signature.partition(" ")
        if kind not in ("class", "exception"):
            kind, rest = "", re.sub(r"^(?:async|classmethod|coroutine|static) ", "", signature)
        name = rest if _SHORT_CALL.match(rest) else re.sub(r"\(.*\)(?: -> .*)?$", "" if kind else "()", rest)
        return f"the {kind} `{name}`" if kind else f"`{name}`"

    def _context(self) -> str:
        """A beginning for questions that would say too little by themselves: "In class definitions"."""
        title = self.title
        if not title:
            return ""
        if self.is_name:
            return f"For {self._subject()}"
        subject = self._subject()
        if re.match(r"[a-z]+ing (?!of\b)", subject) and " and " not in subject:
            return f"When {subject}"
        return f"In {subject}" if title.endswith(_NAMED_THINGS) or PLURAL_ENDING.search(title) else ""

    def _answer(self, sentence: _Sentence, is_whole: bool = False) -> str:
        """The sentence with what hangs on it: following sentences that point back at it, a list that it announces.

        Empty where the sentence can't stand by itself. `is_whole` takes further sentences of the paragraph as well.
        """
        paragraph = self.paragraphs[sentence.paragraph]
        items = self._list_after(sentence.paragraph)
        first = _CONNECTIVE.sub("", sentence.text, count=1)
        if not _ENDS.search(first) or len(first.split()) < 3:
            return ""
        taken = [first[0].upper() + first[1:]]
        for text in paragraph[sentence.index + 1 :]:
            is_wanted = is_whole or _HANGS_ON.match(text)
            is_finished = _ENDS.search(text) and (items or not text.endswith(":"))
            if not (is_wanted and is_finished) or _count_words([*taken, text]) > _MAX_ANSWER_WORDS:
                break
            taken.append(text)
        answer = " ".join(taken)
        if not answer.endswith(":"):
            return answer
        if items:
            return "\n".join([answer, *items])
        # What the colon announces is code, which isn't part of the answer; some sentences stand without it.
        return "" if _ANNOUNCES.search(answer) else f"{answer[:-1]}."

    def _list_after(self, number: int) -> list[str]:
        items: list[str] = []
        for paragraph in self.paragraphs[number + 1 :]:
            if not paragraph or not BULLET.match(paragraph[0]):
                break
            items.append(" ".join(paragraph))
        return items

    def find_answer(self, question: str) -> str | None:
        """Give the part of the passage that answers `question` best; None where no word of it occurs."""
        for pair in self.pairs():
            if pair.question.casefold() == question.strip().casefold():
                return pair.answer
        wanted = content_words(question)
        best: tuple[float, _Sentence] | None = None
        for sentence in self.sentences():
            words = content_words(sentence.text)
            score = len(words & wanted) / (len(words) + 8) if words else 0.0
            if score > 0 and (best is None or score > best[0]):
                best = (score, sentence)
        return (self._answer(best[1]) or best[1].text) if best else None


_NAMED_THINGS: Final = ("statement", "clause", "operator")
_NAME: Final = re.compile(r"`[^`]+`")
# Where the brackets say as much as the name: `len(d)`, and a debugger's `w(here)`.
_SHORT_CALL: Final = re.compile(r"[a-z]+\([a-z]+\)")
_CONTINUED: Final = " (continued)"
_ENDS: Final = re.compile(r"[.!?:][)”\"]?$")
_ANNOUNCES: Final = re.compile(
    r"\b(?:follow\w*|example|here|below|is|are|was|such as|like|this|returns?)\b[^.]{0,40}:$", re.IGNORECASE
)
_EMPHASIS: Final = re.compile(r"(?<!\*)\*([^*`]+)\*(?!\*)")


def _is_title(block: str) -> bool:
    lines = block.removesuffix(_CONTINUED).split("\n")
    if all(_NAME.fullmatch(line) for line in lines):
        return True
    return len(lines) == 1 and len(block.split()) <= 10 and not block.endswith((".", ":", "?", "!", ","))


def split_sentences(paragraph: str) -> list[str]:
    """Split prose into sentences; abbreviations and brackets don't end one."""
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(" ".join(paragraph.split())):
        if sentences and (
            _ABBREVIATION.search(sentences[-1]) or sentences[-1].count("(") > sentences[-1].count(")")
        ):
            sentences[-1] += f" {piece}"
        else:
            sentences.append(piece)
    return sentences


def content_words(text: str) -> set[str]:
    """Give the words of `text` that carry meaning, in lower case, cut to their stems' first letters."""
    return {word.lower()[:7] for word in re.findall(r"[A-Za-z_]{2,}", text)} - _FUNCTION_WORDS


_FUNCTION_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been being but by can do does for from had has have how if in into is it its may must no not"
        " of on or should so such than that the their them then there these they this those to was were what when where"
        " which while who why will with would",
    )
)


def _shares_words(left: str, right: str) -> bool:
    return bool(content_words(left) & content_words(right))


def _count_words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)
