"""Train the default model from scratch, on CPU or GPU, within a time budget; resumes from its checkpoint.

usage: train.py OUT_DIR --minutes 90 [--shared ../../../../shared] [--threads N]

The learning rate follows the share of the budget that is spent, so the same command fits a laptop and a data-centre GPU.
Each sequence holds one site's prefix and many events; an event attends to the prefix and itself, exactly as at run time.
"""
import argparse
import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import names
import sites
from model import Decoder, Shape, event_mask
from vocabulary import Vocabulary
from weights import from_gguf

LENGTH = 640
CONTEXT, ANSWER, ACTION = 1, 2, 3  # token roles; the prefix is 0
ACTION_WEIGHT = 3.0  # the choice of the command carries the answer's meaning, and most of its mistakes


def pack(vocabulary, draw, length=LENGTH, site=None):
    """One sequence: ids, segments, roles, kinds of its events. Position restarts behind the prefix with each event."""
    while True:
        site = site or draw.site()
        prefix = [vocabulary.bos] + vocabulary.encode(site.prefix())
        if len(prefix) < length - 110:
            break
        site = None
    ids, segments, roles, kinds = list(prefix), [0] * len(prefix), [0] * len(prefix), []
    positions = list(range(len(prefix)))
    while True:
        event = draw.event(site)
        text, answer = vocabulary.encode(event.text(site)), vocabulary.encode(event.answer()) + [vocabulary.eos]
        if len(ids) + len(text) + len(answer) > length:
            break
        kinds.append(event.kind)
        ids += text + answer
        segments += [len(kinds)] * (len(text) + len(answer))
        verb = len(vocabulary.encode(event.command["action"]))
        roles += [CONTEXT] * len(text) + [ANSWER] * 3 + [ACTION] * verb + [ANSWER] * (len(answer) - 3 - verb)
        positions += range(len(prefix), len(prefix) + len(text) + len(answer))
    pad = length - len(ids)
    return ids + [vocabulary.eos] * pad, segments + [-1] * pad, roles + [0] * pad, positions + [0] * pad, kinds


def pack_copy(vocabulary, rng, length):
    """Random tokens, then spans of them again: dense practice in finding where something stood and going on from there."""
    ids, roles = [vocabulary.bos], [0]
    source = [rng.randrange(256, len(vocabulary.tokens) - 2) for _ in range(rng.randint(16, length // 2))]
    ids += source
    roles += [0] * len(source)
    while len(ids) < length:
        size = rng.randint(2, 14)
        start = rng.randrange(0, max(1, len(source) - size))
        span = source[start:start + size]
        ids += [rng.randrange(0, 256)] * rng.randint(0, 2) + span
        roles += [0] * (len(ids) - len(roles) - len(span)) + [0] + [ANSWER] * (len(span) - 1)
    return ids[:length], [0] * length, roles[:length], list(range(length)), []


def batch(vocabulary, draw, count, length=LENGTH, copies=0):
    rows = [pack_copy(vocabulary, draw.rng, length) if i < copies else pack(vocabulary, draw, length) for i in range(count)]
    return [np.array([r[i] for r in rows], dtype=np.int64) for i in range(4)] + [[r[4] for r in rows]]


def feed(queue, small, vocabulary_file, seed, words, foreign, count):
    """Batches of equal size in tokens: short sites in short sequences at first, then whole ones."""
    vocabulary = Vocabulary.load(vocabulary_file)
    draw = sites.Draw(seed, words, foreign)
    while True:
        draw.small = bool(small.value)
        length = LENGTH // 2 if draw.small else LENGTH
        rows = count * LENGTH // length
        queue.put(batch(vocabulary, draw, rows, length, copies=rows // 8 if draw.small else 0)[:4])


def foreign_sentences(shared, part):
    """Public sentences that no site of ours understands: CLINC150, Snips."""
    path = Path(shared) / "data/clinc150/data_full_train_val.json"
    if not path.exists():
        return []
    data = json.load(open(path))
    home = ("smart_home", "lights", "thermostat", "timer", "order", "where", "what_is", "how_much")
    out = [s for key in (("train", "oos_train") if part == "train" else ("val", "oos_val")) for s, intent in data.get(key, []) if not any(h in intent for h in home)]
    return sorted(s for s in out if len(s) < 90)


def newton_schulz(g, steps=5):
    """Nearest orthogonal matrix, batched (Jordan et al., Muon, 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    for _ in range(steps):
        xx = x @ x.mT
        x = a * x + (b * xx + c * (xx @ xx)) @ x
    return (x.mT if flip else x).float()


class Muon:
    """Momentum with orthogonalised updates for the matrices of the layers, equal shapes in one batch."""

    def __init__(self, params, momentum=0.95, decay=0.02):
        self.momentum, self.decay = momentum, decay
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.buffers = {shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, lr):
        for shape, params in self.groups.items():
            grad = torch.stack([p.grad for p in params])
            buffer = self.buffers[shape].lerp_(grad, 1 - self.momentum)
            update = newton_schulz(grad.lerp(buffer, self.momentum)) * max(1, shape[0] / shape[1]) ** 0.5
            for p, u in zip(params, update):
                p.mul_(1 - lr * self.decay).add_(u, alpha=-lr)


def schedule(progress):
    """Warm up over 1 %, hold, then straight down from 35 % on."""
    return min(1.0, progress / 0.01) * min(1.0, (1 - progress) / 0.65)


@torch.no_grad()
def exact_match(model, vocabulary, words, foreign, dtype, device):
    """Greedy exact match by suite, without a grammar: every token of the answer must be the arg-max."""
    model.eval()
    out = {}
    for suite, options in (("recombined", {}), ("names", {"test_names": True}), ("phrasing", {"test_patterns": True}), ("both", {"test_names": True, "test_patterns": True})):
        draw = sites.Draw(990_000 + len(suite), words, foreign, **options)
        right, total = {}, {}
        for _ in range(6):
            ids, segments, roles, positions, kinds = batch(vocabulary, draw, 8)
            ids, segments, roles, positions = (torch.from_numpy(x).to(device) for x in (ids, segments, roles, positions))
            hidden = model(ids, positions, event_mask(segments, dtype), dtype)
            logits = hidden[:, :-1].to(dtype) @ model.head.weight.to(dtype).T
            good = (logits.argmax(-1) == ids[:, 1:]) | (roles[:, 1:] < ANSWER)
            for row, row_kinds in enumerate(kinds):
                for index, kind in enumerate(row_kinds):
                    ok = bool(good[row][segments[row, 1:] == index + 1].all())
                    right[kind] = right.get(kind, 0) + ok
                    total[kind] = total.get(kind, 0) + 1
        out[suite] = round(100 * sum(right.values()) / sum(total.values()), 1)
        out[suite + "_kinds"] = {k: f"{100 * right[k] / total[k]:.0f}/{total[k]}" for k in sorted(total)}
    model.train()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--shared", default=str(Path(__file__).resolve().parents[4] / "shared"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=768)
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--small", type=float, default=0.08, help="share of the budget on short sites")
    parser.add_argument("--rest", type=float, default=0.3, help="weight of everything that is not an answer, at the start")
    parser.add_argument("--start-from", help="GGUF file whose weights to go on from, for example ../nano.gguf; then --small 0 --rest 0")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=0, help="stop after so many steps (for timing)")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    vocabulary_file = Path(__file__).resolve().parent.parent / "vocabulary.json"
    vocabulary = Vocabulary.load(vocabulary_file)
    words = names.dictionary(a.shared)
    train_foreign, test_foreign = (foreign_sentences(a.shared, part) for part in ("train", "test"))
    model = Decoder(Shape(layers=a.layers, ffn=a.ffn, vocabulary=len(vocabulary.tokens))).to(device)
    if a.start_from:
        model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in from_gguf(a.start_from, vars(model.shape)).items()})
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("layers")]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or not n.startswith("layers")]
    muon = Muon(matrices)
    # Tables move relative to their size: embeddings are of unit scale, the head is not.
    adam = torch.optim.AdamW([{"params": [p for p in others if p is not model.head.weight], "base": 2e-3}, {"params": [model.head.weight], "base": 2e-4}], betas=(0.9, 0.95), weight_decay=0.0)
    spent, step, tokens = 0.0, 0, 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        adam.load_state_dict(saved["adam"])
        muon.buffers = saved["muon"]
        spent, step, tokens = saved["spent"], saved["step"], saved["tokens"]
    print("parameters", sum(p.numel() for p in model.parameters()), "device", device, "resumed at", step, flush=True)
    queue = multiprocessing.Queue(4)
    small = multiprocessing.Value("b", spent < a.small * a.minutes * 60)
    workers = 1 if device == "cpu" else max(1, a.threads - 2)
    for w in range(workers):
        multiprocessing.Process(target=feed, args=(queue, small, vocabulary_file, random.Random(f"{step}-{w}").random(), words, train_foreign, a.batch), daemon=True).start()
    forward = torch.compile(model) if a.compile else model
    last, last_eval, losses = time.monotonic(), spent, []
    while spent < a.minutes * 60 and not (a.steps and step >= a.steps):
        progress = spent / (a.minutes * 60)
        scale = schedule(progress)
        small.value = progress < a.small
        ids, segments, roles, positions = (torch.from_numpy(x).to(device) for x in queue.get())
        hidden = forward(ids, positions, event_mask(segments, dtype), dtype)
        targets = ids[:, 1:]
        answer = roles[:, 1:] >= ANSWER
        rest = a.rest * max(0.0, 1 - progress / 0.4)  # lists and names that come again teach copying
        chosen = (segments[:, 1:] >= 0) & (segments[:, 1:] == segments[:, :-1]) if rest > 0 else answer
        logits = (hidden[:, :-1][chosen] @ model.head.weight.to(dtype).T).float()
        each = F.cross_entropy(logits, targets[chosen], reduction="none")
        is_answer = torch.where(roles[:, 1:] == ACTION, ACTION_WEIGHT, 1.0)[chosen] * answer[chosen]
        loss = (each * is_answer).sum() / is_answer.sum()
        total = loss + 1e-4 * (logits.logsumexp(-1) ** 2).mean()
        if rest > 0:
            total = total + rest * each[is_answer == 0].mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for group in adam.param_groups:
            group["lr"] = group["base"] * scale
        muon.step(a.lr * scale)
        adam.step()
        for p in model.parameters():
            p.grad = None
        step += 1
        tokens += ids.numel()
        losses.append(loss.item())
        if step % 25 == 0 and small.value:
            copies = (segments[:, 1:] == 0) & answer
            where = copies[chosen].float()
            print(f"copy loss {((each * where).sum() / where.sum()).item():.3f}, answers {((each * is_answer * (1 - where)).sum() / (is_answer * (1 - where)).sum()).item():.3f}")
        now = time.monotonic()
        spent, last = spent + now - last, now
        if step % 50 == 0:
            print(f"{spent / 60:6.1f} min step {step} tokens {tokens / 1e6:.2f} M loss {sum(losses[-50:]) / 50:.4f} {tokens / spent:.0f} tokens/s", flush=True)
        if spent - last_eval > 600 or spent >= a.minutes * 60:
            print(json.dumps({"minutes": round(spent / 60, 1), "tokens": tokens, **exact_match(model, vocabulary, words, test_foreign, dtype, device)}), flush=True)
            torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "muon": muon.buffers, "spent": spent, "step": step, "tokens": tokens, "shape": vars(model.shape)}, str(checkpoint) + ".new")
            os.replace(str(checkpoint) + ".new", checkpoint)
            last = time.monotonic()
            last_eval = spent


if __name__ == "__main__":
    main()
