"""The Penn Treebank tokenizer as the MS-COCO caption evaluation uses it, in Python.

Lower-cased tokens without that evaluation's list of punctuation. A caption is cut at white space
first: most pieces are plain words or have been seen before. The others, and those whose tokens
depend on what follows the space, go through the table of `ptb_rules`.
"""

from __future__ import annotations

import re
from typing import overload

from beholder.errors import DataError
from beholder.metrics.captions.ptb_rules import ABBREVIATED, SPLIT_WORDS, Rule, rules

PTB_VERSION = "1 (CoreNLP 3.4.1, MS-COCO punctuation)"

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that the evaluation removes. It also lists -LRB- and the like, but looks for them in lower
case text: brackets stay, as -lrb-, -rrb-, -lcb- and -rcb-."""

_MEMORY = 200_000  # distinct pieces remembered
# A word of letters, perhaps with hyphens, a possessive, quotes and brackets around it.
_PLAIN = re.compile(r"(\(?)[\"`]*([A-Za-z]{2,}(?:-[A-Za-z]+)*)('s)?[\"`]*(\)?)([.,;:!?]?)")
# A piece whose tokens can depend on what follows: a tag with spaces, a number (telephone,
# fraction), an abbreviation that waits for a number, an initial that may end a sentence.
_REACHING = re.compile(
    r"<|[0-9)]\Z|(?<![A-Za-z])(?i:art|ca|figs?|nos?|op|pp|prop)\.\Z|(?<![A-Za-z])[A-Za-z]\.\Z"
)


@overload
def ptb_tokenize(captions: str) -> list[str]: ...
@overload
def ptb_tokenize(captions: list[str] | tuple[str, ...]) -> list[list[str]]: ...
def ptb_tokenize(
    captions: str | list[str] | tuple[str, ...],
) -> list[str] | list[list[str]]:
    """Tokens of one caption, or of each of a list.

    A list is read as the MS-COCO evaluation reads it: as the lines of one text. There, the next
    caption decides two cases at the end of a caption: an initial before `The` loses its full stop,
    and `no.` before a number keeps it.

    Raises:
        DataError: a caption is not a string.
    """
    if isinstance(captions, str):
        return _tokens(captions.split(), "")
    for row, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise DataError(
                f"A caption must be text, not {type(caption).__name__}.", where=f"row {row}"
            )
    pieces = [caption.split() for caption in captions]
    result: list[list[str]] = []
    following = ""
    for row in range(len(pieces) - 1, -1, -1):
        result.append(_tokens(pieces[row], following))
        following = pieces[row][0] if pieces[row] else following
    result.reverse()
    return result


_memory: dict[str, tuple[str, ...]] = {}  # pieces that always have the same tokens
_alone: dict[str, tuple[str, ...]] = {}  # tokens of the others when nothing reaches over


def forget() -> None:
    """Drop the remembered pieces: they cost memory, never change a result."""
    _memory.clear()
    _alone.clear()


def _tokens(pieces: list[str], following: str) -> list[str]:
    result: list[str] = []
    known = _memory.get
    skipped = 0  # pieces that a token of an earlier piece has taken
    for index, piece in enumerate(pieces):
        if skipped:
            skipped -= 1
            continue
        tokens = known(piece)
        if tokens is None:
            tokens = _alone.get(piece)
            if tokens is None:
                reaching = _REACHING.search(piece) is not None
                tokens = _piece(piece)
                memory = _alone if reaching else _memory
                if len(memory) >= _MEMORY:
                    memory.clear()
                memory[piece] = tokens
            else:
                reaching = True
            if reaching and _reaches(pieces, index, following):
                spanning, skipped = _across(pieces, index, following)
                result += spanning
                continue
        result += tokens
    return result


def _reaches(pieces: list[str], index: int, following: str) -> bool:
    """Whether what follows a piece of `_REACHING` can be of the kind that matters."""
    piece = pieces[index]
    if "<" in piece:
        return True
    if index + 1 < len(pieces):
        first = pieces[index + 1][0]
    elif piece[-1] == ".":
        first = following[:1]
    else:
        return False  # no number goes on in the next caption
    return first.isdigit() or (piece[-1] == "." and (first.isupper() or first == "<"))


def _piece(piece: str) -> tuple[str, ...]:
    """Tokens of a piece on its own."""
    plain = _PLAIN.fullmatch(piece)
    if plain is not None:
        opening, word, possessive, closing, end = plain.groups()
        word = word.lower()
        bare = not possessive and end == "." and piece[-2].isalpha()
        if word not in SPLIT_WORDS and not (bare and word in ABBREVIATED):
            return (
                *(("-lrb-",) if opening else ()),
                word,
                *(("'s",) if possessive else ()),
                *(("-rrb-",) if closing else ()),
            )
    return tuple(_lex(piece, len(piece))[0])


def _across(pieces: list[str], index: int, following: str) -> tuple[list[str], int]:
    """Tokens from a piece on up to the next space that no token spans, and the pieces spanned."""
    piece = pieces[index]
    rest = pieces[index + 1 :]
    if "<" not in piece:
        rest = rest[:4]  # no telephone number has more parts
    text = " ".join([piece, *rest])
    if index + 1 + len(rest) == len(pieces):
        text += f"\n{following}\n"
    else:
        text += " "
    tokens, end = _lex(text, len(piece))
    return tokens, text.count(" ", 0, end)


def _lex(text: str, until: int) -> tuple[list[str], int]:
    """Tokens of `text` from its start until one ends at `until` or later, and where that is."""
    tokens: list[str] = []
    position = 0
    plain = text.isascii()
    while position < until:
        longest = position
        best: tuple[Rule, re.Match[str]] | None = None
        for rule in rules(text[position], plain):
            match = rule.match(text, position)
            if match is not None and match.end() > longest and match.end(1) > position:
                longest = match.end()
                best = rule, match
        if best is None:  # a space, or a sign that the tokenizer does not know
            position += 1
            continue
        rule, match = best
        if rule.finish is not None:
            token = rule.finish(match[1]).lower()
            if token not in PUNCTUATION:
                tokens.append(token)
        position = match.end(1)
        while position >= until and position < len(text) and not text[position].isspace():
            until = position + 1  # the token ended within a later piece: go on to its end
    return tokens, position
