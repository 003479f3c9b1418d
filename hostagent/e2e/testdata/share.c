/* share.exe DIR LINUX: what Windows programs rely on in a file system, tried in the
 * directory DIR; LINUX holds files made on the host. A line for each thing that is
 * otherwise; ends with their number.
 *
 * What Wine can't do anywhere isn't here: it lets a handle write where another has
 * locked, and has no rename of a name to itself in another case. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)

static int wrong;
static WCHAR dir[2048];

static void check(int line, int ok, const char *what)
{
    DWORD error = GetLastError();
    if (ok) return;
    wrong++;
    printf("line %d: %s (error %lu)\n", line, what, error);
}
#define CHECK(x) check(__LINE__, (SetLastError(0), (x)) != 0, #x)
#define FAILS(x, code) check(__LINE__, (SetLastError(0), !(x)) && GetLastError() == (code), #x " should fail with " #code)

/* in is DIR\name. Eight of its results live at a time. */
static const WCHAR *in(const WCHAR *name)
{
    static WCHAR paths[8][4096];
    static int next;
    WCHAR *p = paths[next++ % 8];
    swprintf(p, 4096, L"%ls\\%ls", dir, name);
    return p;
}

static HANDLE opened(const WCHAR *name, DWORD access, DWORD share, DWORD disposition, DWORD flags)
{
    HANDLE h = CreateFileW(in(name), access, share, NULL, disposition, flags, NULL);
    return h == INVALID_HANDLE_VALUE ? NULL : h;
}

static int put(HANDLE h, const char *text)
{
    DWORD n;
    return WriteFile(h, text, (DWORD)strlen(text), &n, NULL) && n == strlen(text);
}

static int make(const WCHAR *name, const char *text)
{
    HANDLE h = opened(name, GENERIC_WRITE, 0, CREATE_ALWAYS, 0);
    return h && put(h, text) && CloseHandle(h);
}

static int holds(const WCHAR *name, const char *text)
{
    char got[256];
    DWORD n = 0;
    HANDLE h = opened(name, GENERIC_READ, ALL, OPEN_EXISTING, 0);
    int ok = h && ReadFile(h, got, sizeof got, &n, NULL) && n == strlen(text) && !memcmp(got, text, n);
    if (h) CloseHandle(h);
    return ok;
}

static int there(const WCHAR *name) { return GetFileAttributesW(in(name)) != INVALID_FILE_ATTRIBUTES; }

/* listed tells whether DIR lists exactly this spelling of a name. */
static int listed(const WCHAR *name)
{
    WIN32_FIND_DATAW found;
    int ok = 0;
    HANDLE h = FindFirstFileW(in(L"*"), &found);
    if (h == INVALID_HANDLE_VALUE) return 0;
    do ok |= !wcscmp(found.cFileName, name);
    while (FindNextFileW(h, &found));
    FindClose(h);
    return ok;
}

static void sharing(void)
{
    HANDLE a, b;
    OVERLAPPED at = { 0 };

    CHECK(make(L"shared", "0123456789"));
    CHECK(a = opened(L"shared", GENERIC_READ | GENERIC_WRITE, 0, OPEN_EXISTING, 0));
    FAILS(opened(L"shared", GENERIC_READ, ALL, OPEN_EXISTING, 0), ERROR_SHARING_VIOLATION);
    FAILS(opened(L"SHARED", GENERIC_READ, ALL, OPEN_EXISTING, 0), ERROR_SHARING_VIOLATION);
    FAILS(DeleteFileW(in(L"shared")), ERROR_SHARING_VIOLATION);
    CloseHandle(a);
    CHECK(a = opened(L"shared", GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0));
    CHECK(b = opened(L"shared", GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0));
    FAILS(opened(L"shared", GENERIC_WRITE, ALL, OPEN_EXISTING, 0), ERROR_SHARING_VIOLATION);
    CloseHandle(a);
    CloseHandle(b);
    CHECK(a = opened(L"shared", GENERIC_READ | GENERIC_WRITE, ALL, OPEN_EXISTING, 0));
    CHECK(b = opened(L"shared", GENERIC_READ | GENERIC_WRITE, ALL, OPEN_EXISTING, 0));
    CHECK(LockFile(a, 0, 0, 5, 0));
    FAILS(LockFile(b, 4, 0, 2, 0), ERROR_LOCK_VIOLATION);
    CHECK(LockFileEx(b, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 5, 0, (at.Offset = 5, &at)));
    CHECK(UnlockFile(a, 0, 0, 5, 0));
    CHECK(put(b, "x"));
    CloseHandle(a);
    CloseHandle(b);
    CHECK(holds(L"shared", "x123456789"));
}

static void removing(void)
{
    HANDLE h;

    CHECK(h = opened(L"doomed", GENERIC_WRITE | DELETE, ALL, CREATE_NEW, FILE_FLAG_DELETE_ON_CLOSE));
    CHECK(put(h, "x"));
    CHECK(there(L"doomed"));
    CloseHandle(h);
    CHECK(!there(L"doomed") && GetLastError() == ERROR_FILE_NOT_FOUND);
    CHECK(make(L"open", "still"));
    CHECK(h = opened(L"open", GENERIC_READ | GENERIC_WRITE, ALL, OPEN_EXISTING, 0));
    CHECK(MoveFileW(in(L"open"), in(L"moved")));
    CHECK(put(h, "moved"));
    CHECK(holds(L"moved", "moved"));
    CHECK(DeleteFileW(in(L"moved")));
    CloseHandle(h);
    CHECK(!there(L"moved") && !there(L"open"));
    CHECK(make(L"kept", "x"));
    CHECK(h = opened(L"kept", GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0));
    FAILS(MoveFileW(in(L"kept"), in(L"other")), ERROR_SHARING_VIOLATION);
    CloseHandle(h);
    CHECK(CreateDirectoryW(in(L"full"), NULL) && make(L"full\\x", "x"));
    FAILS(RemoveDirectoryW(in(L"full")), ERROR_DIR_NOT_EMPTY);
    CHECK(make(L"over", "old") && make(L"new", "new"));
    FAILS(MoveFileW(in(L"new"), in(L"over")), ERROR_ALREADY_EXISTS);
    CHECK(MoveFileExW(in(L"new"), in(L"over"), MOVEFILE_REPLACE_EXISTING) && holds(L"over", "new"));
}

static void names(void)
{
    WIN32_FIND_DATAW found;

    CHECK(make(L"CamelCase.Txt", "x") && listed(L"CamelCase.Txt"));
    CHECK(holds(L"CAMELCASE.TXT", "x"));
    CHECK(make(L"camelcase.txt", "again") && listed(L"CamelCase.Txt") && !listed(L"camelcase.txt"));
    CHECK(holds(L"CamelCase.Txt", "again"));
    FAILS(opened(L"cAMELcASE.tXT", GENERIC_WRITE, 0, CREATE_NEW, 0), ERROR_FILE_EXISTS);
    CHECK(CreateDirectoryW(in(L"Dir"), NULL));
    FAILS(CreateDirectoryW(in(L"DIR"), NULL), ERROR_ALREADY_EXISTS);
    FAILS(there(L"missing.dll"), ERROR_FILE_NOT_FOUND);
    FAILS(there(L"a name that is not short.dll"), ERROR_FILE_NOT_FOUND);
    FAILS(there(L"missing\\x"), ERROR_PATH_NOT_FOUND);
    FAILS(FindFirstFileW(in(L"missing.dll"), &found) != INVALID_HANDLE_VALUE, ERROR_FILE_NOT_FOUND);
    FAILS(opened(L"bad?name", GENERIC_WRITE, 0, CREATE_NEW, 0), ERROR_INVALID_NAME);
    /* After a miss a listing is a listing. */
    CHECK(!there(L"missing too") && listed(L"CamelCase.Txt"));
    CHECK(make(L"missing too", "made") && listed(L"missing too") && holds(L"MISSING TOO", "made"));
}

static void attributes(void)
{
    FILETIME stamp = { 0x12345678, 0x01c08d8a }, old, now;
    HANDLE h;

    CHECK(make(L"fixed", "x") && SetFileAttributesW(in(L"fixed"), FILE_ATTRIBUTE_READONLY));
    CHECK(GetFileAttributesW(in(L"fixed")) & FILE_ATTRIBUTE_READONLY);
    FAILS(opened(L"fixed", GENERIC_WRITE, ALL, OPEN_EXISTING, 0), ERROR_ACCESS_DENIED);
    FAILS(DeleteFileW(in(L"fixed")), ERROR_ACCESS_DENIED);
    CHECK(SetFileAttributesW(in(L"fixed"), FILE_ATTRIBUTE_NORMAL));
    CHECK(make(L"guarded", "x") && SetFileAttributesW(in(L"guarded"), FILE_ATTRIBUTE_READONLY));
    CHECK(make(L"dated", "x"));
    CHECK(h = opened(L"dated", FILE_WRITE_ATTRIBUTES, ALL, OPEN_EXISTING, 0));
    CHECK(SetFileTime(h, NULL, NULL, &stamp));
    CloseHandle(h);
    CHECK(h = opened(L"dated", GENERIC_READ, ALL, OPEN_EXISTING, 0));
    CHECK(GetFileTime(h, NULL, NULL, &old) && !CompareFileTime(&old, &stamp));
    CloseHandle(h);
    /* `type nul >stamp` on an empty file makes it new. */
    CHECK(make(L"stamp", ""));
    CHECK(h = opened(L"stamp", FILE_WRITE_ATTRIBUTES, ALL, OPEN_EXISTING, 0));
    CHECK(SetFileTime(h, NULL, NULL, &stamp));
    CloseHandle(h);
    CHECK(make(L"stamp", ""));
    CHECK(h = opened(L"stamp", GENERIC_READ, ALL, OPEN_EXISTING, 0));
    CHECK(GetFileTime(h, NULL, NULL, &now) && CompareFileTime(&now, &stamp) > 0);
    CloseHandle(h);
}

/* sizes: a file of more than 4 GiB, nearly all of it hole; one that is cut. */
static void sizes(void)
{
    LARGE_INTEGER at, size;
    char zeros[16] = "x";
    DWORD n;
    HANDLE h;

    at.QuadPart = 5ll << 30;
    CHECK(h = opened(L"huge", GENERIC_READ | GENERIC_WRITE, 0, CREATE_ALWAYS, 0));
    CHECK(SetFilePointerEx(h, at, NULL, FILE_BEGIN) && put(h, "end"));
    CloseHandle(h);
    CHECK(h = opened(L"huge", GENERIC_READ | GENERIC_WRITE, 0, OPEN_EXISTING, 0));
    CHECK(GetFileSizeEx(h, &size) && size.QuadPart == at.QuadPart + 3);
    at.QuadPart -= 16;
    CHECK(SetFilePointerEx(h, at, NULL, FILE_BEGIN) && ReadFile(h, zeros, 16, &n, NULL) && n == 16 && !zeros[0]);
    CHECK(ReadFile(h, zeros, 16, &n, NULL) && n == 3 && !memcmp(zeros, "end", 3));
    at.QuadPart = 3ll << 30;
    CHECK(SetFilePointerEx(h, at, NULL, FILE_BEGIN) && SetEndOfFile(h) && GetFileSizeEx(h, &size) && size.QuadPart == at.QuadPart);
    CloseHandle(h);
    CHECK(make(L"cut", "something") && make(L"cut", "") && holds(L"cut", ""));
    CHECK(make(L"cut", "anew") && holds(L"cut", "anew"));
}

/* long_paths: one of some 900 characters. */
static void long_paths(void)
{
    static WCHAR p[2048];
    HANDLE h;

    swprintf(p, 2048, L"\\\\?\\%ls", dir);
    for (int i = 0; i < 8; i++) {
        wcscat(p, L"\\");
        for (int j = 0; j < 100; j++) wcscat(p, L"d");
        CHECK(CreateDirectoryW(p, NULL));
    }
    wcscat(p, L"\\file");
    h = CreateFileW(p, GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL);
    CHECK(h != INVALID_HANDLE_VALUE && put(h, "deep") && CloseHandle(h));
    CHECK(GetFileAttributesW(p) != INVALID_FILE_ATTRIBUTES && DeleteFileW(p));
}

/* from_linux: whatever the host's files are called here, they can be read. */
static void from_linux(void)
{
    WIN32_FIND_DATAW found;
    int n = 0;
    HANDLE h = FindFirstFileW(in(L"*"), &found);

    CHECK(h != INVALID_HANDLE_VALUE);
    if (h == INVALID_HANDLE_VALUE) return;
    do {
        if (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) continue;
        if (!holds(found.cFileName, "from linux")) wrong++, printf("%ls can't be read\n", found.cFileName);
        n++;
    } while (FindNextFileW(h, &found));
    FindClose(h);
    printf("%d files from linux\n", n);
}

int main(void)
{
    int argc;
    WCHAR **argv = CommandLineToArgvW(GetCommandLineW(), &argc);

    if (argc != 3) return 100;
    wcscpy(dir, argv[1]);
    sharing();
    removing();
    names();
    attributes();
    sizes();
    long_paths();
    wcscpy(dir, argv[2]);
    from_linux();
    return wrong;
}
