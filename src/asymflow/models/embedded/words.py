"""Nouns for pictures.

CLDR short names are precise but often not what anyone types: "face with tears of joy" for a
laughing emoji, "hot beverage" for coffee. `everyday.txt` has the everyday names; the
functions add articles and plurals. Keywords are no substitute: they are associations ("school"
for an apple) more often than names. Everything is lower case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_COLOUR_WORDS = frozenset(
    "red orange yellow green blue purple pink brown black white grey gray gold silver teal".split()
)
# Phrases that describe without naming a thing: they take no article and join no scene.
_PHRASES = frozenset(
    (
        "rolling on the floor laughing|laughing out loud|mind blown|heart eyes|star eyes|"
        "puppy eyes|crying laughing|tears of joy|blowing a kiss|tongue out|be quiet|thumbs up|"
        "thumbs down|like|dislike|applause|fingers crossed|hands up|partly cloudy|mostly sunny|"
        "mostly cloudy|sun and rain|sun and cloud|rolling eyes|sealed lips|performing arts|yum|"
        "head in the clouds|winking tongue out|snoring|star-struck|royalty|merfolk|yoga|"
        "hundred points|hundred|100|zzz|om|horse racing|chart increasing|chart decreasing|"
        "dashing away|locked|unlocked|locked with key|locked with pen|foggy|dizzy|cooking|"
        "camping|bowling|tennis|badminton|soccer|lacrosse|hourglass done|hourglass not done|"
        "curry and rice|radioactive|biohazard|prohibited|high voltage|building construction|"
        "cheers|recycle|muscle|dollar eyes|speaker off|salute|hug|moon viewing ceremony|"
        "face in clouds|construction|archery|thank you hands|good luck fingers|geek|"
        "video game|pouring liquid|cheeky wink|grimace|scream|sneeze|yawn|frown|smirk|"
        "wink|smile|small smile|slight smile|big smile|drool|eye roll|nosey"
    ).split("|")
)
# Names and stuff: no article, no plural.
_NO_ARTICLE = frozenset(
    (
        "santa claus|santa|father christmas|mrs claus|mrs. claus|mx claus|mother christmas|"
        "mount fuji|fuji|saturn|earth|planet earth|statue of liberty|liberty statue|tokyo tower|"
        "milky way|sherlock|dracula|half a coconut|half an avocado|fork and knife|"
        "corn on the cob|needle and thread|meat on bone|money with wings"
    ).split("|")
)
_STUFF = frozenset(
    "bread bacon butter popcorn spaghetti pasta rice salt ice fire fog mist sushi corn maize "
    "wheat milk beer coffee tea sake honey chocolate custard cheese meat broccoli garlic ginger "
    "cash money mail yarn thread soap dna coral lightning luggage wood bamboo steak curry ramen "
    "lettuce cabbage rain snowfall glitter music hockey softball fondue oden dango mate paella "
    "stew soup whiskey champagne cutlery medicine wine dynamite volleyball pong death smoking "
    "paper bowling water prayer food".split()
)
_PLURAL_FORMS = frozenset("maracas skis peas people men women teeth dice clothes".split())
_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "wolf": "wolves", "leaf": "leaves", "knife": "knives",
    "tooth": "teeth", "foot": "feet", "ox": "oxen", "person": "people", "man": "men",
    "woman": "women", "child": "children", "elf": "elves", "scarf": "scarves", "calf": "calves",
    "loaf": "loaves", "sheaf": "sheaves", "die": "dice", "cactus": "cacti", "snowman": "snowmen",
    "policeman": "policemen", "potato": "potatoes", "tomato": "tomatoes", "mango": "mangoes",
    "volcano": "volcanoes", "tornado": "tornadoes", "mosquito": "mosquitoes",
    "buffalo": "buffaloes",
}  # fmt: skip
_UNCHANGED = frozenset(
    "sheep deer fish shrimp squid bison moose blowfish jellyfish pufferfish sakura onigiri nigiri "
    "shinkansen".split()
)
# The head noun of a phrase ends where one of these begins: "slice | of pizza".
_LINK = re.compile(
    r" (?:with|without|of|in|on|at|and|from|showing|to|over|under|behind|between|low|medium|high|"
    r"facing|holding|sticking|blowing|exhaling|vomiting|savoring|wearing|taking|landing|flashing|"
    r"covering|spouting|struck|shaking|going|hatching|standing|horizontally|vertically|up|off|"
    r"lifting|getting|rowing|playing|tipping|gesturing|feeding|pointing|writing|fluttering|"
    r"screaming|huffing|full|making|bouncing|with no)(?= |$)"
)
_VOWEL_SOUND = re.compile(r"^(?!uni|eu|use|one\b|ufo|ukul)[aeiou]|^(hour|honest|suv|xd|x-ray|8)")


@dataclass(frozen=True, slots=True)
class Noun:
    """One way to name a picture.

    `bare` is the phrase, `single` has its article, `plural` is None where there is no
    sensible one. `thing` is False for phrases such as "tears of joy".
    """

    bare: str
    single: str
    plural: str | None
    thing: bool

    @property
    def coloured(self) -> bool:
        """Whether the phrase already contains a colour."""
        return not _COLOUR_WORDS.isdisjoint(self.bare.split())


def everyday_names() -> tuple[str, ...]:
    """CLDR short names that also have everyday names."""
    return tuple(_everyday())


@cache
def nouns(name: str) -> tuple[Noun, ...]:
    """Ways to name the picture with this CLDR short name; the name itself comes first."""
    plain = plain_name(name)
    others = _everyday().get(plain, ()) or _reordered(plain)
    return tuple(dict.fromkeys(noun(text) for text in (plain, *others)))


@cache
def noun(text: str) -> Noun:
    """Article and plural of a lower-case noun phrase."""
    if text in _PHRASES or text.startswith("no "):
        return Noun(text, text, None, thing=False)
    if text.startswith("flag of "):
        return Noun(text, f"the {text}", None, thing=True)
    match = _LINK.search(text)
    head, rest = (text[: match.start()], text[match.start() :]) if match else (text, "")
    before, space, last = head.rpartition(" ")
    joined = " and " in rest
    plural_already = _is_plural(last) or (joined and _is_plural(text.rpartition(" ")[2]))
    if text in _NO_ARTICLE or last in _STUFF or plural_already:
        return Noun(text, text, None, thing=True)
    pair = head == "pair" or joined
    many = None if pair else f"{before}{space}{_plural(last)}{rest}"
    return Noun(text, with_article(text), many, thing=True)


def with_article(text: str) -> str:
    """Put "a" or "an", by its first sound, before a phrase."""
    return f"{'an' if _VOWEL_SOUND.search(text) else 'a'} {text}"


@cache
def plain_name(name: str) -> str:
    """A CLDR short name as a lower-case phrase: "man: bald" to "bald man"."""
    text = re.sub(r"[“”\"()]", "", name.lower().replace("’", "'"))
    head, colon, tail = text.partition(": ")
    if not colon:
        return text
    members = [noun(member).single for member in tail.split(", ")]
    if head == "flag":
        return f"flag of {tail}"
    if head == "family":
        return f"family with {', '.join(members[:-1])} and {members[-1]}"
    if head in ("kiss", "couple with heart"):
        pair = f"{tail.split(', ')[0]} and {members[-1]}"
        return f"{pair} kissing" if head == "kiss" else f"{pair} with a heart"
    if tail == "bald":
        return f"bald {head}"
    if tail == "beard":
        return f"bearded {head}"
    return f"{head} with {tail}" if tail.endswith("hair") else f"{head} {tail}"


def _reordered(plain: str) -> tuple[str, ...]:
    """Names that follow from the form of the CLDR name alone."""
    if country := re.fullmatch(r"flag of (.+)", plain):
        return (f"{country[1]} flag", "flag")
    if doing := re.fullmatch(r"(man|woman|person) (\w+ing)", plain):
        return (f"{doing[2]} {doing[1]}",)
    if role := re.fullmatch(
        r"(man|woman) (?!\w+ing)([a-z ]+(?:er|or|ist|st|ot|aut|nic|ge|dent))", plain
    ):
        return (role[2], f"{'male' if role[1] == 'man' else 'female'} {role[2]}")
    return ()


def _is_plural(word: str) -> bool:
    if word in _PLURAL_FORMS:
        return True
    return (
        len(word) > 1 and word.endswith("s") and not word.endswith(("ss", "us", "is", "as", "os"))
    )


def _plural(word: str) -> str:
    if word in _UNCHANGED:
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + "s"


@cache
def _everyday() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    text = (
        resources.files("asymflow.models.embedded")
        .joinpath("everyday.txt")
        .read_text(encoding="utf-8")
    )
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, others = line.partition(": ")
            table[name] = tuple(others.split(", "))
    return table
