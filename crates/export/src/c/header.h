/* A language model for a microcontroller: token ids in, the next token out. Written by `ganglion model export`.

   Everything is static; nothing is allocated, and there is one conversation at a time: do not call from two tasks or from an
   interrupt. The tokenizer stays on the host, and so does the grammar: it sends the tokens that are allowed next, and
   ganglion_best_of() computes the logits of these only.

       ganglion_reset();
       for (i = 0; i < count; i++)
           ganglion_step(prompt[i]);
       prefix = ganglion_position();
       next = ganglion_best();            or ganglion_best_of(allowed, allowed_count)
       ganglion_step((uint32_t)next);     and so on
       ganglion_truncate(prefix);         back to the prompt, for the next event

   The same tokens give the same bits on every processor if floats are IEEE's: rounding to nearest, subnormal numbers kept (on
   Cortex-M bits FZ and RMode of FPSCR and FPDSCR 0, as they are after reset), -std=c99 or -ffp-contract=off, no -ffast-math.
*/
#ifndef GANGLION_MODEL_H
#define GANGLION_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which file it was made of: SHA-256 of the GGUF file. Tokenizer and grammar of the host have to be this file's. */
#define GANGLION_MODEL_SHA256 "@SHA256@"
/* Of the model and how it was exported; the C file refuses another header. */
#define GANGLION_EXPORT @EXPORT@u
/* Token ids are 0 to this less one. */
#define GANGLION_VOCABULARY @VOCABULARY@u
/* Tokens that there is room for. */
#define GANGLION_CONTEXT @CONTEXT@u
/* Constants, in bytes; the program comes on top, about 10 KiB. */
#define GANGLION_FLASH_BYTES @FLASH@u
/* Static memory, in bytes; the stack takes less than 1 KiB. */
#define GANGLION_ARENA_BYTES @ARENA@u

#define GANGLION_OK 0
/* The token is outside the vocabulary. */
#define GANGLION_TOKEN (-1)
/* No room for another token, or a length beyond what is there. */
#define GANGLION_FULL (-2)

/* Forgets all tokens. */
void ganglion_reset(void);

/* Evaluates a token at the next position. GANGLION_OK, GANGLION_TOKEN or GANGLION_FULL; after an error nothing has changed. */
int ganglion_step(uint32_t token);

/* Tokens evaluated. */
uint32_t ganglion_position(void);

/* Forgets the tokens from `length` on. Logits are there again after the next step. GANGLION_OK or GANGLION_FULL. */
int ganglion_truncate(uint32_t length);

/* The logit of a token after the last step; not a number before the first, and for a token outside the vocabulary. */
float ganglion_logit(uint32_t token);

/* The token with the largest logit, the first of equals; -1 if there are no logits, or one of them is not a number. */
int32_t ganglion_best(void);

/* The same among `count` tokens; -1 for none. */
int32_t ganglion_best_of(const uint32_t *tokens, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
