"""Write what the generator renders, for the program's test that it renders the same bytes.

usage: golden_prompts.py OUT.jsonl
"""
import json
import sys
from pathlib import Path

import sites
from vocabulary import Vocabulary

draw = sites.Draw(4242, [])
vocabulary = Vocabulary.load(Path(__file__).resolve().parent.parent / "vocabulary.json")
with open(sys.argv[1], "w") as out:
    for _ in range(40):
        site = draw.site()
        events = [draw.event(site) for _ in range(5)]
        rows = [{"text": e.sentence.upper() if i % 2 else f"  {e.sentence}\t", "tags": e.tags, "prompt": e.text(site), "answer": e.answer(), "prompt_tokens": vocabulary.encode(e.text(site)), "answer_tokens": vocabulary.encode(e.answer())} for i, e in enumerate(events)]
        out.write(json.dumps({"toml": site.toml(), "prefix": site.prefix(), "prefix_tokens": vocabulary.encode(site.prefix()), "events": rows}) + "\n")
