"""What can be asked about a sentence, by its form alone: the grammar behind `OfflineExtractiveLLM`."""

import re
from typing import Final

CONDITION_RANK: Final = 7.0
"""Rank of questions about what happens if something is so; they may need to be told where."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PLURAL_ENDING = re.compile(r"(?:[^s]s|classes|processes|accesses|suffixes)`?$")
_POINTS_AWAY = re.compile(
    r"\b(?:it|they|them|this|these|those|so|such|above|below|here|there|he|we|I|same|other|both|latter|former|following)\b",
    re.IGNORECASE,
)
_NO_NOUN_PHRASE = re.compile(
    r"\b(?:that|which|who|whose|if|when|while|where|because|but|as|than|not|it|they|this|these|those|there|what|how"
    r"|such|section|chapter|see|example|examples|is|are|was|were|be|can|may|must|will|only|note|also|then|following|he|we"
    r"|you|its|their|same|latter|former|first|second|next|result|returns?|all|some|most|many|both|none|each|every|either"
    r"|neither|one|two|three|another|otherwise|here|now|no|information|certain|special|various|several)\b",
    re.IGNORECASE,
)
_VAGUE = _words(
    "value values object objects method methods function functions name names type types expression expressions syntax"
    " argument arguments statement class default effect difference rules list implementation string operand operands"
    " operator key keys index item items attribute attributes instance target number rest idea purpose"
)
_ADVERB = r"(?:(?:first|also|always|then|never|only|simply|implicitly|usually|normally|typically|generally|often) )?"

_VERBS: Final[dict[str, str]] = {
    "contains": "contain", "has": "have", "represents": "represent", "means": "mean", "specifies": "specify",
    "denotes": "denote", "raises": "raise", "returns": "return", "yields": "yield", "provides": "provide",
    "supports": "support", "describes": "describe", "indicates": "indicate",
    "allows": "allow", "causes": "cause", "requires": "require", "accepts": "accept", "defines": "define",
    "gives": "give", "matches": "match", "introduces": "introduce", "implements": "implement", "affects": "affect",
    "combines": "combine", "maps": "map",
}  # fmt: skip
"""Verbs that a question about the subject repeats; other verbs are asked for with "do"."""
_DOING: Final = _words(
    "evaluates binds creates executes imports stores takes determines removes makes checks tests applies converts calls"
    " performs selects computes invokes suspends loads adds sets gets starts terminates ends skips catches passes uses"
    " declares ignores handles produces assigns deletes compares looks searches replaces controls changes repeats"
)
_PLURAL_VERBS: Final = frozenset(_VERBS.values()) | {re.sub(r"(?<=[sxh])es$|s$", "", verb) for verb in _DOING}
BULLET = re.compile(r"(?:\*|-|\d+\.) +")


def ask_about_name(subject: str, sentence: str) -> str | None:
    """Ask about a passage whose title is the name of what its first sentence describes."""
    if re.match(r"(?:Automatically |Also )?[Cc]alled\b", sentence):
        return f"When is {subject} called, and what for?"
    if re.match(
        r"(?:A|An|The|These|This (?:type|class variable|attribute)|Special|System-defined|Class-private)\b(?! method)",
        sentence,
    ):
        return f"What is {subject}?"
    if subject.startswith("the class ") and sentence.startswith("Return"):
        return f"What does calling {subject} return?"
    first = sentence.split(maxsplit=1)[0]
    if first in ("It", "See", "For", "In", "Deprecated", "Note", "Note,", "As", "By") or sentence.startswith(
        "**"
    ):
        return None
    is_doing = re.match(r"[A-Z][a-z]+(?:e|s|d|t|n|p|l|r|y|k|w|h|m|x) (?!is\b|are\b)", sentence)
    return f"What does {subject} do?" if is_doing or subject.endswith("()`") else None


def ask_about_sentence(sentence: str) -> tuple[str, float] | None:
    """Give the question whose answer the sentence is by its form, and a rank; None where its form gives none."""
    if not sentence or BULLET.match(sentence) or sentence.count("`") % 2:
        return None
    plain = _ASIDE.sub(lambda match: match[1] or "", sentence)
    return _ask_about_condition(plain) or _ask_about_subject(plain)


_ASIDE: Final = re.compile(
    r"(`[^`]*`)|\s*\([^()`]*(?:`[^`]*`[^()`]*)*\)|(?<=\w), (?:like|or|also|informally|in turn)[^,.]+,(?= (?:is|are) )"
)


def _ask_about_condition(sentence: str) -> tuple[str, float] | None:
    match = re.match(
        r"(?P<word>If|When|Whenever|Once) (?P<condition>(?:`[^`]*`|\([^()]*\)|[^,;:()`])+), (?P<rest>.+)",
        sentence,
    )
    if match is None:
        return None
    condition = match["condition"].strip()
    verbs = re.findall(r"\b(?:is|are|was|were|will|must|may|should)\b", condition)
    if len(verbs) > 1 and not re.search(r"\b(?:and|or|that|which|who|whose)\b", condition):
        return None
    if not 3 <= len(condition.split()) <= 20 or _POINTS_AWAY.search(re.sub(r"`[^`]*`", "", condition)):
        return None
    if re.match(
        r"(?:and|or|but|for example|e\.g|i\.e|as|which|not|such|\w+,|[\w ]+, (?:and|or)) ?", match["rest"]
    ):
        return None
    if _NO_SUBJECT.match(condition) or re.match(r"it is (?:often|usually|recommended)", match["rest"]):
        return None
    word = match["word"].lower().replace("whenever", "when")
    return f"What happens {word} {condition}?", CONDITION_RANK


def _ask_about_subject(sentence: str) -> tuple[str, float] | None:
    match = _CLAUSE.match(sentence)
    if match is None or not _is_noun_phrase(match["subject"]):
        return None
    subject, verb, rest = lower_first(match["subject"]), match["verb"], match["rest"]
    if verb not in _AUXILIARIES and not re.match(_OBJECT, rest):
        return None
    if verb in ("is", "are"):
        return _ask_about_being(subject, verb, rest)
    if verb in ("can", "can also"):
        return _ask_about_ability(subject, rest)
    return _ask_with_verb(subject, verb)


def _ask_with_verb(subject: str, verb: str) -> tuple[str, float] | None:
    if verb == "must":
        return f"What is required of {subject}?", 5.5
    if verb in ("cannot", "may not"):
        return f"What is not possible with {subject}?", 5.0
    if verb in _VERBS:
        return f"What does {subject} {_VERBS[verb]}?", 6.0
    if verb in _DOING:
        return f"What does {subject} do?", 6.5
    if PLURAL_ENDING.search(subject):
        return f"What do {subject} {verb if verb in _VERBS.values() else 'do'}?", 6.0
    return None


_NO_SUBJECT: Final = re.compile(
    r"(?:not|set|given|true|false|possible|necessary|present|absent|in|at|on|for|\w+(?:ed|en|wn))\b|\*?[a-zA-Z]\*? (?:is|are)\b"
)
_CLAUSE: Final = re.compile(
    rf"(?P<subject>(?:`[^`]*`|\*[\w ]+\*|[^,;:()`.]){{2,70}}?) {_ADVERB}"
    rf"(?P<verb>is|are|can also|can|must|cannot|may not|{'|'.join([*_VERBS, *sorted(_DOING), *sorted(_PLURAL_VERBS)])})"
    rf" {_ADVERB}(?P<rest>.+)"
)
_AUXILIARIES: Final = _words(
    "is are can must cannot has have contains contain represents represent means mean provides provide defines define"
    " implements implement"
) | {"can also", "may not"}
# What follows a verb; "imports are" and "uses for" have none.
_OBJECT: Final = (
    r"(?:an?|the|no|any|all|each|every|whether|that|its|their|only|exactly|one|two|both|some)\b|[`*“\d]|[A-Z]"
)
_ABILITIES: Final = (
    "implement|define|contain|have|support|raise|return|take|accept|override|use|access|appear|customize"
)


def _ask_about_ability(subject: str, rest: str) -> tuple[str, float] | None:
    if re.match(r"be (?:also )?used (?:to|for|as|in)\b", rest):
        return f"What can {subject} be used for?", 8.0
    active = re.match(rf"(?:{_ABILITIES})\b", rest)
    if active is not None:
        return f"What can {subject} {active[0]}?", 5.5
    passive = re.match(
        r"be (?:also )?(?P<done>[a-z]+(?:ed|en|wn|nd|lt|de)) (?:by|using|with|from|through|in)\b", rest
    )
    return (f"How can {subject} be {passive['done']}?", 6.0) if passive is not None else None


def _ask_about_being(subject: str, verb: str, rest: str) -> tuple[str, float] | None:
    if re.match(r"(?:a|an|any|one of the|the(?! same)|to|that) ", rest):
        return f"What {verb} {subject}?", 8.0
    if re.match(r"used (?:to|for|as|by|in|when|within)\b", rest):
        return f"What {verb} {subject} used for?", 8.0
    passive = re.match(r"(?P<done>[a-z]+(?:ed|en|wn|nd|lt)) (?:by|using|with|as|from|in)\b", rest)
    if passive is not None and passive["done"] not in _NO_PARTICIPLE:
        return f"How {verb} {subject} {passive['done']}?", 6.0
    return None


_NO_PARTICIPLE: Final = _words("unlimited known even and named called listed shown often")


def _is_noun_phrase(text: str) -> bool:
    plain = re.sub(r"`[^`]*`", "X", text).replace("*", "")
    words = plain.split()
    if not 1 <= len(words) <= 7 or _NO_NOUN_PHRASE.search(plain) or words[-1].lower() in _NO_END:
        return False
    if words[0] in ("At", "By", "For", "From", "In", "On", "With") or (
        len(words[-1]) == 1 and words[-1] != "X"
    ):
        return False
    has_article = bool(re.match(r"(?:A|An|The)\b", plain))
    is_made_of_verb = bool(re.match(r"[A-Z][a-z]+(?:ing|tion|sion|ment)$", words[0]))
    if not (has_article or is_made_of_verb or "X" in words or PLURAL_ENDING.search(words[-1])):
        return False
    meant = [word.lower() for word in words if word.lower() not in ("a", "an", "the")]
    # "The value" alone says nothing: of what?
    return len(meant) > 1 or (len(meant) == 1 and meant[0] not in _VAGUE)


_NO_END: Final = _words("of in to for and or by with the a an from on at name names value")


def lower_first(text: str) -> str:
    """Put the first word into lower case, unless it's a name: code, or with capitals inside."""
    first = text.partition(" ")[0]
    is_name = first[:1] in '`*“"' or any(char.isupper() for char in first[1:]) or first in _PROPER
    return text if is_name else text[:1].lower() + text[1:]


_PROPER: Final = frozenset({"Python", "Unicode", "Boolean", "None", "True", "False", "Ellipsis", "I"})
