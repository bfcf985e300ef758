"""What columns of tables are called, in English, Korean, German, Japanese and Chinese.

A name is compared by its words, without case, blanks, `_` and `-`: `distImgPath`, `dist_img_path`
and `Dist img path` are the words dist, img, path. Names of languages that write without blanks are
searched for the words that they contain.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN = re.compile(r"[\W_]+|(?<=[^\W\d_])(?=\d)")


def word_set(text: str) -> frozenset[str]:
    """Words between blanks."""
    return frozenset(text.split())


IMAGE = word_set("image img images imgs imageid bild bilder")
"""Says that the column is about pictures."""

FILE = word_set(
    "filename file path filepath photo picture pic jpg png fname datei dateiname foto pfad "
    "stimulus stimuli distorted dist"
)
PLACE = word_set("name key url uri link src id")
REFERENCE = word_set(
    "ref reference refs hq original orig pristine source src gt referenz group gruppe mask thumb "
    "thumbnail left right"
)
SCORE_FIRST = word_set("mos dmos score scores")
SCORE = word_set(
    "rating ratings quality target elo grade stars vote label mean average avg opinion aesthetic "
    "aesthetics bewertung note punktzahl punkte wertung qualität"
)
COMMENT = word_set(
    "comment comments caption captions text sentence sentences description descriptions review "
    "remark remarks feedback kommentar kommentare beschreibung bildunterschrift satz"
)
RATER = word_set(
    "rater annotator observer worker subject participant evaluator reviewer judge assessor "
    "expert tester person user subj obs bewerter teilnehmer proband"
)
SPREAD = word_set("std sd stdev stddev deviation streuung standardabweichung")
VARIANCE = word_set("var variance varianz")
SPLIT = word_set("split set subset partition fold phase teilmenge aufteilung")
LABEL = word_set(
    "color colour gender category class style season type kind material pattern mood farbe "
    "geschlecht kategorie stil klasse jahreszeit"
)
METADATA = word_set(
    "id ids index idx width height size w h x y url uri link time timestamp date datetime duration "
    "year month day created updated at count num number views likes downloads user username email "
    "prompt seed model iso ci low high lead lat lon latitude longitude level lev param version "
    "hash md5 sha256 camera device price min max median sem error err confidence path file name "
    "filename jahr datum zeit order rank row exif aperture exposure focal tag tags url1 ratio "
    "total worker session comments"
)
"""Words of columns that say something about a picture which is nobody's opinion."""

_BEYOND: dict[str, tuple[str, ...]] = {
    "raters": ("평가자수", "평가자 수", "評価者数", "评分人数", "評分人數", "投票数"),
    "rater": (
        "평가자", "작업자", "評価者", "被験者", "评分者", "评价者", "标注者",
        "評分者", "用户",
    ),
    "score_std": ("표준편차", "標準偏差", "标准差", "標準差"),
    "split": ("분할", "分割", "划分", "数据集", "資料集"),
    "group": ("그룹", "원본", "グループ", "参照", "分组", "原图", "分組", "原圖"),
    "comments": (
        "코멘트", "댓글", "설명", "캡션", "의견", "감상", "문장", "コメント", "説明",
        "キャプション", "感想", "评论", "评语", "描述", "说明", "評論", "評語", "說明",
    ),
    "score": (
        "점수", "평점", "품질", "별점", "スコア", "評価", "点数", "得点", "品質", "評点", "评分",
        "得分", "分数", "质量", "評分", "分數", "品質分", "打分", "均分",
    ),
    "label": (
        "색상", "성별", "스타일", "종류", "계절", "카테고리", "色", "性別", "種類", "颜色", "性别",
        "类别", "风格", "季节", "顏色", "類別", "風格", "季節",
    ),
    "image": (
        "이미지", "사진", "파일", "경로", "그림", "画像", "写真", "ファイル", "图片", "图像",
        "照片", "文件", "路径", "圖片", "圖像", "檔案", "檔名", "路徑",
    ),
}  # fmt: skip


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a column's name: `SubjectMOS_2` -> subject, mos, 2."""
    text = unicodedata.normalize("NFKC", name).strip()
    text = re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])", " ", _CAMEL.sub(" ", text))
    return tuple(word for word in _BETWEEN.split(text.casefold()) if word)


@lru_cache(maxsize=4096)
def joined(name: str) -> str:
    """The name without what nobody should have to spell: case, blanks, `_`, `-`."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_\-]+", "", text)


@lru_cache(maxsize=4096)
def beyond_latin(name: str) -> str | None:
    """The role that a Korean, Japanese or Chinese name says; None for all others."""
    text = joined(name)
    if text.isascii():
        return None
    for role, known in _BEYOND.items():
        plain = [word.replace(" ", "") for word in known]
        if any(word == text or (len(word) > 1 and word in text) for word in plain):
            return role
    return None


def has(name: str, words: frozenset[str]) -> bool:
    """Whether one of the words of a name is among `words`."""
    return any(word in words for word in words_of(name))
