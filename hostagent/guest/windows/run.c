/* winvm-run.exe: runs one build's command inside a Windows guest.
 *
 * Build, for Windows XP x64 to 11 (a Makefile can use this line as it is; with
 * i686-w64-mingw32-gcc, -Wl,-e,_start and subsystem version 5.1 it becomes the
 * 32-bit one):
 *
 *   x86_64-w64-mingw32-gcc -Os -Wall -Wextra -nostdlib -ffreestanding -fno-builtin -s -Wl,-e,start,--major-subsystem-version=5,--minor-subsystem-version=2,--no-insert-timestamp -o winvm-run.exe run.c -lkernel32
 *
 * Why it exists. Starting a shell is what costs after a revive, and a shell's
 * quoting and length limits are what breaks builds. So this program is started
 * over SSH before the suspend and then waits ("parked") with its standard input
 * open. A build writes the job to it, as one line and what that announces: no
 * file is read, since under emulation each request of an SMB client costs
 * milliseconds. No C runtime: kernel32 alone, so that it starts quickly and
 * needs nothing that one Windows has and another lacks.
 *
 * The conversation, on standard input and output:
 *
 *   out  winvm-run 2 ready\n
 *   in   LENGTH JOBDIR\n         at most 32 KiB of UTF-8; end of file instead: exit 0
 *   in   JOB                     LENGTH bytes, 8 MiB at most
 *   out  what the command writes (it inherits standard output and error)
 *
 * JOB is UTF-8, fields that each end with a NUL byte:
 *
 *   winvm-job 1
 *   working directory            empty: keep the present one
 *   command line                 CreateProcessW's, verbatim
 *   N                            decimal number of environment entries
 *   N times K=V or K             set or unset; K may begin with '='
 *   end
 *
 * JOBDIR\exit, on the xchg share, is there already and empty (making a file costs
 * an SMB client many requests). The result is written to it at once; it is whole if
 * it ends with a newline:
 *
 *   winvm-exit 1
 *   stage=job|cwd|spawn|done     how far it came
 *   code=N                       unsigned, 32 bits: the command's, or see below
 *   error=N                      GetLastError of the stage that failed, else 0
 *
 * The exit code is the same number. Of a failure: 125 for the stages job and
 * cwd (and whenever `exit` couldn't be written), 127 when the command wasn't
 * found, 126 when it couldn't be started for another reason.
 *
 * Finding the command is CreateProcessW's business. Where that finds nothing
 * and the name has no extension, .com, .exe, .bat and .cmd are tried in the
 * search path; a .bat or .cmd is run by `cmd.exe /d /s /c`. The arguments of a
 * batch file are therefore read by cmd.exe, with all that this means for % and ^.
 *
 * What the command leaves running when it ends is ended too (a job object,
 * where the system allows one), before `exit` is written: nothing writes to the
 * shares after that. */
#define WIN32_LEAN_AND_MEAN
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0501
#endif
#include <windows.h>

#define LINE_LIMIT (32 * 1024)
#define JOB_LIMIT (8 * 1024 * 1024)
#define PATH_LIMIT 32767 /* UTF-16 units, of a path and of a command line */

enum { EXIT_AGENT = 125, EXIT_SPAWN = 126, EXIT_NOT_FOUND = 127 };

static WCHAR job_dir[PATH_LIMIT], scratch[PATH_LIMIT], command[PATH_LIMIT];

/* GCC may call these even though nothing here does. */
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

static DWORD length(const WCHAR *s)
{
    DWORD n = 0;
    while (s[n]) n++;
    return n;
}

static WCHAR lower(WCHAR c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* same compares with an ASCII word, case and all. */
static BOOL same(const WCHAR *s, const char *word)
{
    while (*word && *s == (WCHAR)*word) s++, word++;
    return !*s && !*word;
}

/* append adds from to the end of to, whose room is PATH_LIMIT; no room, no change. */
static BOOL append(WCHAR *to, const WCHAR *from)
{
    DWORD at = length(to), n = length(from);
    if (n >= PATH_LIMIT - at) return FALSE;
    memcpy(to + at, from, (n + 1) * sizeof(WCHAR));
    return TRUE;
}

/* text adds to a line of output. The buffers are large enough for all we say. */
static char *text(char *at, const char *s)
{
    while (*s) *at++ = *s++;
    return at;
}

static char *number(char *at, DWORD n)
{
    char digits[10];
    int i = 0;
    do { digits[i++] = (char)('0' + n % 10); n /= 10; } while (n);
    while (i) *at++ = digits[--i];
    return at;
}

static BOOL write_all(HANDLE h, const char *from, DWORD n)
{
    DWORD done;
    for (; n; from += done, n -= done)
        if (!WriteFile(h, from, n, &done, NULL) || !done) return FALSE;
    return TRUE;
}

static void complain(const char *what, DWORD error)
{
    char buffer[256], *at = text(buffer, "winvm-run: ");
    at = text(at, what);
    if (error) at = number(text(at, ": error "), error);
    at = text(at, "\r\n");
    write_all(GetStdHandle(STD_ERROR_HANDLE), buffer, (DWORD)(at - buffer));
}

/* in_job_dir sets scratch to a file of the job directory. */
static BOOL in_job_dir(const WCHAR *name)
{
    scratch[0] = 0;
    return append(scratch, job_dir) && append(scratch, name);
}

/* finish writes `exit` and ends the program. */
static void finish(const char *stage, DWORD code, DWORD error)
{
    char buffer[128], *at = text(buffer, "winvm-exit 1\nstage=");
    HANDLE h = INVALID_HANDLE_VALUE;
    BOOL ok;

    at = number(text(text(at, stage), "\ncode="), code);
    at = text(number(text(at, "\nerror="), error), "\n");

    if (in_job_dir(L"\\exit")) h = CreateFileW(scratch, GENERIC_WRITE, 0, NULL, OPEN_EXISTING, FILE_FLAG_WRITE_THROUGH, NULL);
    ok = h != INVALID_HANDLE_VALUE && write_all(h, buffer, (DWORD)(at - buffer));
    error = ok ? 0 : GetLastError();
    if (h != INVALID_HANDLE_VALUE && !CloseHandle(h) && ok) ok = FALSE, error = GetLastError();
    if (!ok) {
        complain("the job's exit file can't be written", error);
        code = EXIT_AGENT;
    }
    ExitProcess(code);
}

/* What was read of standard input and not used yet: input[used] to input[filled]. */
static char input[LINE_LIMIT + 1];
static DWORD used, filled;

/* decimal takes a number of at most limit, and what ends it, off at. */
static BOOL decimal(char **at, char end, DWORD limit, DWORD *n)
{
    char *p = *at;

    for (*n = 0; *p >= '0' && *p <= '9'; p++)
        if ((*n = *n * 10 + (DWORD)(*p - '0')) > limit) return FALSE;
    if (p == *at || *p != end) return FALSE;
    *at = p + 1;
    return TRUE;
}

/* read_line reads the first line and makes job_dir of it, absolute, since the
 * working directory is going to change. It gives the job's length. */
static DWORD read_line(void)
{
    DWORD n, got;
    int wide;
    char *at = input;

    for (;;) {
        if (!ReadFile(GetStdHandle(STD_INPUT_HANDLE), input + filled, LINE_LIMIT + 1 - filled, &got, NULL))
            got = 0; /* a broken pipe is an end, too */
        if (!got && !filled) ExitProcess(0);
        if (!got) {
            complain("the line with the job directory has no end", 0);
            ExitProcess(EXIT_AGENT);
        }
        filled += got;
        for (; used < filled && input[used] != '\n'; used++) {}
        if (used < filled) break;
        if (filled > LINE_LIMIT) {
            complain("the line with the job directory is longer than 32 KiB", 0);
            ExitProcess(EXIT_AGENT);
        }
    }
    input[used++] = 0;
    wide = decimal(&at, ' ', JOB_LIMIT, &n) ? MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, at, -1, scratch, PATH_LIMIT) : 0;
    /* Every byte up to the newline must be of the path. */
    if (wide <= 1 || at + WideCharToMultiByte(CP_UTF8, 0, scratch, -1, NULL, 0, NULL, NULL) != input + used) {
        complain("the line isn't a job's length and directory", 0);
        ExitProcess(EXIT_AGENT);
    }
    got = GetFullPathNameW(scratch, PATH_LIMIT, job_dir, NULL);
    if (!got || got >= PATH_LIMIT - 16) {
        complain("the job directory's path is too long", GetLastError());
        ExitProcess(EXIT_AGENT);
    }
    while (got > 3 && (job_dir[got - 1] == '\\' || job_dir[got - 1] == '/')) job_dir[--got] = 0;
    return n;
}

/* read_job gives the job of that length as UTF-16, its NULs kept, and sets *end. */
static WCHAR *read_job(DWORD size, WCHAR **end)
{
    HANDLE heap = GetProcessHeap();
    char *bytes;
    WCHAR *wide;
    DWORD n = filled - used, got;
    int units;

    if (!size || n > size) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
    bytes = HeapAlloc(heap, 0, size);
    wide = HeapAlloc(heap, 0, ((SIZE_T)size + 1) * sizeof(WCHAR)); /* never more units than bytes */
    if (!bytes || !wide) finish("job", EXIT_AGENT, ERROR_NOT_ENOUGH_MEMORY);
    memcpy(bytes, input + used, n);
    for (; n < size; n += got) {
        if (!ReadFile(GetStdHandle(STD_INPUT_HANDLE), bytes + n, size - n, &got, NULL)) got = 0;
        if (!got) finish("job", EXIT_AGENT, ERROR_HANDLE_EOF);
    }
    if (bytes[n - 1]) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
    units = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, bytes, (int)n, wide, (int)n);
    if (units <= 0) finish("job", EXIT_AGENT, ERROR_NO_UNICODE_TRANSLATION);
    HeapFree(heap, 0, bytes);
    *end = wide + units;
    return wide;
}

/* field gives the next field: NUL-terminated, and below end. */
static WCHAR *field(WCHAR **at, WCHAR *end)
{
    WCHAR *f = *at;
    if (f >= end) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
    *at = f + length(f) + 1; /* the last unit is a NUL */
    return f;
}

static void set_environment(WCHAR **at, WCHAR *end, const WCHAR *count)
{
    DWORD n = 0;

    if (!*count) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
    for (; *count; count++) {
        if (*count < '0' || *count > '9' || n > JOB_LIMIT) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
        n = n * 10 + (*count - '0');
    }
    while (n--) {
        WCHAR *key = field(at, end), *value = key;
        if (!*key) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
        for (value++; *value && *value != '='; value++) {}
        if (*value) *value++ = 0;
        else value = NULL;
        /* Unsetting what isn't set is no failure. */
        if (!SetEnvironmentVariableW(key, value) && value) finish("job", EXIT_AGENT, GetLastError());
    }
}

/* program_of copies the first word of the command line to scratch, and says
 * where the rest (with its blank) begins. */
static WCHAR *program_of(WCHAR *line)
{
    WCHAR *to = scratch, stop = ' ';

    while (*line == ' ' || *line == '\t') line++;
    if (*line == '"') stop = '"', line++;
    while (*line && *line != stop && !(stop == ' ' && *line == '\t')) *to++ = *line++;
    *to = 0;
    if (stop == '"' && *line) line++;
    return line;
}

/* extension of a path, or NULL: what follows the last dot of its last part. */
static const WCHAR *extension(const WCHAR *path)
{
    const WCHAR *dot = NULL;
    for (; *path; path++) {
        if (*path == '.') dot = path;
        if (*path == '\\' || *path == '/' || *path == ':') dot = NULL;
    }
    return dot;
}

static BOOL is_batch(const WCHAR *path)
{
    const WCHAR *e = extension(path);
    WCHAR c[5];
    DWORD i;

    if (!e || length(e) != 4) return FALSE;
    for (i = 0; i < 5; i++) c[i] = lower(e[i]);
    return same(c, ".bat") || same(c, ".cmd");
}

/* search finds scratch (a name, or a path) in the search path, as found. */
static BOOL search(const WCHAR *ext, WCHAR *found)
{
    DWORD n = SearchPathW(NULL, scratch, ext, PATH_LIMIT, found, NULL);
    return n && n < PATH_LIMIT;
}

static BOOL spawn(const WCHAR *program, WCHAR *line, PROCESS_INFORMATION *pi)
{
    STARTUPINFOW si;

    memset(&si, 0, sizeof(si));
    si.cb = sizeof(si);
    si.dwFlags = STARTF_USESTDHANDLES;
    si.hStdInput = CreateFileW(L"NUL", GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    si.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    si.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    /* The command gets these three; above all not the pipe we were parked on. */
    SetHandleInformation(GetStdHandle(STD_INPUT_HANDLE), HANDLE_FLAG_INHERIT, 0);
    SetHandleInformation(si.hStdInput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    SetHandleInformation(si.hStdOutput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    SetHandleInformation(si.hStdError, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    /* Suspended: it must not start others before it is in the job object. */
    return CreateProcessW(program, line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &si, pi);
}

/* spawn_batch runs the batch file through cmd.exe: /s makes it take off the
 * outer quotes alone. */
static BOOL spawn_batch(const WCHAR *file, const WCHAR *arguments, PROCESS_INFORMATION *pi)
{
    static WCHAR cmd[MAX_PATH + 16], line[PATH_LIMIT];
    DWORD n = GetSystemDirectoryW(cmd, MAX_PATH);

    if (!n || n >= MAX_PATH) return FALSE;
    memcpy(cmd + n, L"\\cmd.exe", 9 * sizeof(WCHAR));
    line[0] = 0;
    if (!append(line, L"cmd.exe /d /s /c \"\"") || !append(line, file) || !append(line, L"\"") ||
        !append(line, arguments) || !append(line, L"\"")) {
        SetLastError(ERROR_FILENAME_EXCED_RANGE);
        return FALSE;
    }
    return spawn(cmd, line, pi);
}

/* spawn_found tries the extensions that CreateProcessW doesn't. */
static BOOL spawn_found(WCHAR *rest, PROCESS_INFORMATION *pi)
{
    static const WCHAR *const extensions[] = { L".com", L".exe", L".bat", L".cmd" };
    static WCHAR found[PATH_LIMIT], line[PATH_LIMIT];
    DWORD i;

    for (i = 0; i < 4; i++) {
        if (!search(extensions[i], found)) continue;
        if (is_batch(found)) return spawn_batch(found, rest, pi);
        line[0] = 0;
        append(line, command);
        return spawn(found, line, pi);
    }
    SetLastError(ERROR_FILE_NOT_FOUND);
    return FALSE;
}

static BOOL start_command(PROCESS_INFORMATION *pi)
{
    static WCHAR found[PATH_LIMIT], line[PATH_LIMIT];
    WCHAR *rest = program_of(command);
    DWORD error;

    if (is_batch(scratch)) {
        if (search(NULL, found)) return spawn_batch(found, rest, pi);
        SetLastError(ERROR_FILE_NOT_FOUND);
        return FALSE;
    }
    line[0] = 0;
    append(line, command); /* CreateProcessW may write to it */
    if (spawn(NULL, line, pi)) return TRUE;
    error = GetLastError();
    if ((error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) && !extension(scratch)) {
        if (spawn_found(rest, pi)) return TRUE;
        error = GetLastError();
    }
    SetLastError(error);
    return FALSE;
}

/* job_object makes one whose processes all end with it; NULL where there is
 * none to be had (before Windows 8 a process can't be in two, and sshd's are
 * in one). */
static HANDLE job_object(HANDLE process)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits;
    HANDLE job = CreateJobObjectW(NULL, NULL);

    if (!job) return NULL;
    memset(&limits, 0, sizeof(limits));
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof(limits));
    if (AssignProcessToJobObject(job, process)) return job;
    CloseHandle(job);
    return NULL;
}

/* The command decides what Ctrl-C means to it; we wait for what it decides. */
static BOOL WINAPI stay(DWORD event)
{
    return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
}

void start(void)
{
    static const char ready[] = "winvm-run 2 ready\n";
    WCHAR *at, *end, *cwd, *line, *count;
    PROCESS_INFORMATION pi;
    HANDLE job;
    DWORD code, error, size;

    /* Inherited by the command: a crash ends it, instead of asking nobody. */
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX);
    SetConsoleCtrlHandler(stay, TRUE);
    if (!write_all(GetStdHandle(STD_OUTPUT_HANDLE), ready, sizeof(ready) - 1)) ExitProcess(EXIT_AGENT);
    size = read_line();
    at = read_job(size, &end);
    if (!same(field(&at, end), "winvm-job 1")) finish("job", EXIT_AGENT, ERROR_REVISION_MISMATCH);
    cwd = field(&at, end);
    line = field(&at, end);
    command[0] = 0;
    if (!*line || !append(command, line)) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);
    count = field(&at, end);
    set_environment(&at, end, count);
    if (!same(field(&at, end), "end") || at != end) finish("job", EXIT_AGENT, ERROR_INVALID_DATA);

    if (*cwd && !SetCurrentDirectoryW(cwd)) finish("cwd", EXIT_AGENT, GetLastError());
    if (!start_command(&pi)) {
        error = GetLastError();
        finish("spawn", error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND ? EXIT_NOT_FOUND : EXIT_SPAWN,
               error);
    }
    job = job_object(pi.hProcess);
    ResumeThread(pi.hThread);
    WaitForSingleObject(pi.hProcess, INFINITE);
    if (!GetExitCodeProcess(pi.hProcess, &code)) finish("spawn", EXIT_SPAWN, GetLastError());
    if (job) TerminateJobObject(job, 1);
    finish("done", code, 0);
}
