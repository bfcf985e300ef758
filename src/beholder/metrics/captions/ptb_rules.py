"""The tokens of English text as the Penn Treebank tokenizer of the MS-COCO evaluation finds them.

A table of patterns. At each position the longest match wins, the earlier pattern among matches of
the same length; lookahead counts into the length. Group 1 is the token itself. The patterns
describe the observed behaviour of that program (CoreNLP 3.4.1 with `-preserveLines -lowerCase`) on
probes and prose; none of its code or tables is used.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

# Marks that the tokenizer counts as parts of words although Unicode does not call them letters:
# modifier signs, combining marks of European, Hebrew, Arabic and Indic scripts, soft hyphen.
_MARKS = (
    "\u00ad\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u0384\u0385\u03f6"
    "\u0483-\u0487\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0615-\u061a"
    "\u064b-\u065e\u0670\u06d6-\u06e4\u06e7-\u06ed\u06fd-\u06fe\u070f\u0711\u0730-\u074c"
    "\u07a6-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c\u093e-\u094e\u0951-\u0955\u0962\u0963"
    "\u0981-\u0983\u09bc\u09be-\u09c4\u09c7\u09c8\u09cb-\u09cd\u09d7\u09e2\u09e3\u0a01-\u0a03"
    "\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc\u0abe-\u0acf\u0b82\u0bbe-\u0bcd\u0c01-\u0c03"
    "\u0c3e-\u0c56\u0d3e-\u0d48\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)

# Signs that are tokens of their own. What is neither here, nor in a word, nor in a pattern below
# (emoji, newer symbols, private use) is dropped, and parts what it stands between.
_SIGNS = (
    "#$%&*+/;<=>@\\\\^_`|~,:\u00a1\u00a5\u00a6-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7"
    "\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b"
    "\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd"
    "\u2016\u2017\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e"
    "\u2080-\u208e\u20a4\u2100-\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123"
    "\u2125\u2127\u2129\u212e\u213a\u213b\u2140-\u2144\u214a-\u214d\u214f\u2155-\u215e"
    "\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    "\uffe0\uffe1\uffe5\uffe6"
)

# Words that keep their full stop, in any mixture of cases, ...
_ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn atty attys aug ave bancorp bhd bldg blvd brig calif
    capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs ed\\.d ens
    esq est etc ext feb fla fri ft ga gen gov govs hon inc ind insp intl jan jos jr jul jun kan
    kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt
    mtg natl neb nev nov oct okla penn pfc ph ph\\.d plc pres prof profs pte pty pvt rd rep reps
    rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs
    treas tue tues univ va vs vt wed wis wm wyo bros
"""
# ... with a capital first letter, ...
_CAPITAL = "ark az del ill la mass miss ore pa tex"
# ... and only before a number.
_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"

# After an initial and its full stop, these words show that the stop ended a sentence.
_STARTERS = """
    a about according additionally after an as at but earlier he her here however if in it last many
    more mr\\. ms\\. now once one other our she since so some such that the their then there these
    they this we what when while yet you
"""

SPLIT_WORDS = frozenset(["cannot", "gonna", "wanna", "gotta", "lemme", "gimme"])
"""Words of letters alone that are two tokens."""
ABBREVIATED = frozenset(f"{_ABBREVIATIONS} {_CAPITAL} {_BEFORE_NUMBERS}".split())
"""Words that may keep a full stop."""

_FILE_ENDINGS = """
    bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl
    png ppt ps py sql tar txt wav wma wmv x xml zip
"""


_DROPPED = (
    "[.?!,:;`'\"\u0091-\u0094\u0096\u0097\u2013-\u2015\u2018\u2019\u201b-\u201d\u2039\u203a«»…-]"
)
_NAMED_SIGNS = r"[()\[\]{}¢£\u0080¤\u20a0€½¼¾⅓⅔]"
_LETTER_ENTITY = r"&[aeiouAEIOU](?i:acute|grave|uml);"
_LOCAL = r"[^ \t\n\f\r\"<>|()\u00a0{}]"  # of the part of an address before the @


class Rule(NamedTuple):
    """A kind of token: its pattern, and what becomes of the text it matches (None: dropped)."""

    name: str
    match: Callable[[str, int], re.Match[str] | None]
    finish: Callable[[str], str] | None


def _same(text: str) -> str:
    return text


def _no_soft_hyphens(text: str) -> str:
    return text.replace("\u00ad", "") or "-"


def _one_piece(text: str) -> str:
    """Spaces within a token become no-break spaces, brackets their names."""
    return _brackets(text).replace(" ", "\u00a0")


def _brackets(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


_NAMED = {
    "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-",
    "¢": "cents", "£": "#", "\u0080": "$", "¤": "$", "\u20a0": "$", "€": "$",
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">",
}  # fmt: skip


def _unescape_entity(text: str) -> str:
    return _NAMED.get(text.lower(), text)


def _ampersand(text: str) -> str:
    return text.replace("&amp;", "&")


def _choice(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


@cache
def letters() -> str:
    """The inside of a character class: letters of the Basic Multilingual Plane, and marks."""
    ranges: list[list[int]] = []
    for code in range(0x41, 0x10000):
        if unicodedata.category(chr(code))[0] == "L":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges) + _MARKS


@cache
def rules(first: str, ascii_only: bool = False) -> tuple[Rule, ...]:
    """The kinds of tokens that can start with the character `first`, in order of precedence.

    `ascii_only`: the table for text of ASCII characters, quicker to make and to match.
    """
    return tuple(rule for starts, rule in _table(ascii_only) if starts(first))


class _Parts(NamedTuple):
    """What the patterns are made of."""

    letter: str
    plain: str
    digit: str
    sign: str
    apostrophe: str
    any_quote: str
    quote: str
    word: str
    thing: str
    slash: str
    number: str
    auxiliary: str
    no_letter: str
    address: str
    address_end: str
    host: str
    mail: str
    acronym: str
    starters: str
    abbreviation: str


_Row = tuple[str, str, str, Callable[[str], str] | None]


@cache
def _table(ascii_only: bool) -> tuple[tuple[Callable[[str], object], Rule], ...]:
    parts = _parts(ascii_only)
    rows = [*_contractions(parts), *_addresses(parts), *_numbers(parts), *_signs(parts)]
    return tuple(
        (re.compile(first).match, Rule(name, re.compile(pattern).match, finish))
        for name, first, pattern, finish in rows
    )


def _parts(ascii_only: bool) -> _Parts:
    letter = plain = "[A-Za-z]"
    digit = "[0-9]"
    if not ascii_only:
        letter, plain = f"[{letters()}]", f"[{_plain_letters()}]"
        # digits of the Basic Multilingual Plane: the others are dropped like all beyond it
        digit = r"(?:(?![\U00010000-\U0010ffff])\d)"
    sign = rf"(?:{letter}|{digit})"
    apostrophe = r"(?:['\u0092\u2019]|&apos;)"
    any_quote = r"(?:['\u0092\u2019`\u0091\u2018\u201b]|&apos;)"
    quote = r"[&'\u0092\u2019]"  # what an apostrophe starts with
    hyphen = r"[-_\u058a\u2010\u2011]"
    word = rf"{letter}{sign}*(?:[.!?]{letter}{sign}*)*"
    elided = rf"(?:[dDoOlL]{any_quote}{letter})?"
    thing = rf"{elided}{sign}+(?:{hyphen}{elided}{sign}+)*"
    slash = r"(?:-[A-Za-z]+){0,2}"
    number = rf"(?:{digit}*(?:[.:,\u00ad\u066b\u066c]{digit}+)+|{digit}+)"
    auxiliary = rf"{apostrophe}(?:[msdMSD]|(?i:re|ve|ll))"
    no_letter = r"(?:[^A-Za-z]|\Z)"
    address = r"[^ \t\n\f\r\"<>|(){}]"
    address_end = r"[^ \t\n\f\r\"<>|.!?(){},-]"
    host = r"[^ \t\n\f\r\"`'<>|.!?(){},-_$]"
    mail = r"[^ \t\n\f\r\"<>|().\u00a0{}]"
    acronym = (
        r"(?:[A-Za-z](?:\.[A-Za-z])+|(?i:Canada|Sino|Korean|EU|Japan|non)-(?i:U\.S)"
        r"|(?i:U\.S\.-(?:U\.K|U\.S\.S\.R)))"
    )
    capitals, starters = _capital_choice(_CAPITAL), _capital_choice(_STARTERS)
    abbreviation = rf"{acronym}|(?i:{_choice(_ABBREVIATIONS)})|{capitals}|[A-Za-z]"
    return _Parts(
        letter=letter,
        plain=plain,
        digit=digit,
        sign=sign,
        apostrophe=apostrophe,
        any_quote=any_quote,
        quote=quote,
        word=word,
        thing=thing,
        slash=slash,
        number=number,
        auxiliary=auxiliary,
        no_letter=no_letter,
        address=address,
        address_end=address_end,
        host=host,
        mail=mail,
        acronym=acronym,
        starters=starters,
        abbreviation=abbreviation,
    )


def _contractions(p: _Parts) -> list[_Row]:
    """Words that part, contractions, tags."""
    return [
        ("cannot", r"[cC]", r"((?i:can))(?i:not)", _same),
        ("gonna", r"[gGwW]", r"((?i:gon|wan))(?i:na)", _same),
        ("gotta", r"[gG]", r"((?i:got))(?i:ta)", _same),
        ("lemme", r"[lLgG]", r"((?i:lem|gim))(?i:me)", _same),
        ("tis", r"'", r"('[tT])(?i:is|was)", _same),
        (
            "tag",
            r"<",
            r"(<(?:[!?][A-Za-z-][^>\r\n]*|[A-Za-z][A-Za-z0-9:._-]*"
            r"(?: +[A-Za-z][A-Za-z0-9:._-]*(?: *= *(?:'[^'\r\n]*'|\"[^\"\r\n]*\"))?)* */?"
            r"|/[A-Za-z][A-Za-z0-9:._-]*) *>)",
            _one_piece,
        ),
        ("word 's", p.letter, rf"({p.word}){p.auxiliary}{p.no_letter}", _no_soft_hyphens),
        ("word n't", p.letter, rf"({p.letter}*?)[nN]{p.apostrophe}[tT]", _no_soft_hyphens),
        ("'s", p.quote, rf"({p.auxiliary}){p.no_letter}", _straight),
        ("n't", r"[nN]", rf"([nN]{p.apostrophe}[tT])", _straight),
        ("word", p.letter, rf"({p.word})", _no_soft_hyphens),
        (
            "apostrophe word",
            rf"{p.letter}|{p.quote}",
            rf"({p.apostrophe}[nN](?:{p.apostrophe}|(?=\s|\Z))|[lLdDjJ]{p.apostrophe}"
            rf"|(?i:Dunkin|somethin|ol){p.apostrophe}|[A-HJ-XZn]{p.any_quote}{p.plain}{{2,}}"
            rf"|{p.apostrophe}(?i:em|till?|cause|[2-9]0s)"
            rf"|{p.plain}+[aeiouyAEIOUY]{p.any_quote}[aeiouA-Z]{p.plain}*"
            r"|(?i:cont'd\.?|nor'easter|c'mon|e'er|c'est|s'mores|ev'ry|li'l|nat'l))",
            _same,
        ),
        ("y'all", r"[yY]", rf"([yY]{p.apostrophe}){p.plain}", _same),
        ("year", p.quote, rf"({p.apostrophe}[0-9][0-9])(?:\s|\Z)", _straight),
    ]


def _addresses(p: _Parts) -> list[_Row]:
    """Addresses, names, abbreviations."""
    return [
        ("url", r"[hH]", rf"((?i:https?)://{p.address}+{p.address_end})", _same),
        (
            "likely url",
            rf"[wW]|{p.host}",
            rf"((?:(?i:www)\.(?:[^ \t\n\f\r\"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}"
            rf"|(?:{p.host}+\.)+(?i:com|net|org|edu))(?:/[^ \t\n\f\r\"<>|()]+{p.address_end})?)",
            _same,
        ),
        (
            "e-mail",
            r"[<a-zA-Z0-9]",
            rf"(<?[a-zA-Z0-9]{_LOCAL}*@(?:{p.mail}+\.)*{p.mail}+>?)",
            _same,
        ),
        ("name", r"[@\uff20]", r"([@\uff20][a-zA-Z_][a-zA-Z_0-9]*)", _same),
        ("hash tag", r"[#\uff03]", rf"([#\uff03]{p.letter}+)", _same),
        (
            "abbreviation before number",
            r"[A-Za-z]",
            rf"((?i:{_choice(_BEFORE_NUMBERS)})\.)\s?{p.digit}",
            _same,
        ),
        (
            "initial that ends a sentence",
            r"[A-Za-z]",
            rf"([A-Za-z])\.\s+(?:(?:{p.starters})\s|<[A-Za-z/][^>]*>)",
            _same,
        ),
        ("abbreviation", r"[A-Za-z]", rf"((?:{p.abbreviation})\.)", _same),
        ("word.,", p.letter, rf"({p.word}\.)[,;:\u3001]", _no_soft_hyphens),
        ("thing.,", p.sign, rf"({p.thing}\.)[,;:\u3001]", _no_soft_hyphens),
    ]


def _numbers(p: _Parts) -> list[_Row]:
    """Numbers, words with signs in them."""
    return [
        (
            "number",
            rf"[-+.:,\u00ad\u066b\u066c]|{p.digit}",
            rf"([-+]?{p.number})",
            _no_soft_hyphens,
        ),
        (
            "fraction",
            p.digit,
            rf"((?:{p.digit}{{1,4}}[- \u00a0])?{p.digit}{{1,4}}(?:\\?/|\u2044){p.digit}{{1,4}})",
            _one_piece,
        ),
        (
            "telephone",
            r"[(+0-9]",
            r"((?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
            r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}"
            r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5})",
            _one_piece,
        ),
        ("thing", p.sign, rf"({p.thing})", _no_soft_hyphens),
        ("prefix", r"[aApP]", r"((?i:anti|pro)-)", _same),
        ("AT&T", r"[A-Z]", r"([A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)", _ampersand),
        (
            "and/or",
            r"[A-Za-z0-9]",
            rf"([A-Za-z0-9]+{p.slash}(?:\\?/[A-Za-z0-9]+{p.slash}){{1,2}})",
            _same,
        ),
        (
            "hyphened",
            r"[A-Za-z0-9]",
            rf"([A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:{p.acronym}\.|[A-Za-z0-9\u00ad]+))+)",
            _no_soft_hyphens,
        ),
        (
            "file",
            p.sign,
            rf"({p.sign}+(?:\.{p.sign}+)*\.(?i:{_choice(_FILE_ENDINGS)}))(?:[\s.?!,]|\Z)",
            _same,
        ),
    ]


def _signs(p: _Parts) -> list[_Row]:
    """Smileys, entities, signs."""
    return [
        ("c++", r"[cCfF]", r"([cC]\+\+|[cCfF]#)", _same),
        ("dollars", r"[A-Z$]", r"([A-Z]*\$)", _same),
        (
            "smiley",
            r"[<>:;=]",
            r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])(?:[^A-Za-z0-9]|\Z)",
            _brackets,
        ),
        (
            "asian smiley",
            r"[-(^x=~<>']",
            r"([-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\))",
            _brackets,
        ),
        ("entity", r"&", r"((?i:&(?:amp|lt|gt);))", _unescape_entity),
        ("letter entity", rf"&|{p.letter}", rf"((?:{p.letter}|{_LETTER_ENTITY})+)", _same),
        ("dropped entity", r"&", r"((?i:&(?:nbsp|quot|apos|MD|mdash|ndash);))", None),
        ("other entity", r"&", r"((?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);))", _same),
        ("marks", r"[?!_#@*\\<>-]", r"([?!]{2,}|-{5,}|_+|#+|@+|\*+|(?:\\\*){1,3}|<<|>>)", _same),
        ("named", _NAMED_SIGNS, rf"({_NAMED_SIGNS})", _unescape_entity),
        ("superscript", r"[⁺⁻⁰-⁹¹²³]", r"([⁺⁻]?[⁰¹²³⁴-⁹]+)", _same),
        ("subscript", r"[₊₋₀-₉]", r"([₊₋]?[₀-₉]+)", _same),
        ("dropped", rf"{_DROPPED}", rf"(-{{1,4}}|\.{{3,5}}|''|``|{_DROPPED})", None),
        ("sign", f"[{_SIGNS}]", f"([{_SIGNS}])", _same),
    ]


def _capital_choice(words: str) -> str:
    """Any of the words with a capital first letter, the rest in any case."""
    ordered = sorted(words.split(), key=len, reverse=True)
    return "|".join(f"{word[0].upper()}(?i:{word[1:]})" for word in ordered)


def _straight(text: str) -> str:
    return re.sub("[\u0092\u2019]|&apos;", "'", text)


@cache
def _plain_letters() -> str:
    return letters().replace(_MARKS, "")
