/* A model on a serial line: the host has tokenizer and grammar, this program the weights. Lines of token ids come in, and one line
   goes out for each.

       prefix 1534 277 1354      what all events begin with, evaluated once     ok 3
       event 95 456              back to the prefix, and on with these          ok 5
       choose 32 333 17          the best of these, which is then evaluated     token 333
       next                      the best of all, which is then evaluated       token 17

   "error" and a reason stands where "ok" or "token" would. On any machine with a C compiler:

       ganglion model export models/nano/nano.gguf model.c --context 256
       cc -std=c99 -O2 -I. crates/export/examples/microcontroller/main.c model.c -o decide
       printf 'prefix 1534 277 1354\nnext\nnext\n' | ./decide

   On a board, getchar() and printf() are those of its serial port. */

#include "model.h"

#include <stdio.h>
#include <string.h>

/* Most tokens of a line. */
#define LINE_TOKENS 256u

static uint32_t tokens[LINE_TOKENS];
static uint32_t prefix_length;

static int is_end(int c)
{
    return c == '\n' || c == EOF;
}

/* A word of a line into `word`, cut to its size; what ended it. */
static int read_word(char *word, size_t size)
{
    size_t length = 0;
    int c = getchar();
    while (!is_end(c) && c != ' ' && c != '\r') {
        if (length + 1u < size) {
            word[length] = (char)c;
            length++;
        }
        c = getchar();
    }
    word[length] = '\0';
    return c;
}

/* The rest of a line as tokens; -1 if it holds anything else, or too many. */
static int32_t read_tokens(int c)
{
    uint32_t count = 0;
    int is_good = 1;
    while (!is_end(c)) {
        char word[12];
        uint32_t token = 0;
        size_t i;
        c = read_word(word, sizeof word);
        if (word[0] == '\0') {
            continue;
        }
        for (i = 0; word[i] != '\0'; i++) {
            is_good = is_good && word[i] >= '0' && word[i] <= '9' && token < 100000000u;
            token = token * 10u + (uint32_t)(word[i] - '0');
        }
        if (count < LINE_TOKENS) {
            tokens[count] = token;
            count++;
        } else {
            is_good = 0;
        }
    }
    return is_good ? (int32_t)count : -1;
}

static void evaluate(uint32_t count)
{
    uint32_t i;
    int result = GANGLION_OK;
    for (i = 0; i < count && result == GANGLION_OK; i++) {
        result = ganglion_step(tokens[i]);
    }
    if (result == GANGLION_OK) {
        printf("ok %lu\n", (unsigned long)ganglion_position());
    } else {
        printf("error %s\n", result == GANGLION_TOKEN ? "no such token" : "no room for another token");
    }
}

static void choose(int32_t token)
{
    if (token < 0) {
        printf("error nothing to choose by\n");
    } else if (ganglion_step((uint32_t)token) != GANGLION_OK) {
        printf("error no room for another token\n");
    } else {
        printf("token %ld\n", (long)token);
    }
}

static void answer(const char *command, int32_t count)
{
    if (count < 0) {
        printf("error expected token ids\n");
    } else if (strcmp(command, "prefix") == 0) {
        ganglion_reset();
        evaluate((uint32_t)count);
        prefix_length = ganglion_position();
    } else if (strcmp(command, "event") == 0) {
        /* Fails only if there are fewer tokens than the prefix has: none can have been lost. */
        (void)ganglion_truncate(prefix_length);
        evaluate((uint32_t)count);
    } else if (strcmp(command, "choose") == 0) {
        choose(ganglion_best_of(tokens, (uint32_t)count));
    } else if (strcmp(command, "next") == 0) {
        choose(ganglion_best());
    } else {
        printf("error expected prefix, event, choose or next\n");
    }
    (void)fflush(stdout);
}

int main(void)
{
    int c = 0;
    while (c != EOF) {
        char command[8];
        c = read_word(command, sizeof command);
        if (command[0] == '\0') {
            continue;
        }
        if (is_end(c)) {
            answer(command, 0);
        } else {
            answer(command, read_tokens(c));
        }
    }
    return 0;
}
