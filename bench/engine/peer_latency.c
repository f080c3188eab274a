// llama.cpp's times of single tokens, of loading, and of the first token, as `ganglion bench engine` takes its own.
//
// usage: peer_latency MODEL THREADS CONTEXT TOKENS_PER_RUN TOKENS_IN_ALL
//
// Decodes random tokens one by one, each up to the choice of the best next one, TOKENS_PER_RUN from an empty context,
// then anew until TOKENS_IN_ALL were timed. Prints one JSON object.
// Build against llama.cpp's own headers and libraries; run.py does it.
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llama.h"

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void silent(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static void fail(const char *what) {
    fprintf(stderr, "peer_latency: %s\n", what);
    exit(1);
}

// splitmix64
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int compare(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Nanoseconds of one token up to the best next one.
static uint64_t step(struct llama_context *context, llama_token token, int32_t vocab) {
    static volatile int32_t chosen;
    const uint64_t start = now_ns();
    if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0) fail("llama_decode failed");
    const float *logits = llama_get_logits_ith(context, -1);
    if (logits == NULL) fail("no logits");
    int32_t best = 0;
    for (int32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    chosen = best;
    (void)chosen;
    return now_ns() - start;
}

// A line of /proc/self/status in bytes.
static uint64_t status_bytes(const char *key) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0) sscanf(line + strlen(key), ": %" SCNu64, &kib);
    if (file != NULL) fclose(file);
    return kib * 1024;
}

int main(int argc, char **argv) {
    if (argc != 6) fail("usage: peer_latency MODEL THREADS CONTEXT TOKENS_PER_RUN TOKENS_IN_ALL");
    const int threads = atoi(argv[2]), length = atoi(argv[3]), per_run = atoi(argv[4]);
    const long total = atol(argv[5]);
    if (threads < 1 || length < per_run || per_run < 1 || total < 1) fail("counts from 1, and a run must fit the context");
    llama_log_set(silent, NULL);

    const uint64_t start = now_ns();
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == NULL) fail("the model does not load");
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)length;
    params.n_threads = params.n_threads_batch = threads;
    struct llama_context *context = llama_init_from_model(model, params);
    if (context == NULL) fail("no context");
    const uint64_t loaded = now_ns();
    const int32_t vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    uint64_t random = 1;
    step(context, (llama_token)(next_random(&random) % (uint64_t)vocab), vocab);
    const uint64_t first = now_ns();

    uint64_t *times = malloc((size_t)total * sizeof *times);
    if (times == NULL) fail("out of memory");
    for (long i = 0; i < total; i++) {
        if (i % per_run == 0) llama_memory_clear(llama_get_memory(context), true);
        times[i] = step(context, (llama_token)(next_random(&random) % (uint64_t)vocab), vocab);
    }
    // Before the sort touches anything of its own.
    const uint64_t resident = status_bytes("VmRSS"), anonymous = status_bytes("RssAnon");
    const uint64_t mapped = status_bytes("RssFile"), peak = status_bytes("VmHWM");
    qsort(times, (size_t)total, sizeof *times, compare);
    const long p999 = total - 1 - total / 1000;
    printf("{\"load_ms\": %.3f, \"first_token_ms\": %.3f, \"token_p50_us\": %.3f, \"token_p999_us\": %.3f, "
           "\"token_max_us\": %.3f, \"tokens_timed\": %ld, \"resident_bytes\": %" PRIu64
           ", \"resident_anonymous_bytes\": %" PRIu64 ", \"resident_file_bytes\": %" PRIu64
           ", \"resident_peak_bytes\": %" PRIu64 "}\n",
           (double)(loaded - start) / 1e6, (double)(first - start) / 1e6, (double)times[total / 2] / 1e3,
           (double)times[p999] / 1e3, (double)times[total - 1] / 1e3, total, resident, anonymous, mapped, peak);
    free(times);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
