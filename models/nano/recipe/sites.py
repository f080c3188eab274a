"""Random sites and events: what the model is trained and tested on.

`Site` mirrors a `site.toml`; `Site.prefix()` and `Event.text()` are the canonical prompt form `ganglion-1`, byte for byte
what the program builds (a test of the program compares them). `draw_site` and `draw_event` make new ones.
"""
import json
import random
import re
from dataclasses import dataclass, field

import domains
import names as nm
from patterns import expand, number_text, words_of

# kind: (units, [(lo, hi, step)], spoken forms)
NUMBERS = {
    "celsius": ("C", [(5, 60, 0.5), (15, 28, 0.5), (10, 35, 1), (16, 30, 1), (5, 30, 0.5), (-20, 80, 1)], ["{n}", "{n}", "{n} degrees", "{n} degrees", "{n} c", "{n} degrees celsius", "{n}c"]),
    "percent": ("%", [(0, 100, 1), (0, 100, 1), (10, 100, 1), (0, 100, 5), (1, 99, 1)], ["{n}", "{n} percent", "{n} percent", "{n}%", "{n} %"]),
    "minutes": ("min", [(1, 60, 1), (1, 120, 1), (5, 240, 1), (1, 600, 1)], ["{n} minutes", "{n} min", "{n} minutes"]),
    "seconds": ("s", [(1, 60, 1), (1, 300, 1), (1, 3600, 1), (0.5, 30, 0.5)], ["{n} seconds", "{n} s", "{n} sec", "{n} seconds"]),
    "hours": ("h", [(1, 24, 1), (1, 72, 1), (1, 200, 1)], ["{n} hours", "{n} h", "{n} hours"]),
    "count": ("", [(1, 10, 1), (1, 20, 1), (1, 50, 1), (1, 100, 1), (1, 999, 1)], ["{n}"]),
    "mm": ("mm", [(-100, 100, 1), (-500, 500, 0.5), (1, 300, 1), (-50, 50, 0.1)], ["{n}", "{n} mm", "{n} millimeters"]),
    "newton": ("N", [(1, 100, 1), (5, 80, 0.5), (1, 500, 1)], ["{n}", "{n} newton", "{n} n"]),
    "torque": ("Nm", [(1, 60, 1), (0.1, 10, 0.1), (1, 200, 0.5)], ["{n}", "{n} nm", "{n} newton meters"]),
    "mms": ("mm/s", [(0.5, 20, 0.1), (1, 50, 0.5), (1, 30, 1)], ["{n}", "{n} mm/s", "{n} mm/s"]),
    "meters": ("m", [(1, 50, 1), (0.5, 20, 0.5), (5, 150, 1)], ["{n} m", "{n} meters", "{n} meters"]),
}
POOLS = {"place": nm.PLACES, "device": nm.DEVICES, "item": nm.ITEMS, "asset": nm.ASSETS, "part": nm.PARTS,
         "waypoint": nm.PLACES + ["bin", "shelf", "rack", "bay", "aisle", "slot", "station", "dock", "pallet", "table"],
         "tower": ["tower", "pole", "mast", "span", "line", "t", "p"], "fresh": nm.DEVICES + nm.ITEMS}
TAGS = {"torque": "Nm", "wear": "min", "speed": "rpm", "temperature": "C", "pressure": "bar", "vibration": "mm/s", "level": "%", "current": "A", "humidity": "%",
        "flow": "l/min", "weight": "kg", "distance": "m", "battery": "%", "load": "%", "power": "kW", "voltage": "V", "force": "N", "width": "mm", "height": "mm", "length": "mm",
        "gap": "mm", "noise": "", "price": "", "score": "", "depth": "mm", "angle": "deg", "thickness": "mm", "brightness": "lx", "co2": "ppm", "frequency": "Hz"}
BOOL_TAGS = ["occupied", "door_open", "blocked", "present", "jammed", "wet", "alarm", "ready", "night", "defect", "guard_open", "leak", "busy", "full", "empty"]
SITE_WORDS = nm.SITES


@dataclass
class Argument:
    name: str
    kind: str  # enum, integer, number, bool
    choices: list = field(default_factory=list)
    spoken: dict = field(default_factory=dict)  # choice -> forms; empty: names are spoken as written
    lo: float = 0
    hi: float = 0
    step: float = 1
    unit: str = ""
    forms: list = field(default_factory=list)

    def text(self):
        if self.kind == "enum":
            body = "|".join(self.choices)
        elif self.kind == "bool":
            body = "true|false"
        else:
            body = f"{number_text(self.lo)}..{number_text(self.hi)}"
            if self.kind == "number":
                body += f"/{number_text(self.step)}"
        return f"{self.name}={body}" + (f" {self.unit}" if self.unit else "")

    def toml(self):
        out = {"name": self.name}
        if self.kind == "enum":
            out["choices"] = self.choices
        elif self.kind == "bool":
            out["bool"] = True
        else:
            value = [int(self.lo), int(self.hi)] if self.kind == "integer" else [self.lo, self.hi]
            out[self.kind] = value
            if self.kind == "number":
                out["step"] = self.step
        if self.unit:
            out["unit"] = self.unit
        return out


@dataclass
class Command:
    name: str
    about: str
    arguments: list
    patterns: list
    test_patterns: list

    def text(self):
        parts = [f"do {self.name}"] + [a.text() for a in self.arguments]
        return " ".join(parts) + (f": {self.about}" if self.about else "")


@dataclass
class Tag:
    name: str
    unit: str
    kind: str  # number, bool
    decimals: int = 0
    range: tuple = (0, 100)
    lo: float | None = None
    hi: float | None = None


@dataclass
class Site:
    name: str
    domain: str
    commands: list
    tags: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    policy: list = field(default_factory=list)  # (condition, command object) in order

    def prefix(self):
        lines = [f"site {self.name}"] + [c.text() for c in self.commands]
        lines += [f"tag {t.name}" + (f" {t.unit}" if t.unit else "") for t in self.tags]
        lines += [f"note {n}" for n in self.notes]
        return "\n".join(lines) + "\n"

    def toml(self):
        quote = json.dumps

        def inline(table):
            return "{ " + ", ".join(f"{k} = {quote(v)}" for k, v in table.items()) + " }"

        lines = [f"name = {quote(self.name)}", "", "[model]", 'path = "nano.gguf"', "", "[guard]", 'safe = { action = "none" }']
        if self.tags or self.notes:
            lines += ["", "[prompt]"]
            if self.tags:
                lines.append(f"tags = {quote([t.name for t in self.tags])}")
            if self.notes:
                lines.append(f"notes = {quote(self.notes)}")
        for t in self.tags:
            lines += ["", "[[tag]]", f"name = {quote(t.name)}"]
            if t.kind == "bool":
                lines.append('kind = "bool"')
            else:
                lines += [f"unit = {quote(t.unit)}"] if t.unit else []
                lines += [f"range = {quote(list(t.range))}", f"decimals = {t.decimals}"]
        for c in self.commands:
            lines += ["", "[[command]]", f"name = {quote(c.name)}"] + ([f"about = {quote(c.about)}"] if c.about else [])
            if c.arguments:
                lines.append("arguments = [" + ", ".join(inline(a.toml()) for a in c.arguments) + "]")
        for t in self.tags:
            if t.lo is not None or t.hi is not None:
                lines += ["", "[[limit]]", f"on = {quote(t.name)}"]
                lines += [f"lo = {number_text(t.lo)}"] if t.lo is not None else []
                lines += [f"hi = {number_text(t.hi)}"] if t.hi is not None else []
        return "\n".join(lines) + "\n"


@dataclass
class Event:
    sentence: str
    tags: dict  # name -> value (bool or float), in tag order
    command: dict
    kind: str

    def text(self, site):
        lines = []
        if self.tags:
            parts = []
            for t in site.tags:
                if t.name not in self.tags:
                    continue
                value = self.tags[t.name]
                if t.kind == "bool":
                    parts.append(f"{t.name}={'yes' if value else 'no'}")
                    continue
                band = " high" if t.hi is not None and value > t.hi else " low" if t.lo is not None and value < t.lo else ""
                parts.append(f"{t.name}={number_text(value)}{band}")
            lines.append("in " + " ".join(parts))
        if self.sentence:
            lines.append("say " + fold(self.sentence))
        return "\n".join(lines) + "\n"

    def answer(self):
        return json.dumps(self.command, separators=(",", ":"), ensure_ascii=False)


def fold(sentence):
    """What the program does to a sentence: control characters and runs of blanks to one blank, ASCII lower case."""
    text = re.sub(r"[\s\x00-\x1f\x7f]+", " ", sentence).strip()
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


class Draw:
    """Draws sites and events. `test_names` and `test_patterns` choose the side of each split."""

    def __init__(self, seed, words, foreign=(), novelty=0.55, test_names=False, test_patterns=False):
        self.rng = random.Random(seed)
        self.names = nm.Names(self.rng, words, test_side=test_names)
        self.novelty = 1.0 if test_names else novelty
        self.test_patterns = test_patterns
        self.foreign = foreign
        self.shared = {}
        self.small = False  # short sites first: a curriculum's beginning

    # ---- sites ----------------------------------------------------------------------------------------------------

    def argument(self, spec, used, site_novelty):
        rng = self.rng
        arg_names, role = spec
        free = [a for a in arg_names if a not in used] or [arg_names[0] + "_2"]
        name = rng.choice(free)
        if rng.random() < 0.05:
            name = self.names.pseudo()
        used.add(name)
        if role[0] == "pick":
            # A plant's commands mostly speak of the same rooms or machines, so a name alone must not give the verb away.
            if role[1] not in self.shared or rng.random() < 0.2:
                count = rng.choice((2, 3, 3, 4) if self.small else (2, 3, 3, 4, 4, 5, 6, 8, 10))
                self.shared[role[1]] = self.names.several(POOLS[role[1]], count, site_novelty)
            return Argument(name, "enum", list(self.shared[role[1]]))
        if role[0] == "fixed":
            keys = list(role[1])
            if len(keys) > 2:
                keys = rng.sample(keys, rng.randint(2, len(keys)))
            if set(role[1]) == {"on", "off"} and rng.random() < 0.25:
                return Argument(name, "bool", ["true", "false"], {"true": ["on"], "false": ["off"]})
            return Argument(name, "enum", keys, {k: role[1][k] for k in keys})
        unit, ranges, forms = NUMBERS[role[1]]
        lo, hi, step = rng.choice(ranges)
        if rng.random() < 0.3 and role[1] != "percent":
            width = hi - lo
            hi = lo + max(step * 4, round(width * rng.uniform(0.2, 1.5) / step) * step)
        kind = "integer" if float(step).is_integer() and float(lo).is_integer() and float(hi).is_integer() else "number"
        if kind == "integer":
            step = 1
        show = unit if rng.random() < 0.8 else ""
        return Argument(name, kind, lo=lo, hi=hi, step=step, unit=show, forms=forms)

    def command(self, verb, used_names, site_novelty):
        rng = self.rng
        verb_names, abouts, args, patterns, tests = verb
        free = [n for n in verb_names if n not in used_names]
        if not free:
            return None
        name = rng.choice(free)
        about = rng.choice(abouts)
        if rng.random() < 0.06:
            name = self.names.pseudo()
        elif rng.random() < 0.06:
            about = ""
        if name in used_names or name == "none":
            return None
        used_names.add(name)
        used = set()
        order = list(range(len(args)))
        built = [self.argument(a, used, site_novelty) for a in args]
        if len(args) > 1 and rng.random() < 0.2:
            rng.shuffle(order)
        where = {old: new for new, old in enumerate(order)}
        renumber = lambda p: re.sub(r"\{(\d)\}", lambda m: "{%d}" % where[int(m[1])], p)
        return Command(name, about, [built[i] for i in order], [renumber(p) for p in patterns], [renumber(p) for p in tests])

    def generic(self, used_names, site_novelty):
        """A verb made on the spot: its description is all there is to know it by."""
        rng = self.rng
        action = rng.choice(list(domains.GENERIC_ACTIONS))
        noun = self.names.draw(nm.DEVICES + nm.ASSETS + nm.ITEMS + nm.PARTS, 0.4)
        said = noun.replace("_", " ")
        name = rng.choice((f"{action}_{noun}", action, f"{noun}_{action}", self.names.pseudo(), f"cmd_{rng.randint(1, 99)}"))[:32].strip("_-")
        if name in used_names or name == "none":
            return None
        used_names.add(name)
        ing = domains.GENERIC_ACTIONS[action][0]
        base = [f"{action} [the |]{said}", f"[start |begin |]{ing} [the |]{said}", f"[the |]{said} [needs|wants] {ing}", f"{said}: {action}"]
        tests = [f"do the {ing} of {said}", f"{said} is due for {ing}"]
        args = []
        kind = rng.random()
        if kind < 0.35:
            args.append(self.argument((domains.DEVICE + ["number", "which"], ("pick", rng.choice(list(POOLS)))), set(), site_novelty))
            base = [f"{p} {{0}}" for p in base[:2]] + [f"{action} {{0}}", f"{ing} {{0}}", f"{{0}}: {action}"]
            tests = [f"have {{0}} done with {ing}", f"{{0}} is due for {ing}"]
        elif kind < 0.6:
            key = rng.choice(list(NUMBERS))
            args.append(self.argument((["value", "amount", "setting", "level", "how_much"], ("num", key)), set(), site_novelty))
            joint = "for" if key in ("minutes", "seconds", "hours") else "[to|at|with]"
            base = [f"{action} [the |]{said} {joint} {{0}}", f"{ing} [the |]{said} {joint} {{0}}", f"{said} {{0}}"]
            tests = [f"{{0}} is right for {ing} {said}"]
        about = rng.choice((f"{action} the {said}", f"{action} {said}", f"{ing} of the {said}")) if not (args and args[0].kind == "enum" and kind < 0.35) else rng.choice((f"{action} the {said}", f"{action} one of them", f"{ing} of a {said}"))
        return Command(name, about, args, base, tests)

    def site(self, domain=None, policy=None):
        rng = self.rng
        domain = domain or rng.choice(list(domains.VERBS))
        self.shared = {}
        verbs = domains.VERBS[domain]
        site_novelty = self.novelty if self.names.test_side else rng.choice((0.0, 0.3, 0.6, 0.9, 1.0))
        used, commands, seen = set(), [], set()
        for verb in rng.sample(verbs, min(len(verbs), rng.choice((1, 2, 2, 3) if self.small else (2, 3, 3, 4, 4, 5, 6)))):
            stem = verb[1][0]
            if stem in seen or (domain == "picking" and verb[0][0] == "pick" and "pick" in seen) or (domain == "inspection" and verb[0][0] == "inspect" and "inspect" in seen):
                continue
            seen.update((stem, verb[0][0]))
            command = self.command(verb, used, site_novelty)
            commands += [command] if command else []
        for _ in range(0 if self.small else rng.choice((0, 0, 0, 1, 1, 2))):
            command = self.generic(used, site_novelty)
            commands += [command] if command else []
        rng.shuffle(commands)
        name = rng.choice((domain, rng.choice(SITE_WORDS), self.names.fresh(), rng.choice(SITE_WORDS) + "-" + str(rng.randint(1, 30))))
        site = Site(name, domain, commands)
        if self.small:
            return site
        if policy if policy is not None else rng.random() < (0.6 if domain in ("conveyor", "maintenance", "drone", "hvac") else 0.2):
            self.add_policy(site)
        elif rng.random() < 0.15:
            site.tags = self.tags(rng.randint(1, 3))
        return site

    # ---- policies ---------------------------------------------------------------------------------------------------

    def tags(self, count):
        rng = self.rng
        out = []
        while len(out) < count:
            if rng.random() < 0.15:
                name, tag = rng.choice(BOOL_TAGS), None
                tag = Tag(name, "", "bool")
            else:
                base = rng.choice(list(TAGS))
                decimals = rng.choice((0, 0, 1, 1, 2))
                top = rng.choice((1, 10, 50, 100, 100, 200, 400, 1000, 3000)) if decimals < 2 else rng.choice((1, 10))
                lo, hi = sorted(round(rng.uniform(0.1, 0.9) * top, decimals) for _ in range(2))
                if hi - lo < 2 * 10**-decimals:
                    continue
                bound = rng.random()
                tag = Tag(base, TAGS[base] if rng.random() < 0.8 else "", "number", decimals, (0, top * 2),
                          lo if bound < 0.45 else None, hi if bound > 0.25 else None)
            kind = rng.random()
            things = [c for names in self.shared.values() for c in names]
            if kind < 0.2 and things:
                tag.name = rng.choice(things) + "_" + tag.name
            elif kind < 0.35:
                tag.name = rng.choice((nm.ADJECTIVES, nm.DEVICES, nm.PARTS))[rng.randrange(20)] + "_" + tag.name
            elif kind < 0.5:
                tag.name = self.names.fresh() + "_" + tag.name
            elif kind < 0.6:
                tag.name = self.names.fresh()
            if all(t.name != tag.name for t in out):
                out.append(tag)
        return out

    def condition(self, site):
        """(text, predicate over tag values)"""
        rng = self.rng
        if rng.random() < 0.25 and len(site.tags) > 1:
            (a, pa), (b, pb) = self.comparison(site), self.comparison(site)
            if rng.random() < 0.5:
                return f"{a} and {b}", lambda v: pa(v) and pb(v)
            return f"{a} or {b}", lambda v: pa(v) or pb(v)
        return self.comparison(site)

    def comparison(self, site):
        rng = self.rng
        tag = rng.choice(site.tags)
        said = tag.name if rng.random() < 0.5 else tag.name.replace("_", " ")
        if tag.kind == "bool":
            want = rng.random() < 0.7
            return f"{said} is {'yes' if want else 'no'}", lambda v, n=tag.name: v[n] == want
        bands = [b for b, limit in (("high", tag.hi), ("low", tag.lo)) if limit is not None]
        if bands and rng.random() < 0.6:
            band = rng.choice(bands)
            limit = tag.hi if band == "high" else tag.lo
            test = (lambda v, n=tag.name: v[n] > limit) if band == "high" else (lambda v, n=tag.name: v[n] < limit)
            return f"{said} is {rng.choice(('', '', 'too '))}{band}", test
        top = tag.range[1] / 2
        bound = round(rng.uniform(0.1, 0.9) * top, tag.decimals if rng.random() < 0.5 else 0)
        if rng.random() < 0.6:
            return f"{said} is {rng.choice(('above', 'over', 'more than', 'greater than', '>'))} {number_text(bound)}", lambda v, n=tag.name: v[n] > bound
        return f"{said} is {rng.choice(('below', 'under', 'less than', '<'))} {number_text(bound)}", lambda v, n=tag.name: v[n] < bound

    def add_policy(self, site):
        rng = self.rng
        site.tags = self.tags(rng.choice((1, 2, 2, 3, 3, 4)))
        for _ in range(rng.choice((1, 2, 2, 3))):
            command = rng.choice(site.commands)
            filled = self.fill(command, self.pattern(command, test=False))
            if filled is None:
                continue
            text, values = filled
            condition, test = self.condition(site)
            form = rng.choice(("{c} when {w}", "when {w}, {c}", "if {w}, {c}", "{c} if {w}", "{w}: {c}", "{c} as soon as {w}"))
            site.notes.append(fold(form.format(c=text, w=condition)))
            site.policy.append((test, values))
        if rng.random() < 0.5:
            command = rng.choice(site.commands)
            filled = self.fill(command, self.pattern(command, test=False))
            if filled:
                site.notes.append(fold(rng.choice(("otherwise {c}", "otherwise {c}", "else {c}", "in all other cases {c}")).format(c=filled[0])))
                site.policy.append((lambda v: True, filled[1]))

    def tag_values(self, site, near=True):
        rng = self.rng
        values = {}
        for t in site.tags:
            if t.kind == "bool":
                values[t.name] = rng.random() < 0.5
                continue
            top = t.range[1] / 2
            value = rng.uniform(0, 1.1) * top
            limits = [x for x in (t.lo, t.hi) if x is not None]
            if limits and rng.random() < 0.35:
                value = rng.choice(limits) * rng.uniform(0.8, 1.2)
            values[t.name] = round(min(value, t.range[1]), t.decimals)
        return values

    # ---- events -----------------------------------------------------------------------------------------------------

    def pattern(self, command, test):
        pool = command.test_patterns if test else command.patterns
        return expand(self.rng, self.rng.choice(pool))

    def number(self, a):
        """A value of a numeric argument and how it is said."""
        rng = self.rng
        steps = int(round((a.hi - a.lo) / a.step))
        value = a.lo + rng.randint(0, steps) * a.step
        if a.step < 1 and rng.random() < 0.5:
            value = min(max(round(value), a.lo), a.hi)
        if rng.random() < 0.3 and a.hi - a.lo >= 20:
            value = min(max(round(value / 5) * 5, a.lo), a.hi)
        value = round(value, 4)
        return (int(value) if float(value).is_integer() else value), self.say_number(a, value)

    def say_number(self, a, value):
        rng = self.rng
        text = number_text(value)
        if float(value).is_integer() and 0 <= value <= 120 and rng.random() < 0.15:
            text = words_of(int(value))
        elif value < 0 and rng.random() < 0.4:
            text = "minus " + number_text(-value)
        form = rng.choice(a.forms)
        if form == "{n}c" and not text[-1].isdigit():
            form = "{n} degrees"
        return form.format(n=text)

    def fill(self, command, pattern, skip=None):
        """(sentence, command object) or None."""
        rng = self.rng
        values, spoken = {"action": command.name}, []
        for a in command.arguments:
            if a.kind in ("integer", "number"):
                value, said = self.number(a)
            else:
                value = rng.choice(a.choices)
                said = rng.choice(a.spoken[value]) if a.spoken and rng.random() < 0.9 else nm.spoken(rng, value)
                if a.kind == "bool":
                    value, said = value == "true", rng.choice(a.spoken[value])
            values[a.name] = value
            spoken.append(said)
        return pattern.format(*spoken), values

    def dress(self, text):
        """Politeness, capitals, punctuation, slips of the finger."""
        rng = self.rng
        if rng.random() < 0.2:
            text = rng.choice(domains.POLITE_BEFORE) + text
        if rng.random() < 0.12:
            text += rng.choice(domains.POLITE_AFTER)
        kind = rng.random()
        if kind < 0.25:
            text += "."
        elif kind < 0.3:
            text += "!"
        if rng.random() < 0.04 and len(text) > 12:
            i = rng.randrange(1, 6)
            text = text[:i] + text[i + 1:]
        return text

    def names_of(self, site):
        out = [c for command in site.commands for a in command.arguments if a.kind == "enum" and not a.spoken for c in a.choices]
        return out + [t.name for t in site.tags]

    def declined(self, site):
        """A sentence that must lead to `none`."""
        rng = self.rng
        none = {"action": "none"}
        kind = rng.random()
        things = self.names_of(site)
        n = rng.randint(1, 30)
        if kind < 0.3 or (not things and kind < 0.6):
            if self.foreign and rng.random() < 0.5:
                return Event(rng.choice(self.foreign), {}, none, "out_of_scope")
            pool = domains.OUT_OF_SCOPE_TEST if self.test_patterns else domains.OUT_OF_SCOPE
            return Event(self.dress(expand(rng, rng.choice(pool)).format(n=n, m=rng.randint(1, 30))), {}, none, "out_of_scope")
        if kind < 0.6 and site.domain != "kiosk":
            pool = domains.QUESTIONS_TEST if self.test_patterns else domains.QUESTIONS
            text = expand(rng, rng.choice(pool)).format(x=nm.spoken(rng, rng.choice(things)), n=n)
            return Event(text + rng.choice(("", "", "?")), {}, none, "question")
        command = rng.choice(site.commands)
        pattern = self.pattern(command, self.test_patterns)
        if kind < 0.7:
            text, _ = self.fill(command, self.pattern(command, False))
            return Event(expand(rng, rng.choice(domains.NEGATIONS[:3])).format(c=text), {}, none, "negation")
        numeric = [i for i, a in enumerate(command.arguments) if a.kind in ("integer", "number")]
        picks = [i for i, a in enumerate(command.arguments) if a.kind == "enum" and not a.spoken]
        if numeric and kind < 0.85:
            i = rng.choice(numeric)
            a = command.arguments[i]
            beyond = a.hi + max(a.step, round((a.hi - a.lo) * rng.uniform(0.05, 1.5) / a.step) * a.step)
            if a.lo > 0 and rng.random() < 0.25 and a.lo - a.step * 2 > 0:
                beyond = a.lo - a.step * rng.randint(1, max(1, int(a.lo / a.step) - 1))
            said = self.say_number(a, round(beyond, 4))
            return self.replaced(command, pattern, i, said, "out_of_range")
        if picks:
            i = rng.choice(picks)
            a = command.arguments[i]
            other = self.names.draw(nm.PLACES + nm.DEVICES + nm.ITEMS, self.novelty)
            if any(other.replace("-", "_").split("_")[0] in c for c in a.choices):
                other = self.names.pseudo()
            if any(other in c or c in other for c in a.choices):
                return Event("nothing", {}, none, "out_of_scope")
            return self.replaced(command, pattern, i, nm.spoken(rng, other), "unknown_name")
        return Event(expand(rng, rng.choice(domains.OUT_OF_SCOPE)).format(n=n, m=n), {}, none, "out_of_scope")

    def replaced(self, command, pattern, index, said, kind):
        slots = []
        for i, a in enumerate(command.arguments):
            if i == index:
                slots.append(said)
            elif a.kind in ("integer", "number"):
                slots.append(self.number(a)[1])
            else:
                choice = self.rng.choice(a.choices)
                slots.append(self.rng.choice(a.spoken[choice]) if a.spoken else nm.spoken(self.rng, choice))
        return Event(self.dress(pattern.format(*slots)), {}, {"action": "none"}, kind)

    def event(self, site, kind=None):
        rng = self.rng
        roll = rng.random()
        kind = kind or ("policy" if site.policy and roll < 0.45 else "declined" if roll > 0.82 else "command")
        if kind == "policy":
            values = self.tag_values(site)
            answer = next((v for test, v in site.policy if test(values)), {"action": "none"})
            return Event("", values, answer, "policy")
        if kind == "declined":
            event = self.declined(site)
        else:
            command = rng.choice(site.commands)
            text, values = self.fill(command, self.pattern(command, self.test_patterns))
            event = Event(self.dress(text), {}, values, "command")
        event.sentence = fold(event.sentence)
        if site.tags and rng.random() < 0.7:
            event.tags = self.tag_values(site)
        return event
