/* shares.so: spares Wine round trips to the SMB server that Windows doesn't make.
 *
 * It is preloaded into every Wine process and wineserver, and changes nothing but
 * what they ask of the shares.
 *
 * Names. Windows asks an SMB server for a name, and the server finds it whatever
 * its case. Wine believes that every Linux file system tells upper from lower case:
 * when stat says that there is no such file it lists the directory and looks
 * itself. Over SMB that is three round trips for a name that doesn't exist, and
 * three quarters of a second in a directory of 10,000 files; and the search for
 * one DLL or program asks for many names. On the shares the server's answer is
 * the answer, as on Windows.
 *
 * Wine's ntdll (dlls/ntdll/unix/file.c) looks in two places, and in both opens
 * the directory after the stat that failed:
 *     find_file_in_dir      stat(DIR/NAME), opendir(DIR)
 *     read_directory_data   fchdir(DIR), stat(NAME), opendir(".")
 * while a listing that a program wants is fchdir(DIR), opendir("."). So here an
 * opendir on a share fails with ENOENT if the last thing that its thread asked for
 * was a name in that directory, in vain. In both places that means "no such file".
 * Names with a '~' are left alone: they may be short names, which Wine makes up
 * from the listing.
 *
 * In the same places Wine asks with an ioctl, then with fstatfs, whether the file
 * system is one of those that don't tell cases apart; for fstatfs the SMB client
 * makes another round trip. None of those is on a share.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SHARES "/run/winvm/unc/" /* rootfs/netd mounts them there */
#define DRIVES "/dosdevices/"    /* links to them in Wine's prefix */

static int (*real_stat)(const char *, struct stat *);
static int (*real_fchdir)(int);
static int (*real_ioctl)(int, unsigned long, ...);
static int (*real_fstatfs)(int, struct statfs *);
static DIR *(*real_opendir)(const char *);

static __thread char missed[PATH_MAX]; /* what the last stat didn't find; "" if it found it */
static __thread int asked = -1;        /* descriptor of the last ioctl that asked for flags */

__attribute__((constructor)) static void init(void)
{
    real_stat = dlsym(RTLD_NEXT, "stat");
    real_fchdir = dlsym(RTLD_NEXT, "fchdir");
    real_ioctl = dlsym(RTLD_NEXT, "ioctl");
    real_fstatfs = dlsym(RTLD_NEXT, "fstatfs");
    real_opendir = dlsym(RTLD_NEXT, "opendir");
}

/* leads_to_share tells whether the link of n bytes at path points into a share, or
 * to one through the prefix's link dosdevices/unc. */
static int leads_to_share(const char *path, size_t n)
{
    char link[PATH_MAX], target[PATH_MAX];
    ssize_t len;

    if (n >= sizeof link) return 0;
    memcpy(link, path, n);
    link[n] = 0;
    len = readlink(link, target, sizeof target - 1);
    if (len < 0) return 0;
    target[len] = 0;
    return !strncmp(target, SHARES, strlen(SHARES)) || !strncmp(target, "unc/", 4);
}

/* on_share tells whether a path is on a share, without asking the server. */
static int on_share(const char *path)
{
    static const char cwd[] = "/proc/thread-self/cwd";
    const char *drive;

    if (path[0] != '/') return leads_to_share(cwd, strlen(cwd));
    if (!strncmp(path, SHARES, strlen(SHARES))) return 1;
    if (!(drive = strstr(path, DRIVES))) return 0;
    drive += strlen(DRIVES);
    if (!strncmp(drive, "unc/", 4)) return 1;
    return leads_to_share(path, drive - path + strcspn(drive, "/"));
}

/* follows_miss tells whether the last name that wasn't found was one in dir. */
static int follows_miss(const char *dir)
{
    const char *slash = strrchr(missed, '/');

    if (!missed[0] || strchr(slash ? slash : missed, '~')) return 0;
    if (!slash) return !strcmp(dir, ".");
    return (size_t)(slash - missed) == strlen(dir) && !strncmp(missed, dir, slash - missed);
}

int stat(const char *path, struct stat *st)
{
    int rc = real_stat(path, st);

    missed[0] = 0;
    if (rc == -1 && errno == ENOENT && strlen(path) < sizeof missed) strcpy(missed, path);
    return rc;
}

int fchdir(int fd)
{
    missed[0] = 0;
    return real_fchdir(fd);
}

DIR *opendir(const char *dir)
{
    int miss = follows_miss(dir) && on_share(dir);

    missed[0] = 0;
    if (!miss) return real_opendir(dir);
    errno = ENOENT;
    return NULL;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    asked = request == FS_IOC_GETFLAGS ? fd : -1;
    return real_ioctl(fd, request, arg);
}

int fstatfs(int fd, struct statfs *st)
{
    char self[64];
    int again = fd == asked;

    asked = -1;
    if (again && leads_to_share(self, snprintf(self, sizeof self, "/proc/thread-self/fd/%d", fd))) {
        errno = ENOSYS;
        return -1;
    }
    return real_fstatfs(fd, st);
}
