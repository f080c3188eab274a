/* The elementary functions of an exported file, for values from standard input: a, b, c, x, y on a line as bits; fused(a, b, c), the
   root of x and e^y come back. */

#include "model.c"

#include <stdio.h>

int main(void)
{
    unsigned a, b, c, x, y;
    while (scanf("%x %x %x %x %x", &a, &b, &c, &x, &y) == 5) {
        printf("%x %x %x\n", (unsigned)bits_of(fused(of_bits(a), of_bits(b), of_bits(c))),
               (unsigned)bits_of(square_root(of_bits(x))), (unsigned)bits_of(exponential(of_bits(y))));
    }
    return 0;
}
