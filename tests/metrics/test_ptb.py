"""The tokenizer against golden tokens, known cases, and the Java program."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prose import sentences

from beholder.errors import DataError
from beholder.metrics.captions import ptb, ptb_tokenize

# What the Java program was seen to make of these.
KNOWN = {
    "cannot gonna lemme 'tis dunno": "can not gon na lem me 't is dunno",
    "I'm WOULDN'T can't shan't y'all'd I'd've": "i 'm would n't ca n't sha n't y' all 'd i 'd 've",
    "I’m “here” ‘now’ — and… then": "i 'm here now and then",
    "'em rock 'n' roll the '90s in '68": "'em rock 'n' roll the '90s in '68",
    "o'clock O'Brien l'avion c'est qu'il ma'am": "o'clock o'brien l'avion c'est qu'il ma'am",
    "f/2.8 1/250s 24-70mm 3.5mm ISO100 16:9 10%": "f/2 .8 1/250s 24-70mm 3.5 mm iso100 16:9 10 %",
    "$5 US$5 £5 €10 5¢ #5 #tag @user": "$ 5 us$ 5 # 5 $ 10 5 cents # 5 #tag @user",
    "(a) [b] {c} <br/> a < b": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- <br/> a < b",
    '<a href="x y">link</a>': '<a\u00a0href="x\u00a0y"> link </a>',
    "Mr. Smith vs. the U.S. etc. No. 5, no. x": "mr. smith vs. the u.s. etc. no. 5 no x",
    "by X. The end. by X. an end": "by x the end by x. an end",
    ":) :-( ;) =D ^_^ (^_^)": ":-rrb- :--lrb- ;-rrb- =d ^_^ -lrb-^_^-rrb-",
    "http://a.com/b?c=d, www.x.org. me@x.org foo.com/bar": (
        "http://a.com/b?c=d www.x.org me@x.org foo.com/bar"
    ),
    "B&W AT&T a&b C++ C# R&amp;B": "b&w at&t a & b c++ c# r&b",
    "snake_case __init__ state-of-the-art x-": "snake_case __ init __ state-of-the-art x",
    "650 723 0293 and 1 1/2": "650\u00a0723\u00a00293 and 1\u00a01/2",
    "naïve 한국어 русский 😀 ★ a😀b x²": "naïve 한국어 русский ★ a b x ²",
    "... -- - ! !! ?! , ; : ' \"": "!! ?!",
    "a/b/c/d and/or 1/2 //": "a/b/c / d and/or 1/2 / /",
    "foo.txt e.g., repr., v1.2.3 1.5, 2.0.": "foo.txt e.g. repr. v1 .2.3 1.5 2.0",
    "": "",
}


def run_java(lines: Sequence[str], folder: Path) -> list[list[str]]:
    """The tokens of each line, with the command and the punctuation list of pycocoevalcap."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    source = folder / "captions.txt"
    source.write_bytes("\n".join(lines).encode("utf-8"))
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    output = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", str(source)],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ).stdout.decode("utf-8")
    tokenised = output.split("\n")[: len(lines)]
    drop = {*ptbtokenizer.PUNCTUATIONS, ""}
    return [[word for word in line.rstrip().split(" ") if word not in drop] for line in tokenised]


def test_golden_tokens(golden: dict[str, Any]) -> None:
    for texts, tokens in (("references", "tokens_refs"), ("hypotheses", "tokens_hyps")):
        for key in golden["ids"]:
            actual = [" ".join(words) for words in ptb_tokenize(golden[texts][key])]
            assert actual == golden[tokens][key]


@pytest.mark.parametrize("text", KNOWN)
def test_known_cases(text: str) -> None:
    assert " ".join(ptb_tokenize(text)) == KNOWN[text]


def test_known_cases_are_what_java_says(java: None, tmp_path: Path) -> None:
    texts = [text for text in KNOWN if text]
    assert run_java([*texts, "x"], tmp_path)[:-1] == [KNOWN[text].split(" ") for text in texts]


def test_prose_is_what_java_says(java: None, tmp_path: Path) -> None:
    lines = sentences(1500)
    if len(lines) < 1500:
        pytest.skip("this machine has no documentation to take sentences from")
    expected = run_java(lines, tmp_path)
    assert sum(a != b for a, b in zip(ptb_tokenize(lines), expected, strict=True)) <= 1


@pytest.mark.slow
def test_hundred_thousand_sentences(java: None, tmp_path: Path) -> None:
    lines = sentences(100_000)
    if len(lines) < 100_000:
        pytest.skip(f"this machine's documentation holds {len(lines)} sentences only")
    expected = run_java(lines, tmp_path)
    different = [
        (line, ours, theirs)
        for line, ours, theirs in zip(lines, ptb_tokenize(lines), expected, strict=True)
        if ours != theirs
    ]
    assert len(different) <= 100, different[:20]


def test_neighbours_decide_what_java_lets_them_decide(java: None, tmp_path: Path) -> None:
    lines = ["by X.", "The end", "by X.", "Foo", "I said no.", "5 dogs", "it is on p.", "", "A dog"]
    assert ptb_tokenize(lines) == run_java(lines, tmp_path)
    assert ptb_tokenize("by X.") == ["by", "x."]
    assert ptb_tokenize(lines)[0] == ["by", "x"]


def test_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text in KNOWN for _ in range(3)]
    random.Random(0).shuffle(texts)
    expected = [ptb_tokenize(text) for text in texts]
    monkeypatch.setattr(ptb, "_MEMORY", 3)
    ptb.forget()
    assert [ptb_tokenize(text) for text in texts] == expected


def test_any_text_is_tokenised_in_order() -> None:
    rng = random.Random(3)
    signs = "aZ9é.,:;!?'\"`-_/\\()[]{}<>@#$%&*+=~^| \t\n 한😀\u200b\u00ad½–…“’"
    for _ in range(400):
        text = "".join(rng.choices(signs, k=rng.randint(0, 40)))
        tokens = ptb_tokenize(text)
        assert all(token and " " not in token for token in tokens)
        kept = [letter for token in tokens for letter in token if letter in "é한9"]
        assert kept == [letter for letter in text if letter in "é한9"]


def test_only_text() -> None:
    with pytest.raises(DataError, match="row 1"):
        ptb_tokenize(["a", None])  # type: ignore[list-item]
