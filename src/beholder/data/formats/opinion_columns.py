"""Which columns hold opinions: scores, their spread, sentences, labels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from beholder.data.annotations import ATTRIBUTE_PREFIX
from beholder.data.formats import words
from beholder.data.formats.column_names import preference, role_of_name
from beholder.data.formats.column_profile import Profile
from beholder.data.formats.column_roles import Doubt, Roles

_SENTENCE = 3.0  # words of a value, on average
_LONGEST_LABEL = 6.0  # words
_MOST_CLASSES = 1000
_FEW_NUMBERS = 20  # distinct whole numbers that could be classes
_ALWAYS = ("score", "mos")
_NO_COMMENT = words.word_set(
    "prompt question title user username author path name url date time id number count"
)
_NO_LABEL = (
    words.REFERENCE
    | words.SPREAD
    | words.RATER
    | words.word_set(
        "dis dist distortion distorted valid flag flash question answer raw comment caption "
        "subset note notes group scene condition prompt"
    )
)
_MEASURES = words.word_set("id ids url uri path name time date timestamp count width height at")


def find_comments(roles: Roles, left: Mapping[str, Profile]) -> None:
    """Columns of sentences: those named so, if they hold text; else the only one of sentences."""
    if "comments" in roles.columns:
        return
    named_columns = [
        column
        for name, column in left.items()
        if name not in roles.taken
        and (role_of_name(name) == "comments" or words.has(name, words.COMMENT))
        and not words.has(name, _NO_COMMENT)
    ]
    texts = [
        column
        for column in named_columns
        if column.kind != "numbers" and (column.filled == 0 or column.numeric < 1)
    ]
    for column in named_columns:
        if column not in texts:
            roles.notes.append(
                f"{column.name!r} holds numbers: it is taken as a count, no comment."
            )
    texts.sort(key=lambda column: preference(column.name))
    if texts:
        _take_comments(roles, texts, "its name")
        return
    sentences = [
        column
        for name, column in left.items()
        if name not in roles.taken and _is_sentences(column) and not words.has(name, _NO_COMMENT)
    ]
    if len(sentences) == 1:
        roles.take("comments", sentences[0].name, "its values are sentences")
    elif sentences:
        roles.doubts.append(_doubt("hold sentences", "comments", sentences))


def _take_comments(roles: Roles, texts: list[Profile], why: str) -> None:
    """The preferred column, and with `caption_1` also `caption_2` and so on."""
    base = _base(texts[0].name)
    series = [column for column in texts if _base(column.name) == base] if base else texts[:1]
    for number, column in enumerate(series, 1):
        roles.take("comments" if number == 1 else f"comments.{number}", column.name, why)
    others = [column.name for column in texts if column not in series and column.filled]
    if others:
        roles.notes.append(
            f"Also sentences: {', '.join(others)}. To take one: --columns comments={others[0]}"
        )


def _base(name: str) -> str | None:
    """`caption` of caption_3; None for a name without a number."""
    match = re.fullmatch(r"(.*?\D)\d+", words.joined(name))
    return match[1] if match else None


def _is_sentences(column: Profile) -> bool:
    if column.kind == "texts":
        return column.words >= _SENTENCE
    are_texts = column.filled > 0 and column.numeric < 0.2 and column.pictures < 0.5
    return are_texts and column.words >= _SENTENCE and column.distinct > 0.3 * column.filled


def find_scores(roles: Roles, left: Mapping[str, Profile], has_header: bool) -> None:
    """The score of the best rank of name; the others are told."""
    if "score" in roles.columns:
        return
    ranked: list[tuple[int, int, int, Profile]] = []
    for position, (name, column) in enumerate(left.items()):
        rank = None if name in roles.taken else _score_rank(column, has_header)
        if rank is not None:
            ranked.append((rank, preference(name), position, column))
    ranked.sort(key=lambda entry: entry[:3])
    well_named = [entry[3] for entry in ranked if entry[0] < 3]
    if any(role.startswith("rating.") for role in roles.columns):
        well_named = [entry[3] for entry in ranked if entry[0] < 2]
    if well_named:
        best, *others = well_named
        roles.take("score", best.name, "numbers, and its name")
        if others:
            shown = ", ".join(column.name for column in others)
            roles.notes.append(
                f"Several columns are scores; {best.name!r} is taken. Also: {shown}. To take "
                f"another: --columns 'score={others[0].name}'"
            )
        return
    if any(role.startswith(("rating.", "votes.")) for role in roles.columns):
        return
    plain = [entry[3] for entry in ranked]
    if len(plain) == 1 and not has_header and _like_indices(plain[0]):
        roles.doubts.append(_score_or_label(plain))
    elif len(plain) == 1:
        roles.take("score", plain[0].name, "the only column of numbers that could be one")
    elif plain:
        roles.doubts.append(_doubt("could each be the score", "score", plain))


def _like_indices(column: Profile) -> bool:
    """Whole numbers from 0, of few values: as class indices are written."""
    few = column.distinct <= _FEW_NUMBERS and column.distinct < column.filled
    return few and column.whole and column.low == 0


def _score_rank(column: Profile, has_header: bool) -> int | None:
    """0 for the plainest name, 2 for a hint, 3 for numbers without a name; None: no score."""
    name = column.name
    if words.joined(name) in _ALWAYS:
        return 0
    if not (column.is_number or (column.kind == "text" and column.numeric >= 0.5)):
        return None if column.filled or role_of_name(name) != "score" else 1
    if role_of_name(name) == "score":
        return 1
    if column.counts:
        return None
    if words.has(name, words.SPREAD | words.VARIANCE | words.REFERENCE - {"gt"}):
        return None
    if words.has(name, words.SCORE_FIRST) and not words.has(name, words.METADATA - {"path"}):
        return 1
    if words.has(name, words.METADATA) or not column.varies:
        return None
    if words.has(name, words.SCORE):
        classes = words.has(name, frozenset({"label", "target"})) and column.whole
        return None if classes and column.distinct <= _FEW_NUMBERS else 2
    if words.has(name, words.LABEL) or words.beyond_latin(name):
        return None
    return 3 if not has_header or not column.whole else None


def find_spread(roles: Roles, left: Mapping[str, Profile]) -> None:
    """The deviation or variance that goes with the score: the rest of its name is the score's."""
    score = roles.columns.get("score")
    about = _subject(score) if score else frozenset()
    for name, column in left.items():
        if name in roles.taken or not (column.is_number or column.filled == 0):
            continue
        spread, variance = words.has(name, words.SPREAD), words.has(name, words.VARIANCE)
        spread = spread or words.beyond_latin(name) == "score_std"
        alone = role_of_name(name) in ("score_std", "score_var") and bool(score)
        if (spread or variance) and score and (alone or _subject(name) == about):
            role = "score_var" if variance and not spread else "score_std"
            roles.take(role, name, f"the spread of {score!r}")


def _subject(name: str) -> frozenset[str]:
    """What a score or spread is of: `quality` of mos_quality and of std_quality."""
    left = set(words.words_of(name)) - words.SPREAD - words.VARIANCE - words.SCORE_FIRST
    return frozenset(left - {"mean", "average", "avg", "rating", "ratings", "opinion"})


def find_labels(
    roles: Roles, left: Mapping[str, Profile], has_header: bool, attribute: str
) -> None:
    """Columns of few values that come again and again."""
    unclear: list[Profile] = []
    for name, column in left.items():
        if name in roles.taken or _is_no_label(name):
            continue
        if words.beyond_latin(name) not in (None, "label"):
            continue
        role = ATTRIBUTE_PREFIX + (name if has_header else attribute)
        if column.several is not None:
            roles.take(role, name, f"{column.several.labels} labels, several at once")
        elif column.kind != "text":
            continue
        elif _is_label(column):
            roles.take(role, name, f"{column.distinct} values that come again")
        elif (
            column.is_number
            and column.whole
            and 2 < column.distinct <= _FEW_NUMBERS
            and not column.counts
        ):
            unclear.append(column)
    opinions = ("score", "comments", "attribute.", "rating.", "votes.")
    if unclear and not roles.doubts and not any(r.startswith(opinions) for r in roles.columns):
        roles.doubts.append(_score_or_label(unclear))


def _is_no_label(name: str) -> bool:
    """Names of what is nobody's opinion: `lead_time`, `CI HIGH`, but not `High_Cheekbones`."""
    parts = words.words_of(name)
    plain = [word for word in parts if not word.isdigit()]
    metadata = bool(plain) and all(word in words.METADATA for word in plain)
    measure = bool(parts) and parts[-1] in _MEASURES
    return metadata or measure or words.has(name, _NO_LABEL)


def _is_label(column: Profile) -> bool:
    named_as_label = words.has(column.name, words.LABEL | {"label", "target"})
    named_as_label = named_as_label or words.beyond_latin(column.name) == "label"
    if not 2 <= column.distinct < column.filled or max(column.pictures, column.urls) > 0.5:
        return False
    if column.numeric > 0.5:
        few = column.distinct == 2 or (named_as_label and column.distinct <= _MOST_CLASSES)
        return column.whole and few
    most = column.filled * (0.9 if named_as_label else 0.5)
    return column.words <= _LONGEST_LABEL and column.distinct <= min(max(most, 2), _MOST_CLASSES)


def _doubt(what: str, role: str, columns: list[Profile]) -> Doubt:
    names = ", ".join(repr(column.name) for column in columns)
    return Doubt(f"The columns {names} {what}.", tuple({role: column.name} for column in columns))


def _score_or_label(columns: list[Profile]) -> Doubt:
    name = columns[0].name
    return Doubt(
        f"{name!r} holds {columns[0].distinct} whole numbers: scores, or the classes of an "
        "attribute.",
        ({"score": name}, {f"{ATTRIBUTE_PREFIX}{name}": name}),
    )
