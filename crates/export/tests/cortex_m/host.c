/* The test on the machine that runs it. */

#include <stdio.h>

int drive(void);
void say(const char *text);

void say(const char *text)
{
    fputs(text, stdout);
}

int main(void)
{
    return drive();
}
