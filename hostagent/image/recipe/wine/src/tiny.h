/* What net.c and shell.c share: a program without a C runtime starts with
 * kernel32 alone, which under an emulated processor is a third of the cost. */
#ifndef WINVM_TINY_H
#define WINVM_TINY_H

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

/* GCC may turn loops and initialisers into calls of these. */
void *memcpy(void *to, const void *from, size_t n)
{
    char *t = to;
    const char *f = from;
    while (n--) *t++ = *f++;
    return to;
}

void *memset(void *to, int c, size_t n)
{
    char *t = to;
    while (n--) *t++ = (char)c;
    return to;
}

static void put(HANDLE h, const char *text)
{
    DWORD done, n = 0;
    while (text[n]) n++;
    WriteFile(h, text, n, &done, NULL);
}

/* decimal writes n into buf, which holds at least 11 bytes. */
static void decimal(char *buf, DWORD n)
{
    char tmp[11];
    int i = 0, j = 0;
    do { tmp[i++] = (char)('0' + n % 10); n /= 10; } while (n);
    while (i) buf[j++] = tmp[--i];
    buf[j] = 0;
}

#endif
