/* probe.exe: does what a test of winvm-run asks. Build:
 *   x86_64-w64-mingw32-gcc -O1 -Wall -municode -s -o probe.exe probe.c -lshell32
 *
 *   probe exit N      ends with the 32-bit exit code N (decimal, may be negative)
 *   probe crash       ends with an access violation
 *   probe env NAME... prints the value of each as UTF-8, a NUL byte after each;
 *                     of one that isn't set, "(unset)"
 *   probe cwd         prints the working directory as UTF-8
 *   probe args ...    prints each argument as UTF-8, a NUL byte after each
 *   probe cmdline     prints the whole command line
 *   probe stdin       prints how many bytes standard input holds
 *   probe both        a line to standard output, another to standard error
 *   probe leave       starts `probe sleep`, which holds the standard handles, and ends with 3
 *   probe sleep       sleeps for an hour
 */
#include <windows.h>
#include <shellapi.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

static void utf8(const wchar_t *s)
{
    int n = WideCharToMultiByte(CP_UTF8, 0, s, -1, NULL, 0, NULL, NULL);
    char *b = malloc(n);

    WideCharToMultiByte(CP_UTF8, 0, s, -1, b, n, NULL, NULL);
    fwrite(b, 1, n, stdout); /* with its NUL */
    free(b);
}

static int leave(void)
{
    wchar_t line[MAX_PATH + 16] = L"\"";
    STARTUPINFOW si = { .cb = sizeof(si) };
    PROCESS_INFORMATION pi;

    GetModuleFileNameW(NULL, line + 1, MAX_PATH);
    wcscat(line, L"\" sleep");
    return CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &si, &pi) ? 3 : 4;
}

int wmain(int argc, wchar_t **argv)
{
    const wchar_t *what = argc > 1 ? argv[1] : L"";
    int i;

    setvbuf(stdout, NULL, _IOFBF, 65536);
    _setmode(_fileno(stdout), _O_BINARY);
    SetErrorMode(GetErrorMode() | SEM_NOGPFAULTERRORBOX);
    if (!wcscmp(what, L"exit")) ExitProcess((UINT)_wcstoi64(argv[2], NULL, 10));
    if (!wcscmp(what, L"crash")) *(volatile int *)8 = 1;
    if (!wcscmp(what, L"args"))
        for (i = 2; i < argc; i++) utf8(argv[i]);
    if (!wcscmp(what, L"env"))
        for (i = 2; i < argc; i++) {
            static wchar_t value[32768];
            SetLastError(0);
            if (!GetEnvironmentVariableW(argv[i], value, 32768) && GetLastError()) utf8(L"(unset)");
            else utf8(value);
        }
    if (!wcscmp(what, L"cwd")) {
        wchar_t dir[MAX_PATH];
        GetCurrentDirectoryW(MAX_PATH, dir);
        utf8(dir);
    }
    if (!wcscmp(what, L"cmdline")) utf8(GetCommandLineW());
    if (!wcscmp(what, L"stdin")) {
        for (i = 0; getchar() != EOF; i++) {}
        printf("%d\n", i);
    }
    if (!wcscmp(what, L"both")) {
        printf("out\n");
        fprintf(stderr, "err\n");
    }
    if (!wcscmp(what, L"leave")) return leave();
    if (!wcscmp(what, L"sleep")) Sleep(3600 * 1000);
    return 0;
}
