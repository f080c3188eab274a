/* The test on the machine that runs it. */

#include <stdint.h>
#include <stdio.h>

int drive(void);
void say(const char *text);
uint64_t now(void);
void report(uint64_t ticks);

uint64_t now(void)
{
    return 0;
}

void report(uint64_t ticks)
{
    (void)ticks;
}

void say(const char *text)
{
    fputs(text, stdout);
}

int main(void)
{
    return drive();
}
