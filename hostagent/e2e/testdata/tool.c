/* tool.exe VERB [ARG]...: what the end-to-end tests need of a command in the
 * guest and cmd.exe can't do. Everything it is given and says is UTF-8. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(HANDLE h, const void *p, DWORD n)
{
    const char *at = p;
    DWORD done;
    for (; n; at += done, n -= done)
        if (!WriteFile(h, at, n, &done, NULL) || !done) ExitProcess(90);
}

static void say(HANDLE h, const char *s) { put(h, s, (DWORD)strlen(s)); }

/* fail tells what went wrong, and ends with status 91. */
static void fail(const char *what)
{
    char line[256];
    snprintf(line, sizeof line, "tool: %s: error %lu\n", what, GetLastError());
    say(GetStdHandle(STD_ERROR_HANDLE), line);
    ExitProcess(91);
}

/* hex prints s as the hexadecimal digits of its UTF-8 bytes. */
static void hex(const WCHAR *s)
{
    int n = WideCharToMultiByte(CP_UTF8, 0, s, -1, NULL, 0, NULL, NULL), i;
    char *bytes = malloc(n), *out = malloc(2 * n + 1);
    if (!bytes || !out || !WideCharToMultiByte(CP_UTF8, 0, s, -1, bytes, n, NULL, NULL)) fail("UTF-8");
    for (i = 0; i < n - 1; i++) sprintf(out + 2 * i, "%02x", (unsigned char)bytes[i]);
    out[2 * (n - 1)] = 0;
    say(GetStdHandle(STD_OUTPUT_HANDLE), out);
    free(bytes);
    free(out);
}

/* env NAME...: a line for each: "hex:" and its value, or "unset". */
static void print_env(int argc, WCHAR **argv)
{
    static WCHAR value[65536];
    HANDLE out = GetStdHandle(STD_OUTPUT_HANDLE);
    for (int i = 0; i < argc; i++) {
        SetLastError(0);
        DWORD n = GetEnvironmentVariableW(argv[i], value, 65536);
        if (n >= 65536) fail("value too long");
        if (!n && GetLastError() == ERROR_ENVVAR_NOT_FOUND) {
            say(out, "unset\n");
            continue;
        }
        if (!n) value[0] = 0;
        say(out, "hex:");
        hex(value);
        say(out, "\n");
    }
}

/* lines N MS: a line on each stream every MS milliseconds, "out 0", "err 0", … */
static void lines(int n, DWORD ms)
{
    char line[32];
    for (int i = 0; i < n; i++) {
        if (i) Sleep(ms);
        sprintf(line, "out %d\n", i);
        say(GetStdHandle(STD_OUTPUT_HANDLE), line);
        sprintf(line, "err %d\n", i);
        say(GetStdHandle(STD_ERROR_HANDLE), line);
    }
}

/* pattern fills a block so that it differs from every other one. */
static void pattern(unsigned char *p, size_t n, unsigned long long at)
{
    for (size_t i = 0; i < n; i += 8, at += 8) {
        unsigned long long v = at * 0x9e3779b97f4a7c15ull;
        memcpy(p + i, &v, 8);
    }
}

/* fill FILE KIB: writes the pattern. With must == 0 errors are swallowed, as a
 * careless program does. */
static void fill(const WCHAR *file, unsigned long long kib, int must)
{
    static unsigned char block[65536];
    HANDLE h = CreateFileW(file, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
    unsigned long long at = 0, size = kib * 1024;
    if (h == INVALID_HANDLE_VALUE) {
        if (must) fail("create");
        return;
    }
    for (DWORD n, done; at < size; at += n) {
        n = size - at < sizeof block ? (DWORD)(size - at) : (DWORD)sizeof block;
        pattern(block, (n + 7) & ~7u, at);
        if ((!WriteFile(h, block, n, &done, NULL) || done != n) && must) fail("write");
    }
    if (!CloseHandle(h) && must) fail("close");
}

/* await FILE MS: waits for the file, and prints what is in it. */
static void await(const WCHAR *file, DWORD ms)
{
    char text[4096];
    DWORD n, begun = GetTickCount();
    for (;;) {
        HANDLE h = CreateFileW(file, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                               OPEN_EXISTING, 0, NULL);
        if (h != INVALID_HANDLE_VALUE) {
            if (!ReadFile(h, text, sizeof text, &n, NULL)) fail("read");
            put(GetStdHandle(STD_OUTPUT_HANDLE), text, n);
            return;
        }
        if (GetTickCount() - begun > ms) fail("await");
        Sleep(50);
    }
}

/* flood KIB: the pattern on standard output. */
static void flood(unsigned long long kib)
{
    static unsigned char block[65536];
    for (unsigned long long at = 0; at < kib * 1024; at += sizeof block) {
        pattern(block, sizeof block, at);
        put(GetStdHandle(STD_OUTPUT_HANDLE), block, sizeof block);
    }
}

/* cat copies standard input to standard output. */
static void cat(void)
{
    char buf[4096];
    DWORD n;
    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), buf, sizeof buf, &n, NULL) && n)
        put(GetStdHandle(STD_OUTPUT_HANDLE), buf, n);
}

/* screen prints the console's size, as COLUMNSxLINES. */
static void screen(void)
{
    CONSOLE_SCREEN_BUFFER_INFO info;
    char line[64];
    if (!GetConsoleScreenBufferInfo(GetStdHandle(STD_OUTPUT_HANDLE), &info)) fail("no console");
    sprintf(line, "%dx%d\n", info.srWindow.Right - info.srWindow.Left + 1, info.srWindow.Bottom - info.srWindow.Top + 1);
    say(GetStdHandle(STD_OUTPUT_HANDLE), line);
}

int main(void)
{
    int argc;
    WCHAR **argv = CommandLineToArgvW(GetCommandLineW(), &argc);
    const WCHAR *verb = argc > 1 ? argv[1] : L"";
    WCHAR **rest = argv + 2;
    int n = argc - 2;

    if (!wcscmp(verb, L"crash")) *(volatile int *)(SIZE_T)argc = 1;
    else if (!wcscmp(verb, L"exit") && n == 1) ExitProcess((UINT)wcstoul(rest[0], NULL, 0));
    else if (!wcscmp(verb, L"env")) print_env(n, rest);
    else if (!wcscmp(verb, L"args")) for (int i = 0; i < n; i++) hex(rest[i]), say(GetStdHandle(STD_OUTPUT_HANDLE), "\n");
    else if (!wcscmp(verb, L"lines") && n == 2) lines(_wtoi(rest[0]), (DWORD)_wtoi(rest[1]));
    else if (!wcscmp(verb, L"sleep") && n == 1) Sleep((DWORD)_wtoi(rest[0]));
    else if (!wcscmp(verb, L"spin") && n == 1) for (ULONGLONG end = GetTickCount64() + (DWORD)_wtoi(rest[0]); GetTickCount64() < end;) {}
    else if (!wcscmp(verb, L"fill") && n == 2) fill(rest[0], _wtoi(rest[1]), 1);
    else if (!wcscmp(verb, L"fill-careless") && n == 2) fill(rest[0], _wtoi(rest[1]), 0);
    else if (!wcscmp(verb, L"await") && n == 2) await(rest[0], (DWORD)_wtoi(rest[1]));
    else if (!wcscmp(verb, L"cat")) cat();
    else if (!wcscmp(verb, L"screen")) screen();
    else if (!wcscmp(verb, L"flood") && n == 1) flood(_wtoi(rest[0]));
    else fail("no such verb");
    return 0;
}
