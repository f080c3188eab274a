#!/usr/bin/env python3
"""Writes tests/golden/hf-tokenizers/<case>/: small tokenizers as Hugging Face folders hold them, and what the library
that made them gives for texts.

    pip install tokenizers==0.23.3
    python3 make_tokenizers.py

Each folder holds tokenizer.json, tokenizer_config.json (and whatever else a case needs), and vectors.json: a list of
{text, ids} without anything added around the text, and `around`: [ids put in front, ids put behind].
The texts to train on are made here, so that nothing is fetched.
"""

import json
import shutil
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent / "hf-tokenizers"
WORDS = (
    "set the kitchen to 21.5 degrees and the office to 19, then turn off the fan in the hall; it's 07:45. "
    "We're late, they've said 'I'll wait' 1000000 times. Temperature below 18 °C?\n\n\tif x <= 10: return x * 2\n"
    "Die Tür schließt um 22 Uhr. Ça va? Größe: 1,5 m². 厨房の温度を21度にして。 привет мир\n"
)
CORPUS = [WORDS, WORDS.upper(), WORDS.title(), WORDS.replace(" ", "  ")] * 20
# NFC would compose it; readers of GGUF do not.
DECOMPOSED = "e\u0301 a"
# Where a space goes in front of the first piece only, readers of GGUF put one behind special tokens too.
SPECIAL = "<|im_start|>user\nhi<|im_end|> <s>x</s>\n\ny <table>  z"
TEXTS = [
    "",
    " ",
    "set the kitchen to 21.5 degrees",
    " set  the   kitchen    to 21",
    "it's WE'RE they'Ve I'LL 'd 's",
    "1234567890 12 3 007",
    "\n\n\t x\r\n  y \n",
    "Größe naïve café 厨房の温度 привет 🦙🔥",
    DECOMPOSED,
    "if x<=10:return{x*2}//!!??...",
    "trailing space ",
    "   ",
    "a" * 40 + "hhhhhhhh",
    SPECIAL,
    "<0x41> <unk",
    "\u00a0nbsp\u3000wide\u200b",
]
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN = CL100K.replace("{1,3}", "")


def byte_level(pre_tokenizer, specials, ignore_merges=False, normalizer=None, plain_added=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain_added])
    return tokenizer


def split(expression):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def sentencepiece(prefix, specials, complete=True, user_defined=(), metaspace=None):
    """BPE with byte fallback whose merges are all pairs of tokens that make a token, as converters from SentencePiece
    models write them; or, not `complete`, as the trainer leaves them."""
    trained = Tokenizer(models.BPE(byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    # Without this a token could span words.
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True)
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {text: i for i, text in enumerate([*specials, *(f"<0x{b:02X}>" for b in range(256))])}
    first = len(vocab)
    for run in ("▁▁", "▁▁▁▁"):
        if run not in pieces:
            pieces.append(run)
    # Single characters come last in such files.
    pieces.sort(key=lambda text: len(text) == 1)
    vocab.update({text: first + i for i, text in enumerate(pieces)})
    if complete:
        merges = []
        for text in pieces:
            pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
            pairs = [p for p in pairs if p[0] in vocab and p[1] in vocab]
            merges += sorted(pairs, key=lambda p: (vocab[p[0]], vocab[p[1]]))
    else:
        merges = [tuple(m) for m in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token=specials[0], fuse_unk=True)
    )
    if metaspace:
        tokenizer.pre_tokenizer = metaspace
    else:
        steps = [normalizers.Prepend("▁")] if prefix else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in user_defined])
    return tokenizer


def around(tokenizer, bos=None, eos=None):
    single = [*([bos] if bos else []), "$A", *([eos] if eos else [])]
    names = [name for name in (bos, eos) if name]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(single), special_tokens=[(name, tokenizer.token_to_id(name)) for name in names]
    )
    return tokenizer


def write(name, tokenizer, settings, files=None, leave=()):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Not indented: half the size.
    (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    for file, text in (files or {}).items():
        (folder / file).write_text(text)
    vectors = [dict(text=text, ids=tokenizer.encode(text, add_special_tokens=False).ids) for text in TEXTS if text not in leave]
    full = tokenizer.encode("x").ids
    bare = tokenizer.encode("x", add_special_tokens=False).ids
    at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    expected = dict(around=[full[:at], full[at + len(bare) :]], vectors=vectors)
    (folder / "vectors.json").write_text(json.dumps(expected) + "\n")


def main():
    gpt2 = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
    write("gpt2", gpt2, dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>"))

    smollm = byte_level(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    write(
        "smollm",
        smollm,
        dict(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token=None, chat_template=template),
    )

    qwen2 = byte_level(
        split(QWEN), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizer=normalizers.NFC(), plain_added=["<tool>"]
    )
    write(
        "qwen2",
        qwen2,
        dict(
            bos_token=None,
            eos_token=dict(content="<|im_end|>", special=True),
            add_bos_token=False,
            chat_template=[dict(name="tool_use", template="no"), dict(name="default", template=template)],
        ),
        leave=[DECOMPOSED],
    )

    llama3 = around(
        byte_level(split(CL100K), ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], ignore_merges=True),
        "<|begin_of_text|>",
    )
    write(
        "llama3",
        llama3,
        dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"),
        {"chat_template.jinja": "{{ bos_token }}" + template},
    )

    llama = around(sentencepiece(True, ["<unk>", "<s>", "</s>"]), "<s>", "</s>")
    write("llama", llama, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_eos_token=False))

    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    mistral = around(sentencepiece(True, ["<unk>", "<s>", "</s>", "[INST]"], metaspace=metaspace), "<s>")
    write(
        "mistral",
        mistral,
        dict(add_bos_token=True),
        {"special_tokens_map.json": json.dumps(dict(bos_token="<s>", eos_token=dict(content="</s>")))},
        # This step puts no second space in front; SentencePiece itself does, and so do readers of GGUF.
        leave=[SPECIAL, *(text for text in TEXTS if text.startswith(" "))],
    )

    gemma = around(
        sentencepiece(
            False, ["<unk>", "<pad>", "<eos>", "<bos>", "<end_of_turn>"], user_defined=["\n\n", "▁▁▁▁", "<table>"]
        ),
        "<bos>",
    )
    write("gemma", gemma, dict(bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>"))

    # Merges of the trainer itself: no scores say the same.
    write("native", sentencepiece(True, ["<unk>", "<s>", "</s>"], complete=False), {})
    # A definition that nobody knows.
    write("unknown", byte_level(split(r"\p{N}{1,5}|\s+|\S+"), ["<|endoftext|>"]), {})
    for folder in sorted(HERE.iterdir()):
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder.name:10} {size:7} bytes")


if __name__ == "__main__":
    main()
