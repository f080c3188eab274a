#!/usr/bin/env python3
"""Prompts with answers from the default model's generator, as text: calibration and test data that training drew in the same way.

usage: texts.py SEED BYTES OUT.txt
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "models/nano/recipe"))
import sites  # noqa: E402


def text(seed, size):
    draw, parts, length = sites.Draw(seed, []), [], 0
    while length < size:
        site = draw.site()
        events = [draw.event(site) for _ in range(4)]
        part = site.prefix() + "".join(f"{event.text(site)}{event.answer()}\n" for event in events)
        parts.append(part)
        length += len(part)
    return "".join(parts)


if __name__ == "__main__":
    pathlib.Path(sys.argv[3]).write_text(text(int(sys.argv[1]), int(sys.argv[2])))
