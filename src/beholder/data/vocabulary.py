"""Words and subwords of comments by id: normalisation, building, encoding, decoding, display.

Normalisation and ordering are those of the captioner that Beholder descends from (ExpansionNet
v2): lower case, every sign a word of its own, common punctuation dropped, ids by sorted word.
This is not the tokenizer of the caption metrics (`metrics.captions`). Only the standard library,
but for `tokenizers` where subwords are built or written.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from beholder.errors import MissingExtra, VocabularyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, EOS, UNK = "PAD", "SOS", "EOS", "UNK"
SPECIAL = (EOS, PAD, BOS, UNK)
"""The special words by id, as published: upper case keeps them apart from normalised words."""

START = "▁"
"""What a piece that begins a word starts with."""

# A run of letters, digits and underscores, or one other sign that is neither a space nor dropped.
_WORD = re.compile(r"\w+|[^\w '`.?!,:;-]")


# what has no place of its own in a line: soft hyphen, zero-width space, byte order mark, joiner
_INVISIBLE = str.maketrans({"\u00ad": None, "\u200b": " ", "\ufeff": None, "\u2060": None})


def normalise_caption(text: str) -> list[str]:
    """Words of a comment, as the captioner sees them; `[]` for a comment without any.

    Lower case; `' \\` . ? ! , : ; -` are dropped; any other sign that is not a letter, digit,
    underscore or space is a word of its own. Beyond ASCII, where the published captioner tears
    words: NFC, so that one word has one form; a combining mark (a vowel of Hindi, Thai or Arabic)
    belongs to its letter; white space of any kind separates; the Turkish capital I with a dot is i.
    (A tab or line end in ASCII text is a word there; `comment_words` has none.)
    """
    if text.isascii():
        return _WORD.findall(text.lower().rstrip())
    text = unicodedata.normalize("NFC", text.translate(_INVISIBLE)).replace("\u0130", "i").lower()
    return _word_with_marks().findall(" ".join(text.split()))


def comment_words(text: str) -> list[str]:
    """The same of a comment as people have written it: white space of any kind only separates."""
    return normalise_caption(" ".join(text.split()))


@cache
def _word_with_marks() -> re.Pattern[str]:
    """`_WORD` where a combining mark, or a joiner between letters, is part of a word."""
    marks = [
        chr(code)
        for code in range(0x300, sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me")
    ]
    inner = rf"\w{''.join(marks)}\u200c\u200d"
    return re.compile(rf"\w[{inner}]*|[^{inner} '`.?!,:;-]")


def display_form(words: str) -> str:
    """A decoded comment as people write it: first letter a capital, a full stop at the end."""
    return f"{words.capitalize()}." if words else ""


class Vocabulary:
    """Words by id, with four special words among them.

    Args:
        tokens: the words in order of their ids. `PAD`, `SOS`, `EOS` and `UNK` must be there.

    Raises:
        VocabularyError: a special word is missing, or a word comes twice.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            word, count = Counter(self.tokens).most_common(1)[0]
            raise VocabularyError(
                f"The vocabulary has the word {word!r} {count} times.",
                fix="Every word must have one id.",
            )
        missing = [word for word in (PAD, BOS, EOS, UNK) if word not in self._ids]
        if missing:
            raise VocabularyError(
                f"The vocabulary lacks the special words {', '.join(missing)}.",
                fix="Add them, or build the vocabulary again from the comments.",
            )
        self.pad = self._ids[PAD]
        self.bos = self._ids[BOS]
        self.eos = self._ids[EOS]
        self.unk = self._ids[UNK]

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> Vocabulary:
        """The vocabulary of all words that occur at least `min_count` times, in linear time.

        Ids: EOS 0, PAD 1, SOS 2, UNK 3, then the words in sorted order, so that the result does
        not depend on the order of the comments.

        Raises:
            VocabularyError: no comment has a word that occurs `min_count` times.
        """
        counts: Counter[str] = Counter()
        for caption in captions:
            counts.update(comment_words(caption))
        words = sorted(word for word, count in counts.items() if count >= min_count)
        if not words:
            raise VocabularyError(
                f"No word occurs at least {min_count} times in the comments.",
                fix="Check the column of the comments, or lower the minimum count.",
            )
        return cls((*SPECIAL, *words))

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def encode(self, caption: str | Iterable[str], max_length: int | None = None) -> list[int]:
        """Ids of a comment (text, or words already normalised): bos, words, eos.

        Unknown words become UNK. At most `max_length` ids, bos and eos included: the words at
        the end are cut, the eos stays.
        """
        words = comment_words(caption) if isinstance(caption, str) else caption
        ids = [self._ids.get(word, self.unk) for word in words]
        if max_length is not None:
            ids = ids[: max(max_length - 2, 0)]
        return [self.bos, *ids, self.eos]

    def words(self, ids: Iterable[int]) -> list[str]:
        """Words of a sequence up to its first eos, without bos and pads.

        Raises:
            VocabularyError: an id that is not in the vocabulary.
        """
        words = []
        for index in ids:
            if index == self.eos:
                break
            if index in (self.bos, self.pad):
                continue
            if not 0 <= index < len(self.tokens):
                raise VocabularyError(
                    f"The id {index} is outside the vocabulary of {len(self.tokens)} words.",
                    fix="Use the vocabulary that was saved with the model.",
                )
            words.append(self.tokens[index])
        return words

    def decode(self, ids: Iterable[int]) -> str:
        """The words of a sequence, joined by spaces: see `words`, and `display_form`."""
        return " ".join(self.words(ids))

    def spell(self, ids: Iterable[int]) -> list[str]:
        """The tokens of a sequence after its bos, special words among them: what a reward sees."""
        return [self.tokens[index] for index in ids][1:]

    def to_dict(self) -> dict[str, object]:
        """What `from_dict` reads; plain JSON."""
        return {"kind": "words", "tokens": list(self.tokens)}

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Vocabulary:
        """The vocabulary that `to_dict` gave, of words or of subwords.

        Raises:
            VocabularyError: not what `to_dict` writes, or the words can't be a vocabulary.
        """
        if content.get("kind") == "subwords":
            return SubwordVocabulary.from_dict(content)
        tokens = content.get("tokens")
        well_formed = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
        if content.get("kind") != "words" or not well_formed:
            raise VocabularyError(
                "This is not a vocabulary of words.",
                fix="Use a vocabulary.json that Beholder wrote.",
            )
        assert isinstance(tokens, list)
        return cls(tokens)


class SubwordVocabulary(Vocabulary):
    """Pieces of words by id, for languages in which whole words do not work, such as Korean.

    Byte-pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword
    Units", ACL 2016) of normalised comments, trained and applied by `tokenizers`. Reading a
    comment back needs only the standard library, as judges do that. Ids as in a vocabulary of
    words: EOS 0, PAD 1, SOS 2, UNK 3.

    Args:
        tokens: the pieces in order of their ids, the special words among them.
        merges: pairs of pieces that become one, the most frequent first.

    Raises:
        VocabularyError: see `Vocabulary`.
    """

    def __init__(self, tokens: Iterable[str], merges: Iterable[tuple[str, str]]) -> None:
        super().__init__(tuple(tokens))
        self.merges = tuple((first, second) for first, second in merges)

    @classmethod
    def build_subwords(
        cls, captions: Iterable[str], size: int, min_count: int = 1
    ) -> SubwordVocabulary:
        """The vocabulary of at most `size` pieces that encodes the comments shortest.

        Every sign that occurs at least `min_count` times is a piece if there is room.

        Raises:
            VocabularyError: no comment has a word.
            MissingExtra: `tokenizers` is not installed.
        """
        texts = [text for caption in captions if (text := " ".join(_composed_words(caption)))]
        if not texts:
            raise VocabularyError("No comment has a word.", fix="Check the column of the comments.")
        try:
            from tokenizers import trainers
        except ModuleNotFoundError as error:
            raise MissingExtra("A subword vocabulary", "train") from error
        tokenizer = _tokenizer({word: index for index, word in enumerate(SPECIAL)}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=min_count,
            special_tokens=list(SPECIAL),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        id_of_piece = tokenizer.get_vocab()
        model = json.loads(tokenizer.to_str())["model"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return cls(sorted(id_of_piece, key=id_of_piece.__getitem__), [(a, b) for a, b in pairs])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SubwordVocabulary)
            and self.tokens == other.tokens
            and self.merges == other.merges
        )

    def __hash__(self) -> int:
        return hash((self.tokens, self.merges))

    def encode(self, caption: str | Iterable[str], max_length: int | None = None) -> list[int]:
        """Ids of a comment (text, or words already normalised): bos, pieces, eos.

        Raises:
            MissingExtra: `tokenizers` is not installed.
        """
        words = _composed_words(caption if isinstance(caption, str) else " ".join(caption))
        ids = self._tokenizer.encode(" ".join(words)).ids if words else []
        if max_length is not None:
            ids = ids[: max(max_length - 2, 0)]
        return [self.bos, *ids, self.eos]

    def words(self, ids: Iterable[int]) -> list[str]:
        """Words of a sequence up to its first eos, put together from their pieces."""
        return "".join(super().words(ids)).replace(START, " ").split()

    def spell(self, ids: Iterable[int]) -> list[str]:
        ids = list(ids)
        return [*self.words(ids), *(EOS for index in ids if index == self.eos)]

    def to_dict(self) -> dict[str, object]:
        merges = [list(pair) for pair in self.merges]
        return {"kind": "subwords", "tokens": list(self.tokens), "merges": merges}

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> SubwordVocabulary:
        tokens, merges = content.get("tokens"), content.get("merges")
        well_formed = (
            content.get("kind") == "subwords"
            and isinstance(tokens, list)
            and all(isinstance(token, str) for token in tokens)
            and isinstance(merges, list)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in merges)
        )
        if not well_formed:
            raise VocabularyError(
                "This is not a vocabulary of subwords.",
                fix="Use a vocabulary.json that Beholder wrote.",
            )
        assert isinstance(tokens, list)
        assert isinstance(merges, list)
        return cls(tokens, [(first, second) for first, second in merges])

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _tokenizer({piece: index for index, piece in enumerate(self.tokens)}, self.merges)

    def __getstate__(self) -> dict[str, Any]:
        # loading processes make their own
        return {name: value for name, value in self.__dict__.items() if name != "_tokenizer"}


def _composed_words(text: str) -> list[str]:
    """Words as the captioner sees them, of composed signs: Hangul syllables, not their letters."""
    return comment_words(unicodedata.normalize("NFC", text))


def _tokenizer(vocabulary: dict[str, int], merges: Iterable[tuple[str, str]]) -> Tokenizer:
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers
    except ModuleNotFoundError as error:
        raise MissingExtra("Encoding comments as subwords", "train") from error
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=START)
    return tokenizer
