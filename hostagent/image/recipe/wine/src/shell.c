/* winvm-shell.exe: runs cmd.exe with a command line that holds quotes.
 *
 * Wine makes the command line of its first process out of Unix arguments and
 * writes every quote in them as \" - which cmd.exe, unlike a C program, does
 * not undo. So the login shell hands such a command over in the environment
 * (WINVM_COMMAND), and this program writes the command line itself.
 *
 * Build: see build.sh. */
#include "tiny.h"

#define LIMIT 32767 /* of a command line, in UTF-16 units (CreateProcessW) */

static WCHAR command[LIMIT], line[LIMIT], cmd_exe[MAX_PATH];

static DWORD append(DWORD at, const WCHAR *text)
{
    while (*text && at < LIMIT - 1) line[at++] = *text++;
    line[at] = 0;
    return at;
}

static void fail(const char *what, DWORD error)
{
    HANDLE err = GetStdHandle(STD_ERROR_HANDLE);
    char number[11];
    decimal(number, error);
    put(err, "winvm-shell: ");
    put(err, what);
    put(err, " (error ");
    put(err, number);
    put(err, ")\r\n");
    ExitProcess(126);
}

/* Ctrl-C is for the program that runs, not for this one, which waits. (Not
 * SetConsoleCtrlHandler(NULL, TRUE): children would inherit that.) */
static BOOL WINAPI stay(DWORD event)
{
    return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
}

void start(void)
{
    STARTUPINFOW si = { .cb = sizeof(si) };
    PROCESS_INFORMATION pi;
    DWORD n, at, code;

    n = GetEnvironmentVariableW(L"WINVM_COMMAND", command, LIMIT);
    if (!n) fail("WINVM_COMMAND isn't set", GetLastError());
    if (n > LIMIT - 300) fail("the command line is too long", ERROR_FILENAME_EXCED_RANGE);
    SetEnvironmentVariableW(L"WINVM_COMMAND", NULL);

    n = GetSystemDirectoryW(cmd_exe, MAX_PATH - 9);
    if (!n || n > MAX_PATH - 9) fail("no system directory", GetLastError());
    memcpy(cmd_exe + n, L"\\cmd.exe", 9 * sizeof(WCHAR));

    at = append(0, cmd_exe);
    at = append(at, L" /d /s /c \"");
    at = append(at, command);
    append(at, L"\"");
    SetConsoleCtrlHandler(stay, TRUE);
    if (!CreateProcessW(cmd_exe, line, NULL, NULL, TRUE, 0, NULL, NULL, &si, &pi))
        fail("cmd.exe can't be started", GetLastError());
    WaitForSingleObject(pi.hProcess, INFINITE);
    if (!GetExitCodeProcess(pi.hProcess, &code)) code = 126;
    ExitProcess(code);
}
