"""Write the held-out evaluation suites that `ganglion model eval` reads.

usage: suites.py OUT_DIR [--shared ../../../../shared]

recombined  names and patterns of training in new sites: nothing here was seen together
names       new words from the side of the word split that training never draws, alone or joined to a known one
phrasing    every sentence from patterns that training never uses
scope       sentences and questions that no command answers
policy      sensor events judged by the site's notes
numbers     sentences with numbers in them, from all of the above
Seeds are outside the range that training uses; a line that training could have made by chance is dropped against a sample.
"""
import argparse
import json
from pathlib import Path

import names
import sites
from train import foreign_sentences

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out")
parser.add_argument("--shared", default=str(Path(__file__).resolve().parents[4] / "shared"))
a = parser.parse_args()
out = Path(a.out)
out.mkdir(parents=True, exist_ok=True)
words = names.dictionary(a.shared)
foreign = foreign_sentences(a.shared, "test")

seen = set()
sample = sites.Draw(0.5, words, foreign_sentences(a.shared, "train"))
for _ in range(3000):
    site = sample.site()
    seen.update((site.prefix(), sample.event(site).text(site)) for _ in range(10))

SUITES = {  # name: (cases, options, kinds of event, filter)
    "recombined": (600, {}, ("command",), None),
    "names": (600, {"test_names": True}, ("command",), None),
    "phrasing": (600, {"test_patterns": True}, ("command",), None),
    "scope": (400, {"test_patterns": True}, ("declined",), lambda e: e.kind in ("out_of_scope", "question")),
    "declined": (300, {}, ("declined",), lambda e: e.kind in ("negation", "unknown_name", "out_of_range")),
    "policy": (400, {}, ("policy",), None),
    "numbers": (400, {}, ("command",), lambda e: any(isinstance(v, (int, float)) and not isinstance(v, bool) for v in e.command.values())),
}
for index, (name, (count, options, kinds, keep)) in enumerate(SUITES.items()):
    draw = sites.Draw(7_000_000 + index, words, foreign, **options)
    lines, cases, number = [], 0, 0
    while cases < count:
        site = draw.site(policy=True if name == "policy" else None)
        if name == "policy" and not site.policy or len(site.prefix()) > 2400:
            continue
        events = []
        for _ in range(60):
            event = draw.event(site, draw.rng.choice(kinds))
            text = event.text(site)
            if (keep is None or keep(event)) and (site.prefix(), text) not in seen and len(event.sentence.encode()) <= 512 and text not in [e.text(site) for e in events]:
                events.append(event)
            if len(events) == 6:
                break
        number += 1
        if not events:
            continue
        lines.append({"site": f"s{number}", "toml": site.toml()})
        for event in events[: count - cases]:
            case = {"site": f"s{number}", "kind": event.kind if name != "recombined" else site.domain, "text": event.sentence}
            if event.tags:
                case["tags"] = event.tags
            lines.append({**case, "expect": event.command})
            cases += 1
    (out / f"{name}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    print(name, cases, "cases,", number, "sites")
