"""A vocabulary of subwords, for languages in which whole words do not work, such as Korean.

Byte-pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units",
ACL 2016) of normalised comments, trained and applied by `tokenizers`. Reading a comment back needs
only the standard library, as judges do that.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from beholder.data.vocabulary import BOS, EOS, PAD, UNK, Vocabulary, comment_words
from beholder.errors import MissingExtra, VocabularyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START = "▁"
"""What a piece that begins a word starts with."""


class SubwordVocabulary(Vocabulary):
    """Pieces of words by id. Ids as in a vocabulary of words: EOS 0, PAD 1, SOS 2, UNK 3.

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
        texts = [text for caption in captions if (text := " ".join(_normalise(caption)))]
        if not texts:
            raise VocabularyError("No comment has a word.", fix="Check the column of the comments.")
        try:
            from tokenizers import trainers
        except ModuleNotFoundError as error:
            raise MissingExtra("A subword vocabulary", "train") from error
        tokenizer = _tokenizer({word: index for index, word in enumerate(_SPECIAL)}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=min_count,
            special_tokens=list(_SPECIAL),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        found = tokenizer.get_vocab()
        model = json.loads(tokenizer.to_str())["model"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return cls(sorted(found, key=lambda piece: found[piece]), [(a, b) for a, b in pairs])

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
        words = _normalise(caption if isinstance(caption, str) else " ".join(caption))
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


_SPECIAL = (EOS, PAD, BOS, UNK)


def _normalise(text: str) -> list[str]:
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
