/* Evaluates a prompt and goes on greedily; one line for each token: the token chosen and a hash of all logits, bit by bit.
   PROMPT is a list of tokens, STEPS how many follow. */

#include "model.h"

#include <stddef.h>
#include <string.h>

int drive(void);
void say(const char *text);
/* Ticks of a clock; 0 where there is none that counts. */
uint64_t now(void);
void report(uint64_t ticks);

static const uint32_t prompt[] = { PROMPT };

static void say_number(uint64_t value, unsigned base)
{
    char text[24];
    size_t at = sizeof text - 1;
    text[at] = '\0';
    do {
        text[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    say(text + at);
}

/* FNV-1a over the bytes of the logits. */
static uint64_t hash_of_logits(void)
{
    uint64_t hash = 0xcbf29ce484222325u;
    uint32_t token;
    int i;
    for (token = 0; token < GANGLION_VOCABULARY; token++) {
        const float logit = ganglion_logit(token);
        uint32_t bits;
        memcpy(&bits, &logit, sizeof bits);
        for (i = 0; i < 4; i++) {
            hash = (hash ^ ((bits >> (8 * i)) & 0xffu)) * 0x100000001b3u;
        }
    }
    return hash;
}

/* 0 if all went well. */
int drive(void)
{
    uint32_t i, prefix = 0;
    int32_t next = -1;
    uint64_t spent = 0, start;
    if (ganglion_best() != -1 || ganglion_step(GANGLION_VOCABULARY) != GANGLION_TOKEN) {
        return 1;
    }
    /* The second round begins in the middle of the prompt, and must not differ from the first. */
    for (i = 0; i < sizeof prompt / sizeof prompt[0]; i++) {
        if (ganglion_step(prompt[i]) != GANGLION_OK) {
            return 2;
        }
        if (i == 0) {
            prefix = ganglion_position();
        }
    }
    if (ganglion_truncate(prefix) != GANGLION_OK || ganglion_best() != -1) {
        return 3;
    }
    for (i = prefix; i < sizeof prompt / sizeof prompt[0]; i++) {
        ganglion_step(prompt[i]);
    }
    for (i = 0; i < STEPS; i++) {
        start = now();
        next = ganglion_best();
        spent += now() - start;
        if (next < 0) {
            return 4;
        }
        say_number((uint64_t)next, 10);
        say(" ");
        say_number(hash_of_logits(), 16);
        say("\n");
        start = now();
        if (ganglion_step((uint32_t)next) != GANGLION_OK) {
            return 5;
        }
        spent += now() - start;
    }
    report(spent);
    return 0;
}
