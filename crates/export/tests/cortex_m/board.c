/* The test on a bare Cortex-M: vectors, the floating-point unit, output by semihosting (Arm IHI 0100), SysTick as
   the clock. */

#include <stdint.h>
#include <string.h>

int drive(void);
void say(const char *text);
uint64_t now(void);
void report(uint64_t ticks);
void reset(void);

extern uint32_t stack_top, bss_start, bss_end;

#define SYS_WRITE0 0x04
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u

static int32_t call(int32_t operation, const void *argument)
{
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void say(const char *text)
{
    call(SYS_WRITE0, text);
}

/* SysTick counts 24 bits down; the interrupt counts the rounds. */
#define SYST_CSR (*(volatile uint32_t *)0xe000e010u)
#define SYST_RVR (*(volatile uint32_t *)0xe000e014u)
#define SYST_CVR (*(volatile uint32_t *)0xe000e018u)
#define CPACR (*(volatile uint32_t *)0xe000ed88u)

static volatile uint32_t rounds;

static void tick(void)
{
    rounds++;
}

static void say_decimal(uint64_t value)
{
    char text[24];
    int at = (int)sizeof text - 1;
    text[at] = '\0';
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    say(text + at);
}

uint64_t now(void)
{
    uint32_t before, count;
    do {
        before = rounds;
        count = SYST_CVR;
    } while (before != rounds);
    return (uint64_t)before * 0x1000000u + (0xffffffu - count);
}

/* The memory below the stack is full of this before the test, so that what the stack took can be told. */
#define UNTOUCHED 0xa5a5a5a5u

static uint32_t *untouched_end;

static __attribute__((noinline)) void paint(void)
{
    uint32_t here, *word;
    untouched_end = &here - 16;
    for (word = &bss_end; word < untouched_end; word++) {
        *(volatile uint32_t *)word = UNTOUCHED;
    }
}

void report(uint64_t ticks)
{
    const uint32_t *word = &bss_end;
    while (word < untouched_end && *word == UNTOUCHED) {
        word++;
    }
    say("ticks ");
    say_decimal(ticks);
    say(" stack ");
    say_decimal((uint64_t)(&stack_top - word) * sizeof *word);
    say("\n");
}

static void finish(uint32_t code)
{
    const uint32_t block[2] = { APPLICATION_EXIT, code };
    call(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

static void fault(void)
{
    say("fault\n");
    finish(100);
}

static __attribute__((noinline)) void start(void)
{
    int code;
    memset(&bss_start, 0, (size_t)((char *)&bss_end - (char *)&bss_start));
    paint();
    SYST_RVR = 0xffffffu;
    SYST_CVR = 0;
    SYST_CSR = 7;
    code = drive();
    finish((uint32_t)code);
}

/* A function of its own: `start` may save floating-point registers before anything else. */
void reset(void)
{
#if defined(__ARM_FP)
    CPACR |= 0xf00000u;
    __asm__ volatile("dsb\n\tisb");
#endif
    start();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (const void *)reset, (const void *)fault, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, 0, 0, 0, 0, (const void *)fault, (const void *)fault, 0,
    (const void *)fault, (const void *)tick,
};
