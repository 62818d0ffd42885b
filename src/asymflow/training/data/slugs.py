"""Map file names of emoji sets to Unicode code points.

Sets name drawings by code points, by the CLDR short name of some version, or by their own names.
All are mapped to a key: code points in lower-case hex, joined by `-`, without the variation
selector FE0F.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from asymflow.models.embedded.emoji import SKIN_TONES

# Names from neither CLDR nor Unicode, mapped to CLDR slugs.
_OWN_NAMES = """
2hearts two-hearts | americasglobe globe-showing-americas | anger anger-symbol
angry angry-face | anguish anguished-face | aok ok-hand
asiaaustraliaglobe globe-showing-asia-australia | astonished astonished-face
banknotedollar dollar-banknote | banknoteeuro euro-banknote | banknotepound pound-banknote
banknoteyen yen-banknote | beachumbrella beach-with-umbrella | bellcancellation bell-with-slash
blackdownpointingbackhand backhand-index-pointing-down
blackleftpointingbackhand backhand-index-pointing-left
blackrightpointingbackhand backhand-index-pointing-right
blackuppointingbackhand backhand-index-pointing-up | blackpushpin pushpin
blackskullcrossbones skull-and-crossbones | bookmarktab bookmark-tabs | boot womans-boot
bouquetofflowers bouquet | bow ribbon | bowing person-bowing | bride person-with-veil
bullhorn loudspeaker | bunny rabbit-face | bunnyside rabbit | bunny-ears people-with-bunny-ears
catside cat | cellphone mobile-phone | chartdownwardstrend chart-decreasing
chartupwardstrend chart-increasing | chilipepper hot-pepper | clap clapping-hands
clock12oclock twelve-oclock | clock1oclock one-oclock | clock2oclock two-oclock
clock3oclock three-oclock | clock4oclock four-oclock | clock5oclock five-oclock
clock6oclock six-oclock | clock7oclock seven-oclock | coldsweat anxious-face-with-sweat
confetti confetti-ball | confounded confounded-face | confused confused-face
construct construction-worker | controlknob control-knobs | cop police-officer
couple couple-with-heart | couplekiss kiss | crying crying-face | dash dashing-away
devilhorns smiling-face-with-horns | disappointed disappointed-face
dissapointedrelief sad-but-relieved-face | dogside dog | dragonhead dragon-face
dragonside dragon | europeafricaglobe globe-showing-europe-africa | evergreen evergreen-tree
expressionless expressionless-face | fallingleaf fallen-leaf | fearful fearful-face
fishcakeswirl fish-cake-with-swirl | fistedhand oncoming-fist | flexbicep flexed-biceps
flushed flushed-face | folder file-folder | forkknife fork-and-knife | franceflag flag-france
frontfacingchick front-facing-baby-chick | frown person-frowning | frownmouth frowning-face
gem gem-stone | girlgirl women-holding-hands | girlguy woman-and-man-holding-hands
gma old-woman | gpa old-man | greatbritainflag flag-united-kingdom | grimacing grimacing-face
grin grinning-face | grineyes grinning-face-with-smiling-eyes
grinsquint grinning-squinting-face | grinsweat grinning-face-with-sweat
grintears face-with-tears-of-joy | grinwide grinning-face-with-big-eyes
grinwideeyes beaming-face-with-smiling-eyes | guapimao person-with-skullcap
guyguy men-holding-hands | halo smiling-face-with-halo | hampster hamster
handheldvideocamera video-camera | hands open-hands | handup person-raising-hand
headmassage person-getting-massage | heartarrow heart-with-arrow | heartblue blue-heart
hearteyes smiling-face-with-heart-eyes | heartgreen green-heart | heartpurple purple-heart
heartribbon heart-with-ribbon | heartyellow yellow-heart | heels high-heeled-shoe
high5 raising-hands | highspeedtrainbulletnose bullet-train
hourglassflowingsand hourglass-not-done | hushed hushed-face | index index-pointing-up
italianflag flag-italy | japanflag flag-japan | japaneseangrymask goblin
kissclosedeyes kissing-face-with-closed-eyes | kisseyes kissing-face-with-smiling-eyes
kissing kissing-face | koreaflag flag-south-korea | leaffluttering leaf-fluttering-in-wind
leftmagnifyingglass magnifying-glass-tilted-left | leftwritinghand writing-hand
leopardside leopard | lips mouth | lockandkey locked-with-key | loudlycrying loudly-crying-face
manltepiececlock mantelpiece-clock | mansshirt t-shirt | medicalmask face-with-medical-mask
mensrunner running-shoe | mensshoe mans-shoe | meridianglobe globe-with-meridians
monkeyhear hear-no-evil-monkey | monkeysee see-no-evil-monkey | monkeyspeak speak-no-evil-monkey
mouseside mouse | neutral neutral-face | nogesture person-gesturing-no
nomouth face-without-mouth | notebookdecorativecover notebook-with-decorative-cover
okgesture person-gesturing-ok | openmouth face-with-open-mouth | outbox outbox-tray
pensive pensive-face | perservere persevering-face | pigside pig | pigsnout pig-nose
pinkwallet purse | poo pile-of-poo | portablestereo radio | pout person-pouting
pouting enraged-face | pray folded-hands | present wrapped-gift | racecar racing-car
raincloud cloud-with-rain | raisedhandsfingerssplayed hand-with-fingers-splayed
relieved relieved-face | reversehandmiddlefinger middle-finger
rightmagnifyingglass magnifying-glass-tilted-right | ringingbell bell | running person-running
russianflag flag-russia | saggitarius sagittarius | sandals womans-sandal
screamfear face-screaming-in-fear | silhouetteohjapan map-of-japan | sleeping sleeping-face
sleepy sleepy-face | sleuthspy detective | smallfrown person-frowning
smallsmile slightly-smiling-face | smileeyes smiling-face-with-smiling-eyes
smiletongue face-savoring-food | smirk smirking-face | snowcloud cloud-with-snow
snowmountains snow-capped-mountain | spanishflag flag-spain | speechbubble speech-balloon
spurtingwhale spouting-whale | stormcloud cloud-with-lightning | studiomic studio-microphone
sunraincloud sun-behind-rain-cloud | sunrays sun | sweat downcast-face-with-sweat
sweatsplash sweat-droplets | swimming person-swimming | tennisball tennis | tie necktie
thoughtbaloon thought-balloon | threespeechbubbles speech-balloon | tigerside tiger
tired tired-face | tongueout face-with-tongue | tongueoutwink winking-face-with-tongue
tongueoutwink2 squinting-face-with-tongue | toykotower tokyo-tower
triumph face-with-steam-from-nose | turban person-wearing-turban | unamused unamused-face
videocasette videocassette | waitress person-tipping-hand | walking person-walking
waningbibbousmoon waning-gibbous-moon | wave water-wave | waving waving-hand | weary weary-face
whitesun sun | winking winking-face | wiredkeyboard keyboard | womansshirt womans-clothes
worried worried-face | amazed-face face-with-open-mouth | amusing-face face-with-hand-over-mouth
crazy-face zany-face | game-dice game-die | gesturing-ok person-gesturing-ok
red-wine-glass wine-glass | flag-swaziland flag-eswatini
"""

# Slugs that mean something else in one set.
_IN_SET = {
    # There "cat" is a head and "catside" the animal.
    "fxemoji": {name: f"{name}-face" for name in ("cat", "dog", "mouse", "pig", "tiger")},
    "streamline-emojis": {"turkey": "flag-turkiye"},  # the country, not the bird
}


def key_of(codes: str) -> str:
    """`"1F9D4-200D-2642-FE0F"` to `"1f9d4-200d-2642"`."""
    return "-".join(code for code in codes.lower().split("-") if code != "fe0f")


def has_skin_tone(key: str) -> bool:
    """Whether the key is a skin-tone variant of another emoji."""
    codes = key.split("-")
    return len(codes) > 1 and not SKIN_TONES.isdisjoint(codes)


def slug_of(name: str) -> str:
    """`"Man’s shoe"` to `"mans-shoe"`."""
    plain = unicodedata.normalize("NFKD", name.lower())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = re.sub(r"[’'.!“”]", "", plain).replace("&", " and ")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


class Slugs:
    """Maps slugs to keys.

    Args:
        labels: CLDR short names by key.
        known: keys by slug, from sets for a current Unicode version.
        same: pairs of slugs of one drawing (old and new CLDR names).
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        known: Mapping[str, str],
        same: Iterable[tuple[str, str]],
    ) -> None:
        found: dict[str, str] = {}
        for key, label in labels.items():
            found.setdefault(slug_of(label), key)
        for slug, key in known.items():
            found.setdefault(slug, key)
        _spread(found, list(same))
        joined: dict[str, str] = {}  # "baby-bottle" -> "babybottle", as in older sets
        for slug, key in found.items():
            joined.setdefault(slug.replace("-", ""), key)
        for key in labels:
            if "-" not in key:
                unicode_name = unicodedata.name(chr(int(key, 16)), "")
                joined.setdefault(slug_of(unicode_name).replace("-", ""), key)
        self._found = found
        self._joined = joined
        self._own: dict[str, str] = {}
        for pair in _OWN_NAMES.replace("\n", "|").strip("|").split("|"):
            name, cldr = pair.split()
            self._own[name] = cldr

    def find(self, slug: str, icon_set: str) -> str | None:
        """The key of a slug of `icon_set`, or None."""
        slug = _IN_SET.get(icon_set, {}).get(slug, slug)
        bare = re.sub(r"-\d$", "", slug)  # "boy-2" is a second drawing of "boy"
        flag = "flag-" + re.sub(r"^(flag-for-)?(flag-)?", "", bare)
        for name in (slug, bare, self._own.get(bare), flag, self._own.get(flag)):
            if name is not None and name in self._found:
                return self._found[name]
        return self._joined.get(slug.replace("-", ""))


def _spread(found: dict[str, str], same: list[tuple[str, str]]) -> None:
    """Propagate keys along pairs of equivalent slugs."""
    grew = True
    while grew:
        grew = False
        for left, right in same:
            for here, there in ((left, right), (right, left)):
                if here in found and there not in found:
                    found[there] = found[here]
                    grew = True
