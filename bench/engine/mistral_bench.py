#!/usr/bin/env python3
"""Prefill and decode speed of mistral.rs, by its own account. Run it with a Python that has PyPI's `mistralrs`.

usage: mistral_bench.py MODEL.gguf THREADS PROMPT_TOKENS DECODE_TOKENS REPEAT

Prints one JSON object. The vocabulary must be that of models.py, where every word `w<number>` is one token.
"""

import json
import os
import pathlib
import random
import sys


def main():
    model = pathlib.Path(sys.argv[1])
    threads, prompt_tokens, decode_tokens, repeat = map(int, sys.argv[2:6])
    # Its thread pools size themselves when they start: by these variables and by the processors that they may use.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKIO_WORKER_THREADS"] = str(threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    import importlib.metadata

    import mistralrs

    runner = mistralrs.Runner(
        which=mistralrs.Which.GGUF(quantized_model_id=str(model.parent), quantized_filename=model.name),
        max_seqs=1,
        prefix_cache_n=0,
        no_paged_attn=True,
    )
    words = random.Random(1)
    prefill, decode, counted = [], [], []
    for run in range(repeat + 1):
        # Another prompt each time: nothing can come from a cache.
        prompt = " ".join(f"w{words.randrange(300, 30000)}" for _ in range(prompt_tokens))
        request = mistralrs.CompletionRequest(
            model="default", prompt=prompt, max_tokens=decode_tokens, temperature=0.0, ignore_eos=True
        )
        usage = runner.send_completion_request(request).usage
        if run == 0:
            continue  # warms up
        prefill.append(usage.avg_prompt_tok_per_sec)
        decode.append(usage.avg_compl_tok_per_sec)
        counted.append((usage.prompt_tokens, usage.completion_tokens))
    print(
        json.dumps(
            {
                "prefill_runs_tokens_per_s": prefill,
                "decode_runs_tokens_per_s": decode,
                "tokens": counted,
                "version": importlib.metadata.version("mistralrs"),
            }
        )
    )


if __name__ == "__main__":
    main()
