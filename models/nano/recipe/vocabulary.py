"""The tokenizer: byte-level BPE in GGUF's `gpt2` form, trained on the generator's own output.

Three choices make copying easy for a small model: digits are single tokens; a name has the same tokens in the prompt, in
the sentence and in the JSON, because a blank is a token of its own before any word that is not a plain function word; and
rare words fall into short pieces.
"""
import collections
import json
import sys

import regex

GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SIZE = 1536
BLANK_WORDS = 224  # function words that carry their leading blank


def byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


BYTES = byte_characters()


class Vocabulary:
    def __init__(self, tokens, merges):
        self.tokens, self.merges = tokens, merges
        self.ids = {t: i for i, t in enumerate(tokens)}
        self.ranks = {tuple(m): i for i, m in enumerate(merges)}
        self.bos, self.eos = self.ids["<bos>"], self.ids["<eos>"]
        self.cache = {}

    def word(self, word):
        found = self.cache.get(word)
        if found is None:
            parts = [BYTES[b] for b in word.encode()]
            while len(parts) > 1:
                rank, i = min((self.ranks.get((a, b), 1 << 30), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
                if rank == 1 << 30:
                    break
                parts[i:i + 2] = [parts[i] + parts[i + 1]]
            found = [self.ids[p] for p in parts]
            if len(self.cache) < 500_000:
                self.cache[word] = found
        return found

    def encode(self, text):
        out = []
        for match in GPT2.finditer(text):
            out += self.word(match[0])
        return out

    def save(self, path):
        json.dump({"tokens": self.tokens, "merges": self.merges}, open(path, "w"), ensure_ascii=False, indent=0)

    @staticmethod
    def load(path):
        data = json.load(open(path))
        return Vocabulary(data["tokens"], [tuple(m) for m in data["merges"]])


def learn(texts, plain_sentences):
    """BPE merges on bare words, most frequent pair first; then blank + function word."""
    words, blanks = collections.Counter(), collections.Counter()
    for text in texts:
        for match in GPT2.finditer(text):
            words[match[0].lstrip(" ") or match[0]] += 1
    for text in plain_sentences:
        blanks.update(m[0] for m in GPT2.finditer(text) if m[0][0] == " " and m[0][1:].isalpha())
    split = {w: [BYTES[b] for b in w.encode()] for w in words if not any(c.isdigit() for c in w)}
    merges, budget = [], SIZE - 256 - 2 - BLANK_WORDS
    while len(merges) < budget:
        pairs = collections.Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for parts in split.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = [best[0] + best[1]]
                i += 1
    known = {a + b for a, b in merges} | set(BYTES.values())
    for word, _ in blanks.most_common():
        bare = word[1:]
        if bare in known and len(merges) < budget + BLANK_WORDS:
            merges.append((BYTES[32], bare))
    tokens = [BYTES[b] for b in range(256)]
    for a, b in merges:
        if a + b not in tokens:
            tokens.append(a + b)
    return Vocabulary(tokens + ["<bos>", "<eos>"], merges)


def main(out, shared):
    import domains
    import names
    import sites

    draw = sites.Draw(7, names.dictionary(shared))
    texts, plain = [], []
    for _ in range(4000):
        site = draw.site()
        texts.append(site.prefix())
        for _ in range(8):
            event = draw.event(site)
            texts += [event.text(site), event.answer()]
    for verbs in domains.VERBS.values():
        for verb in verbs:
            for pattern in verb[3]:
                plain += [" " + sites.expand(draw.rng, pattern).format(*["" for _ in range(4)]) for _ in range(30)]
    for pattern in domains.OUT_OF_SCOPE + domains.QUESTIONS:
        plain += [" " + sites.expand(draw.rng, pattern).format(x="", n="", m="") for _ in range(10)]
    plain += [" degrees percent minutes seconds mm meters hours please now is are when if otherwise high low above below over under and or yes no"] * 2000
    learn(texts, plain).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:3])
