"""Where names come from: rooms, devices, items, codes.

A name is an identifier of a site file: lower-case letters and digits, parts joined by `_` or `-`.
Half of all names come from spaces far too large to remember (random letters, syllables, part numbers, dictionary words),
so that the only way to get them right is to copy them from the prompt.

`Names(held_out=True)` draws from words and codes that training never sees; the split is by a hash of the word.
"""
import hashlib
import random
import re
from pathlib import Path

PLACES = """kitchen office hall lab lobby bedroom bathroom garage basement attic corridor canteen workshop warehouse studio
library nursery laundry pantry terrace balcony foyer gym classroom reception archive cellar greenhouse clinic ward
boardroom server_room meeting_room living_room dining_room guest_room boiler_room control_room clean_room cold_store
paint_shop loading_dock break_room changing_room waiting_room storage first_floor ground_floor top_floor entrance""".split()
DEVICES = """pump valve fan heater chiller boiler compressor mixer blower lamp shutter gate door damper feeder conveyor
crane lift press oven dryer cutter drill lathe mill grinder spindle turbine generator filter scrubber crusher sorter
labeler wrapper palletizer robot arm gripper camera scanner printer beacon siren sprinkler pusher stacker hopper""".split()
ITEMS = """bolt nut screw washer bracket bearing gasket spring hose cable fuse relay sensor motor battery switch panel box crate
bottle can jar tray cup mug plate lid cap tube pipe rod plate sheet roll bag pouch tin carton milk bread butter cheese
apple orange banana coffee tea sugar salt flour rice pasta juice water soap shampoo towel shirt jacket shoes socks gloves
helmet hammer wrench pliers tape glue paint brush lamp bulb charger phone tablet keyboard mouse speaker headset""".split()
PARTS = """bearing gearbox belt motor spindle seal coupling shaft rotor fan pump filter valve blade chain brake nozzle
piston cylinder impeller sensor encoder guide_rail lead_screw drive_belt hydraulic_hose cooling_fan tool_head""".split()
ASSETS = """valve tank pipe pump boiler reactor flange vessel column exchanger manifold transformer breaker junction meter
compressor separator silo hatch vent cabinet duct turbine inlet outlet drain bypass header burner""".split()
SITES = """plant line cell house depot shop tower yard factory hub station farm mill dock wing block store unit""".split()
ADJECTIVES = """north south east west upper lower left right main spare front back red blue green yellow white black old new
big small inner outer first second third cold hot wet dry fast slow""".split()
CONSONANTS = "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gr kr pl pr sh sk sl sp st th tr".split()
VOWELS = "a e i o u ai ea ee oo ou".split()
ENDINGS = ["", "", "", "n", "r", "l", "s", "t", "k", "m", "x", "nd", "rk", "st"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


# Parts of words that have no place on a plant.
UNFIT = ("sex", "rape", "slave", "nazi", "whore", "bitch", "fuck", "shit", "negro", "murder", "prostitut", "porn", "incest", "genocid", "terror", "suicid", "lynch", "massac", "tortur")


def held_out(word):
    """One word in eight belongs to the test side."""
    return hashlib.sha256(b"ganglion-nano:" + word.encode()).digest()[0] % 8 == 0


def dictionary(shared):
    """Plain words of public text, if it is at hand; else none."""
    words = set()
    for path in ("wikitext2/wikitext2_raw_test.txt", "tinyshakespeare/input.txt", "exl3_calibration/wiki.utf8", "exl3_calibration/c4.utf8"):
        file = Path(shared) / "data" / path
        if file.exists():
            words.update(re.findall(r"\b[a-z]{4,10}\b", file.read_text(errors="ignore")))
    return sorted(w for w in words if not any(part in w for part in UNFIT))


class Names:
    """Draws names for one side of the split."""

    def __init__(self, rng: random.Random, words, test_side=False):
        self.rng = rng
        self.test_side = test_side
        self.words = [w for w in words if held_out(w) == test_side]

    def pseudo(self):
        """A pronounceable word that no dictionary has."""
        while True:
            n = self.rng.choice((1, 2, 2, 2, 3))
            word = "".join(self.rng.choice(CONSONANTS) + self.rng.choice(VOWELS) for _ in range(n)) + self.rng.choice(ENDINGS)
            if len(word) >= 3 and held_out(word) == self.test_side:
                return word

    def letters(self):
        while True:
            word = "".join(self.rng.choice(LETTERS) for _ in range(self.rng.randint(1, 5)))
            if len(word) < 3 or held_out(word) == self.test_side:
                return word

    def code(self):
        """A part or bay number."""
        digits = "".join(self.rng.choice("0123456789") for _ in range(self.rng.choice((1, 1, 2, 2, 3, 4))))
        joint = self.rng.choice(("", "-", "_", "-"))
        return self.letters() + joint + digits

    def fresh(self):
        """A word from a large space."""
        kind = self.rng.random()
        if kind < 0.35 and self.words:
            return self.rng.choice(self.words)
        if kind < 0.65:
            return self.pseudo()
        if kind < 0.75:
            return self.letters()
        return self.code()

    def draw(self, known, novelty):
        """One name; `novelty` is the share from the large spaces."""
        rng = self.rng
        if rng.random() >= novelty:
            base = rng.choice(known)
            kind = rng.random()
            if kind < 0.5:
                return base
            if kind < 0.7:
                return rng.choice(ADJECTIVES) + rng.choice("__-") + base
            return base + rng.choice(("_", "-", "_", "")) + rng.choice((str(rng.randint(1, 20)), rng.choice("abcdefgh"), str(rng.randint(1, 9))))
        kind = rng.random()
        if kind < 0.5:
            return self.fresh()
        if kind < 0.75:
            return rng.choice(known) + rng.choice("__-") + self.fresh()
        if kind < 0.9:
            return self.fresh() + rng.choice("__-") + rng.choice(known)
        return self.fresh() + rng.choice("__-") + self.fresh()

    def several(self, known, count, novelty):
        """`count` different names, sometimes confusingly alike, because plants are like that."""
        rng = self.rng
        names = []
        if rng.random() < 0.2:
            base = self.draw(known, novelty).split("_")[0].split("-")[0]
            joint = rng.choice(("_", "-", ""))
            first = rng.choice((1, 1, 1, 10, 101))
            names = [f"{base}{joint}{first + i}" for i in range(count)] if not base[-1].isdigit() else []
        while len(names) < count:
            name = self.draw(known, novelty)
            if name not in names and name != "none" and len(name) <= 32:
                names.append(name)
        rng.shuffle(names)
        return names


def spoken(rng, name):
    """How a person writes a name in a sentence."""
    kind = rng.random()
    if kind < 0.2:
        return name
    text = name.replace("_", " ")
    if kind < 0.6:
        return text.replace("-", " ") if rng.random() < 0.5 else text
    if kind < 0.7:
        return re.sub(r"([a-z])(\d)", r"\1 \2", text.replace("-", " "))
    return text
