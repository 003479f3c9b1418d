/* net.exe of the wine guest: `net use`, which Wine's own doesn't have.
 *
 * The mount itself is done by root: this program writes one line to the FIFO
 * of /usr/lib/winvm/netd, waits for the answer file, and then gives the mount
 * point a drive letter through Wine's mount manager, so that the letter is
 * known to every running program, and WNetGetConnection too.
 *
 * Build: see build.sh. */
#include "tiny.h"
#include <winioctl.h>

#define REQUESTS L"\\\\?\\unix\\run\\winvm\\net"
#define ANSWERS L"\\\\?\\unix\\run\\winvm\\answers\\"
#define SEPARATOR '\037'
#define LINE_LIMIT 1024 /* below PIPE_BUF, so that lines of two callers never mix */
#define WAIT_MS 90000

/* Wine's mount manager, include/ddk/mountmgr.h (WINE_MOUNTMGR_EXTENSIONS). */
#define IOCTL_DEFINE_UNIX_DRIVE CTL_CODE('m', 32, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_QUERY_UNIX_DRIVE CTL_CODE('m', 33, METHOD_BUFFERED, FILE_READ_ACCESS)
struct unix_drive {
    ULONG size, type, fs_type;
    DWORD serial;
    ULONGLONG unix_dev;
    WCHAR letter;
    USHORT mount_point_offset, device_offset, label_offset;
};
union drive_buffer {
    struct unix_drive drive;
    char bytes[1024];
};

static HANDLE out, manager = INVALID_HANDLE_VALUE;
static WCHAR words[8192], *argument[16];
static int arguments;

static void finish(DWORD code)
{
    ExitProcess(code);
}

static void succeed(void)
{
    put(out, "The command completed successfully.\r\n\r\n");
    finish(0);
}

static void usage(const char *problem)
{
    HANDLE err = GetStdHandle(STD_ERROR_HANDLE);
    if (problem) {
        put(err, problem);
        put(err, "\r\n\r\n");
    }
    put(err, "The syntax of this command is:\r\n\r\n"
             "NET USE\r\n"
             "NET USE {devicename | *} \\\\computername\\sharename [password] [/USER:[domainname\\]username]\r\n"
             "        [/PERSISTENT:{YES | NO}]\r\n"
             "NET USE \\\\computername\\sharename [password] [/USER:[domainname\\]username]\r\n"
             "NET USE {devicename | *} /DELETE [/YES]\r\n\r\n"
             "This is the net.exe of a winvm wine guest; it has no other commands.\r\n");
    finish(1);
}

static const struct { DWORD code; const char *text; } messages[] = {
    { 2, "The system cannot find the file specified." },
    { 5, "Access is denied." },
    { 53, "The network path was not found." },
    { 59, "An unexpected network error occurred." },
    { 66, "The network resource type is not correct." },
    { 67, "The network name cannot be found." },
    { 85, "The local device name is already in use." },
    { 86, "The specified network password is not correct." },
    { 87, "The parameter is incorrect." },
    { 1200, "The specified device name is invalid." },
    { 1219, "Multiple connections to a server or shared resource by the same user, using more than one user name, "
            "are not allowed." },
    { 1231, "The network location cannot be reached." },
    { 1326, "The user name or password is incorrect." },
    { 2250, "This network connection does not exist." },
    { 2404, "The device is being accessed by an active process." },
};

static void system_error(DWORD code)
{
    HANDLE err = GetStdHandle(STD_ERROR_HANDLE);
    const char *text = "See the helper messages of the guest's console.";
    char number[11];
    unsigned i;

    for (i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
        if (messages[i].code == code) text = messages[i].text;
    decimal(number, code);
    put(err, "System error ");
    put(err, number);
    put(err, " has occurred.\r\n\r\n");
    put(err, text);
    put(err, "\r\n\r\n");
    finish(2);
}

/* split fills argument[] by the rules of Windows' C programs: blanks separate,
 * double quotes join, and backslashes are special only before a quote. */
static void split(const WCHAR *from)
{
    WCHAR *to = words, *end = words + sizeof(words) / sizeof(words[0]) - 2;

    for (;;) {
        BOOL quoted = FALSE;
        while (*from == ' ' || *from == '\t') from++;
        if (!*from) return;
        if (arguments == sizeof(argument) / sizeof(argument[0])) usage("Too many arguments.");
        argument[arguments++] = to;
        while (*from && (quoted || (*from != ' ' && *from != '\t'))) {
            DWORD slashes = 0;
            while (from[slashes] == '\\') slashes++;
            if (to + slashes >= end) usage("The command line is too long.");
            if (from[slashes] == '"') {
                DWORD n = slashes / 2;
                while (n--) *to++ = '\\';
                if (slashes % 2) *to++ = '"';
                else quoted = !quoted;
                from += slashes + 1;
            } else if (slashes) {
                while (slashes--) *to++ = *from++;
            } else *to++ = *from++;
        }
        *to++ = 0;
    }
}

static WCHAR lower(WCHAR c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* starts says whether text begins with prefix (lower case) and returns what follows. */
static const WCHAR *starts(const WCHAR *text, const char *prefix)
{
    for (; *prefix; text++, prefix++)
        if (lower(*text) != (WCHAR)*prefix) return NULL;
    return text;
}

static BOOL is(const WCHAR *text, const char *word)
{
    const WCHAR *rest = starts(text, word);
    return rest && !*rest;
}

/* An option may be shortened: /d, /del, /delete. */
static BOOL option(const WCHAR *text, const char *word)
{
    if (*text++ != '/' || !*text) return FALSE;
    for (; *text; text++, word++)
        if (lower(*text) != (WCHAR)*word) return FALSE;
    return TRUE;
}

static HANDLE mount_manager(void)
{
    if (manager == INVALID_HANDLE_VALUE)
        manager = CreateFileW(L"\\\\.\\MountPointManager", GENERIC_READ | GENERIC_WRITE,
                              FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    if (manager == INVALID_HANDLE_VALUE) system_error(GetLastError());
    return manager;
}

/* remote_of gives "host/share" of a drive that net use made, or NULL. */
static const char *remote_of(WCHAR letter, union drive_buffer *b)
{
    const char *mount;
    DWORD n = 0;

    memset(b, 0, sizeof(*b));
    b->drive.letter = letter;
    if (!DeviceIoControl(mount_manager(), IOCTL_QUERY_UNIX_DRIVE, b, sizeof(b->drive), b, sizeof(*b), &n, NULL))
        return NULL;
    if (!b->drive.mount_point_offset || b->drive.mount_point_offset >= sizeof(*b) - 4) return NULL;
    b->bytes[sizeof(*b) - 1] = 0;
    mount = b->bytes + b->drive.mount_point_offset;
    if (mount[0] != 'u' || mount[1] != 'n' || mount[2] != 'c' || mount[3] != '/') return NULL;
    return mount + 4;
}

static BOOL in_use(WCHAR letter)
{
    union drive_buffer b;
    DWORD n;

    memset(&b, 0, sizeof(b));
    b.drive.letter = letter;
    return DeviceIoControl(mount_manager(), IOCTL_QUERY_UNIX_DRIVE, &b, sizeof(b.drive), &b, sizeof(b), &n, NULL);
}

static void set_drive(WCHAR letter, DWORD type, const char *host, const char *share)
{
    union drive_buffer b;
    char *to;
    DWORD n;

    memset(&b, 0, sizeof(b));
    b.drive.letter = letter;
    b.drive.type = type;
    if (host) {
        b.drive.mount_point_offset = sizeof(b.drive);
        to = b.bytes + sizeof(b.drive);
        *to++ = 'u', *to++ = 'n', *to++ = 'c', *to++ = '/';
        while (*host) *to++ = *host++;
        *to++ = '/';
        while (*share) *to++ = *share++;
    }
    b.drive.size = sizeof(b);
    if (!DeviceIoControl(mount_manager(), IOCTL_DEFINE_UNIX_DRIVE, &b, sizeof(b), NULL, 0, &n, NULL))
        system_error(GetLastError());
}

static char request[LINE_LIMIT];
static DWORD request_length;

static void field(const char *text)
{
    if (request_length) request[request_length++] = SEPARATOR;
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || request_length >= LINE_LIMIT - 2) system_error(87);
        request[request_length++] = *text;
    }
}

/* ask sends one request to netd and returns its code: 0 or a system error. */
static DWORD ask(const char *verb, const char *host, const char *share, const char *user, const char *password)
{
    static WCHAR path[64] = ANSWERS;
    char id[17], answer[16];
    LARGE_INTEGER counter;
    DWORD done, waited, code = 0, i, at = sizeof(ANSWERS) / sizeof(WCHAR) - 1;
    HANDLE h;

    QueryPerformanceCounter(&counter);
    counter.QuadPart = counter.QuadPart * 65537 + GetCurrentProcessId();
    for (i = 0; i < 16; i++, counter.QuadPart >>= 4) {
        id[i] = "0123456789abcdef"[counter.QuadPart & 15];
        path[at + i] = (WCHAR)id[i];
    }
    id[16] = 0;
    path[at + 16] = 0;

    request_length = 0;
    field(id), field(verb), field(host), field(share), field(user), field(password);
    request[request_length++] = '\n';
    h = CreateFileW(REQUESTS, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    if (h == INVALID_HANDLE_VALUE || !WriteFile(h, request, request_length, &done, NULL) || done != request_length) {
        put(GetStdHandle(STD_ERROR_HANDLE), "net: the guest's netd isn't running.\r\n");
        system_error(1231);
    }
    CloseHandle(h);
    memset(request, 0, sizeof(request));

    for (waited = 0; waited < WAIT_MS; waited += 10) {
        h = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                        OPEN_EXISTING, 0, NULL);
        if (h != INVALID_HANDLE_VALUE) {
            if (!ReadFile(h, answer, sizeof(answer) - 1, &done, NULL) || !done) return 59;
            CloseHandle(h);
            for (i = 0; i < done && answer[i] >= '0' && answer[i] <= '9'; i++)
                code = code * 10 + (DWORD)(answer[i] - '0');
            return code;
        }
        Sleep(10);
    }
    return 53;
}

static void list(void)
{
    union drive_buffer b;
    WCHAR letter;
    BOOL any = FALSE;

    put(out, "New connections will be remembered.\r\n\r\n");
    for (letter = 'A'; letter <= 'Z'; letter++) {
        const char *remote = remote_of(letter, &b), *p;
        char row[] = "OK           S:        \\\\", c[2] = { 0, 0 };
        int width;

        if (!remote) continue;
        if (!any)
            put(out, "\r\nStatus       Local     Remote                    Network\r\n\r\n"
                     "-------------------------------------------------------------------------------\r\n");
        any = TRUE;
        row[13] = (char)letter;
        put(out, row);
        for (p = remote, width = 2; *p; p++, width++) {
            c[0] = *p == '/' ? '\\' : *p;
            put(out, c);
        }
        for (; width < 26; width++) put(out, " ");
        put(out, "Microsoft Windows Network\r\n");
    }
    if (!any) put(out, "There are no entries in the list.\r\n\r\n");
    else succeed();
    finish(0);
}

/* utf8 converts s into a static buffer of its own slot. */
static const char *utf8(int slot, const WCHAR *s)
{
    static char buffer[4][LINE_LIMIT];
    if (!s) return "";
    if (!WideCharToMultiByte(CP_UTF8, 0, s, -1, buffer[slot], LINE_LIMIT, NULL, NULL)) system_error(87);
    return buffer[slot];
}

/* unc cuts \\host\share (in place) in two lower-case names. */
static void unc(WCHAR *s, const char **host, const char **share)
{
    WCHAR *h = s + 2, *p;

    for (p = h; *p && *p != '\\' && *p != '/'; p++) *p = lower(*p);
    if (!*p || p == h) system_error(67);
    *p++ = 0;
    s = p;
    for (; *p && *p != '\\' && *p != '/'; p++) *p = lower(*p);
    if (*p && p[1]) system_error(67); /* a directory below the share can't be mapped */
    *p = 0;
    if (!*s) system_error(67);
    *host = utf8(0, h);
    *share = utf8(1, s);
}

static void disconnect(WCHAR letter, BOOL required)
{
    union drive_buffer b;
    const char *remote = remote_of(letter, &b);
    WCHAR other;
    char host[256], *share;
    DWORD i, code;

    if (!remote) {
        if (required) system_error(2250);
        return;
    }
    for (i = 0; remote[i] && i < sizeof(host) - 1; i++) host[i] = remote[i];
    host[i] = 0;
    for (share = host; *share && *share != '/'; share++) {}
    if (*share) *share++ = 0;

    /* Another letter for the same share keeps it mounted. */
    for (other = 'A'; other <= 'Z'; other++) {
        union drive_buffer o;
        const char *r = other == letter ? NULL : remote_of(other, &o);
        DWORD n = 0;
        if (!r) continue;
        while (remote[n] && remote[n] == r[n]) n++;
        if (!remote[n] && !r[n]) break;
    }
    if (other > 'Z' && (code = ask("umount", host, share, "", ""))) system_error(code);
    set_drive(letter, DRIVE_NO_ROOT_DIR, NULL, NULL);
}

/* What was asked for, by use_arguments. */
static WCHAR *device, *remote, *password, letter; /* letter: 0 for none or `*` */
static const WCHAR *user;
static BOOL delete;

static void use_arguments(void)
{
    const WCHAR *value;
    int i;

    for (i = 2; i < arguments; i++) {
        WCHAR *a = argument[i];
        if ((value = starts(a, "/user:")) || (value = starts(a, "/u:"))) user = value;
        else if ((value = starts(a, "/persistent:")) || (value = starts(a, "/p:"))) {
            if (!is(value, "yes") && !is(value, "no") && !is(value, "y") && !is(value, "n"))
                usage("/PERSISTENT takes YES or NO.");
        } else if (option(a, "delete")) delete = TRUE;
        else if (option(a, "yes")) continue;
        else if (a[0] == '/' && a[1] != '/') usage("An option isn't supported.");
        else if (!remote && a[0] == '\\' && a[1] == '\\') remote = a;
        else if (!device && !remote) device = a;
        else if (!password && remote) password = a;
        else usage("Too many arguments.");
    }
    if (!device || is(device, "*")) return;
    letter = lower(device[0]) - 32;
    if (letter < 'A' || letter > 'Z' || device[1] != ':' || (device[2] && !(device[2] == '\\' && !device[3])))
        system_error(1200);
}

static void use_delete(void)
{
    const char *host, *share;
    union drive_buffer b;
    DWORD code;
    WCHAR l;

    if (letter) disconnect(letter, TRUE);
    for (l = 'A'; device && !letter && l <= 'Z'; l++) disconnect(l, FALSE);
    if (device) succeed();

    unc(remote, &host, &share);
    for (l = 'A'; l <= 'Z'; l++) {
        const char *r = remote_of(l, &b), *h = host, *s = share;
        if (!r) continue;
        while (*h && *r == *h) r++, h++;
        if (*h || *r++ != '/') continue;
        while (*s && *r == *s) r++, s++;
        if (!*s && !*r) system_error(2404); /* a drive letter still uses it */
    }
    if ((code = ask("umount", host, share, "", ""))) system_error(code);
    succeed();
}

static void use_show(void)
{
    union drive_buffer b;
    const char *r = letter ? remote_of(letter, &b) : NULL;
    char c[2] = { (char)letter, 0 };

    if (!r) system_error(2250);
    put(out, "Local name        ");
    put(out, c);
    put(out, ":\r\nRemote name       \\\\");
    for (; *r; r++) {
        c[0] = *r == '/' ? '\\' : *r;
        put(out, c);
    }
    put(out, "\r\nResource type     Disk\r\nStatus            OK\r\n");
    succeed();
}

static void use_connect(void)
{
    const char *host, *share;
    BOOL any = device && !letter;
    DWORD code;

    unc(remote, &host, &share);
    if (password && is(password, "*"))
        usage("Asking for a password isn't supported: give it in the command line.");
    if (letter && in_use(letter)) system_error(85);
    if (any)
        for (letter = 'Z'; in_use(letter); letter--)
            if (letter == 'D') system_error(85);
    if ((code = ask("mount", host, share, utf8(2, user), utf8(3, password)))) system_error(code);
    if (letter) set_drive(letter, DRIVE_REMOTE, host, share);
    if (any) {
        char text[] = "Drive Z: is now connected.\r\n\r\n";
        text[6] = (char)letter;
        put(out, text);
    }
    succeed();
}

static void use(void)
{
    if (arguments == 2) list();
    use_arguments();
    if (!device && !remote) {
        if (user || delete) usage("Which connection?");
        succeed(); /* NET USE /PERSISTENT:... alone only sets a default */
    }
    if (delete) use_delete();
    if (!remote) use_show();
    use_connect();
}

void start(void)
{
    out = GetStdHandle(STD_OUTPUT_HANDLE);
    split(GetCommandLineW());
    if (arguments < 2) usage(NULL);
    if (!is(argument[1], "use")) usage("Of net's commands this guest has only USE.");
    use();
}
